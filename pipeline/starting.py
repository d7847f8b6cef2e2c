"""What `shardscrub init` writes: a commented configuration and the default policy."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from manifests import durable
from pipeline.errors import ConfigError


def write_starter(folder: Path) -> tuple[Path, ...]:
    """Write `scrub.toml` and `policy.toml` into `folder`.

    Raises:
        ConfigError: one of them is there already; nothing is written over.
    """
    package = resources.files("pipeline")
    texts = {
        "scrub.toml": package.joinpath("starter", "scrub.toml").read_text(encoding="utf-8"),
        "policy.toml": package.joinpath("policies", "separation.toml").read_text(encoding="utf-8"),
    }
    paths = tuple(folder / name for name in texts)
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: exists already; nothing is written over")
    durable.make_folder(folder)
    for path, text in zip(paths, texts.values(), strict=True):
        durable.write(path, text.encode(), replace=False)
    return paths
