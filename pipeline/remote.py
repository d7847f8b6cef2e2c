"""Places that are not folders: object stores and web servers, spoken to through fsspec.

Owns retries, put-if-absent and range reads. Leaves to others what is stored where, and to `remote_errors.py` what
an error may say.

- An object is seen whole or not at all: one put, or a multipart upload that ends in one.
- Put-if-absent is the store's own (If-None-Match, ifGenerationMatch); where a store lacks it, the object is looked
  for, written, read back and compared, with a warning: of two writers at one moment, both may then find their own.
- FileNotFoundError and FileExistsError are answers; all else is tried again while it may pass, with a bound.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.utils import glob_translate

from manifests import durable
from pipeline.errors import ExitCode
from pipeline.remote_config import RemoteConfig, is_remote, place_of
from pipeline.remote_errors import FAILURES, LOST_RACE, RemoteError, RemoteWarning, code_of, refusal
from pipeline.remote_options import GOOGLE, S3, options_of

__all__ = ["Remote", "RemoteConfig", "RemoteError", "RemoteWarning", "is_remote", "place_of"]

ResultT = TypeVar("ResultT")

_MAGIC = re.compile(r"[*?\[]")
_CHUNK = 16 << 20
_PARTS = 9000  # S3 takes 10,000 parts at most


@dataclass(slots=True)
class Remote:
    """All that lies below one URL; names are relative to it."""

    url: str
    config: RemoteConfig
    _files: Any = field(repr=False)
    _failures: tuple[type[Exception], ...] = field(default=FAILURES, repr=False)
    _warned: bool = field(default=False, repr=False)

    @classmethod
    def connect(cls, url: str, config: RemoteConfig | None = None) -> Remote:
        """Return what lies below `url`; nothing is contacted yet.

        Raises:
            RemoteError: the URL holds credentials or a query, or nothing here speaks its scheme.
        """
        config = config or RemoteConfig()
        try:
            parts = urlsplit(url)
        except ValueError:
            raise RemoteError(
                "a URL of a remote place is not of the form s3://bucket/folder", ExitCode.USAGE
            ) from None
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise RemoteError(
                f"{place_of(url)}: the URL holds a user, a query or a fragment; leave it out: options stand in "
                "[remote], credentials in the store's own files or environment",
                ExitCode.USAGE,
            )
        failures: tuple[type[Exception], ...] = FAILURES
        try:
            files = fsspec.filesystem(parts.scheme, **options_of(parts.scheme, config))
            if parts.scheme in GOOGLE:
                from gcsfs.retry import HttpError  # noqa: PLC0415 - comes with gcsfs, which few need

                failures = (*FAILURES, HttpError)
        except (ImportError, ValueError) as error:
            what = f"install {parts.scheme}fs" if isinstance(error, ImportError) else "use s3://, gs:// or https://"
            raise RemoteError(
                f"{place_of(url)}: nothing here speaks {parts.scheme}://; {what}", ExitCode.USAGE
            ) from None
        except BotoCoreError as error:
            raise RemoteError(f"{place_of(url)}: {type(error).__name__}; check [remote]", ExitCode.USAGE) from None
        if parts.scheme in S3:
            files.retries = 1  # ours count
        return cls(url.rstrip("/"), config, files, failures)

    def find(self, pattern: str = "**") -> list[str]:
        """Return the names of all objects that match a glob (`**` crosses folders), sorted."""
        magic = _MAGIC.search(pattern)
        folder = (pattern[: magic.start()] if magic else pattern).rpartition("/")[0]
        rest = pattern[len(folder) :].lstrip("/")
        depth = None if "**" in rest else rest.count("/") + 1
        top = self._full("")
        found = self._call(folder, self._files.find, self._full(folder), maxdepth=depth)
        if not found and urlsplit(self.url).scheme in S3:  # for which no bucket is an empty one
            bucket = top.partition("/")[0]
            self._call("", self._files.call_s3, "list_objects_v2", Bucket=bucket, MaxKeys=1)
        expected = re.compile(glob_translate(pattern))
        names = (str(path)[len(top) :].lstrip("/") for path in found)
        return sorted(name for name in names if name and expected.match(name))

    def state(self, name: str) -> tuple[int | None, str] | None:
        """Return size (None: the server does not say) and entity tag or time of an object, if it exists."""
        try:
            about: Mapping[str, Any] = self._call(name, self._files.info, self._full(name))
        except FileNotFoundError:
            return None
        if about.get("type") == "directory":
            return None
        tag = next((about[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if key in about), "")
        return about.get("size"), str(tag).strip('"')

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small object, or None where there is none."""
        try:
            return bytes(self._call(name, self._files.cat_file, self._full(name)))
        except FileNotFoundError:
            return None

    def fetch(self, name: str, path: Path, *, mode: int = 0o644) -> str:
        """Bring an object to `path`, in ranges, each tried again by itself; returns its SHA-256 in hex.

        Raises:
            RemoteError: it is not there, changed meanwhile, or the store does not answer.
            OSError: the disk is full.
        """
        before = self.state(name)
        if before is None:
            raise RemoteError(f"{self.place(name)}: no such object; check the URL", ExitCode.INPUT)
        size, digest, done = before[0], hashlib.sha256(), 0
        with durable.create(path, replace=True, mode=mode) as file:
            while size is None or done < size:
                end = None if size is None else min(done + _CHUNK, size)
                data = self._call(name, self._range, name, done, end)
                digest.update(data)
                file.write(data)
                done += len(data)
                if size is None:
                    break
            if self.state(name) != before:
                raise RemoteError(f"{self.place(name)}: changed while it was read; run again", ExitCode.INPUT)
        return digest.hexdigest()

    def put(self, name: str, data: Path | bytes, *, if_absent: bool, expected: str = "") -> bool:
        """Put one object; False: another one is there (`if_absent`), or not that of the state `expected`.

        An object with the same bytes counts as ours: doing finished work again does nothing.

        Raises:
            RemoteError: the store does not answer, or refuses.
        """
        options: dict[str, Any] = {}
        if expected and self._native and self.url.startswith("s3"):
            options = {"IfMatch": f'"{expected}"'}
        if if_absent or (expected and not options):
            there = self.state(name)
            if there is not None and there[1] != expected:
                return self._same(name, data)
        if if_absent and self._native:
            options = {"mode": "create"}
        try:
            self._call(name, self._put, self._full(name), data, options)
        except FileExistsError:
            return self._same(name, data)
        if if_absent and not self._native:
            self._warn()
            return self._same(name, data)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with suppress(FileNotFoundError):
            self._call(name, self._files.rm_file, self._full(name))

    def abort_uploads(self, *, older_than_s: float) -> int:
        """Abort multipart uploads that a killed writer left below here so long ago; returns how many."""
        if urlsplit(self.url).scheme not in S3:
            return 0
        bucket, _, prefix = self._full("").partition("/")
        listed = self._call("", self._files.call_s3, "list_multipart_uploads", Bucket=bucket, Prefix=prefix + "/")
        begun_before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        old = [item for item in listed.get("Uploads", []) if item["Initiated"] <= begun_before]
        for item in old:
            self._call("", self._files.abort_mpu, bucket, item["Key"], item["UploadId"])
        return len(old)

    def place(self, name: str = "") -> str:
        """Return what may be said of where `name` lies."""
        return place_of(f"{self.url}/{name}" if name else self.url)

    @property
    def _native(self) -> bool:
        return self.config.put_if_absent and urlsplit(self.url).scheme in (*S3, *GOOGLE, "memory")

    def _full(self, name: str) -> str:
        path: str = self._files._strip_protocol(f"{self.url}/{name}" if name else self.url)
        return path

    def _put(self, path: str, data: Path | bytes, options: Mapping[str, Any]) -> None:
        if isinstance(data, bytes):
            self._files.pipe_file(path, data, **options)
        else:
            if urlsplit(self.url).scheme in S3:
                options = {**options, "chunksize": max(_CHUNK, -(-data.stat().st_size // _PARTS))}
            self._files.put_file(str(data), path, **options)

    def _range(self, name: str, start: int, end: int | None) -> bytes:
        data: bytes = self._files.cat_file(self._full(name), start=start if end else None, end=end)
        if end is not None and len(data) != end - start:
            raise ConnectionError(f"{len(data)} bytes of {end - start}")
        return data

    def _same(self, name: str, data: Path | bytes) -> bool:
        size, _ = self.state(name) or (-1, "")
        if size != (len(data) if isinstance(data, bytes) else data.stat().st_size):
            return False
        there = hashlib.sha256()
        for start in range(0, size, _CHUNK):
            there.update(self._call(name, self._range, name, start, min(start + _CHUNK, size)))
        return there.digest() == _digest(data)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.place()}: this store has no put-if-absent; let no two writers work on one shard",
                RemoteWarning,
                stacklevel=4,
            )

    def _call(self, name: str, call: Callable[..., ResultT], *args: object, **kwargs: object) -> ResultT:
        for attempt in range(1, self.config.attempts + 1):
            try:
                return call(*args, **kwargs)
            except self._failures as error:
                code = self._said(name, code_of(error))
                if code in LOST_RACE or isinstance(error, FileExistsError):
                    raise FileExistsError from None
                if isinstance(error, FileNotFoundError) and code not in ("NoSuchBucket", "NoSuchUpload"):
                    raise FileNotFoundError from None
                refused = refusal(self.place(name), code)
                if refused is not None:
                    raise refused from None
                if attempt == self.config.attempts:
                    where = f" at {place_of(self.config.endpoint_url)}" if self.config.endpoint_url else ""
                    raise RemoteError(
                        f"{self.place(name)}: no answer{where} in {attempt} attempts, the last one: {code}; check "
                        "that the store can be reached, then run again"
                    ) from None
            # Full jitter: many nodes that were told to slow down must not come back together.
            time.sleep(random.uniform(0.05, min(0.2 * 2**attempt, 20.0)))  # noqa: S311 - no secret
        raise AssertionError

    def _said(self, name: str, code: str) -> str:
        """Return the code that a request with an answer in words gets, where S3 gave a bare number."""
        if code not in ("400", "403") or urlsplit(self.url).scheme not in S3:
            return code
        bucket, _, key = self._full(name).partition("/")
        try:
            self._files.call_s3("get_object", Bucket=bucket, Key=key or "/", Range="bytes=0-0")
        except self._failures as error:
            return code_of(error)
        return code


def _digest(data: Path | bytes) -> bytes:
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
