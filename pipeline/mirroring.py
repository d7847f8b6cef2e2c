"""Whether a collection lives in a bucket, for all that would change it; light where it does not.

- The folder of a collection says in `bucket.json` which bucket is its own (restricted; part of no identity), so
  that nothing that is done to a folder passes the bucket by.
"""
# ruff: noqa: PLC0415 - what speaks to object stores is loaded where there is one

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import canonical_json
from pipeline.config import Config
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.bucket import Bucket


def open_bucket(home: Collection) -> Bucket | None:
    """Return the bucket of a collection, if it has one."""
    if not home.bucket_record.exists():
        return None
    from pipeline.bucket import Bucket

    return Bucket.open(home)


def join(config: Config) -> Bucket | None:
    """Let the folder be a working copy of what lies in the bucket, if the configuration names one.

    What a run needs to know before it begins is brought: plan, secret, records, commits, decisions; no features.

    Raises:
        ConfigError: the folder is that of another bucket, or of another collection.
    """
    home = Collection(config.collection, config.roots)
    path = home.bucket_record
    fresh = bool(config.bucket) and not path.exists()
    if fresh:
        home.make()
        begun = {"url": config.bucket, "folder": secrets.token_hex(16), "remote": {}, "files": {}}
        with suppress(durable.DurableError):  # another process of this folder was first
            durable.write(path, canonical_json(begun), replace=False, mode=RESTRICTED_FILE_MODE)
    record = json.loads(path.read_bytes()) if path.exists() else {"url": ""}
    if record["url"] != config.bucket:
        raise ConfigError(
            f"{path}: this folder is a copy of {record['url']}, the configuration has bucket = {config.bucket!r}; "
            "restore it, or name another folder"
        )
    if not config.bucket:
        return None
    if record["remote"] != asdict(config.remote):
        record["remote"] = asdict(config.remote)
        durable.write(path, canonical_json(record), replace=True, mode=RESTRICTED_FILE_MODE)
    bucket = open_bucket(home)
    assert bucket is not None
    try:
        bucket.join()
    except BaseException:
        if fresh:  # so that another place can be named
            path.unlink()
        raise
    return bucket


@contextmanager
def mirrored(home: Collection) -> Iterator[None]:
    """Bring the folder up to date before it is changed, and the bucket after; no other folder changes it meanwhile.

    Raises:
        BusyError: another one does.
    """
    bucket = open_bucket(home)
    if bucket is None:
        yield
        return
    with bucket.claimed():
        yield
