"""What somebody outside could try who looks for the cases among what is missing: a script, strategy by strategy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

NOISE_BYTES = 1024  # the header of an age file holds a stanza of random length
Files = Mapping[str, tuple[int, int]]  # by name: size, and time in nanoseconds


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of one settle: keys missing since it, by shard; what was printed; files new or changed."""

    missing: Mapping[str, frozenset[str]]
    console: str
    files: Files


def list_files(root: Path, *, account: str) -> dict[str, tuple[int, int]]:
    """List what an account may. "outside": no folder that is closed to others, but the folders themselves;
    "sealed": also what is sealed, as those who store it; "inside": everything."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        above = [root / part for part in list(path.relative_to(root).parents)[:-1]]
        is_open = all(folder.stat().st_mode & 0o005 == 0o005 for folder in above)
        if is_open or account == "inside" or (account == "sealed" and name.startswith("sealed/")):
            stat = path.stat()
            found[name] = (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
    return found


def strategies(seen: Seen) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield every strategy by name, with the keys that it takes for cases; none where it cannot tell."""
    yield "all that is missing", frozenset().union(*seen.missing.values())
    for name, shards in _shards_told(seen):
        yield name, frozenset().union(*(seen.missing[shard] for shard in shards))


def _shards_told(seen: Seen) -> Iterator[tuple[str, Sequence[str]]]:
    shards = list(seen.missing)
    by_form: dict[str, dict[str, tuple[int, int]]] = {}
    for name, values in seen.files.items():
        for shard in shards:
            if re.search(rf"/{shard}[.~]", name):
                form = re.sub(r"~\d+", "~N", name.replace(f"/{shard}", "/*"))
                by_form.setdefault(form, {})[shard] = values
    for form, of in sorted(by_form.items()):
        if len(of) < len(shards):
            yield f"name {form}", _few(of, shards)
        sizes = {shard: size for shard, (size, _) in of.items()}
        middle = median(sizes.values())
        noise = NOISE_BYTES if form.endswith(".age") else 0
        yield f"size {form}", _farthest({shard: abs(size - middle) for shard, size in sizes.items()}, noise)
        times = sorted((time, shard) for shard, (_, time) in of.items())
        gaps = {later[1]: later[0] - earlier[0] for earlier, later in pairwise(times)}
        yield f"time {form}", _farthest(gaps, 0)
    lines = {shard: re.findall(rf"\b{shard}\b.*", seen.console) for shard in shards}
    told = {shard: [line.replace(shard, "") for line in found] for shard, found in lines.items()}
    usual = max(map(str, told.values()), key=list(map(str, told.values())).count)
    yield "console", _few([shard for shard in shards if str(told[shard]) != usual], shards)


def _few(named: Sequence[str] | Mapping[str, object], shards: Sequence[str]) -> list[str]:
    """The shards that something is said of, or not said of, whichever are fewer; too many tell nothing."""
    others = [shard for shard in shards if shard not in named]
    few = min([*named], others, key=len)
    return few if len(few) <= 2 else []


def _farthest(values: Mapping[str, float], noise: float) -> list[str]:
    """The shard whose value is largest, if it is more than noise."""
    shard = max(values, key=lambda name: values[name], default="")
    return [shard] if shard and values[shard] > noise else []
