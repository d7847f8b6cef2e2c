"""TOML values into frozen dataclasses, naming file and key in every error.

Owns types and ranges of values. Leaves which keys there are to `config.py`.
"""

from __future__ import annotations

import difflib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError

# Smallest and largest value of every number; a name stands here whichever table holds it.
_RANGES: dict[str, tuple[float, float]] = {
    "max_bytes": (1, 1 << 31),
    "max_pixels": (1, 1 << 30),
    "max_frames": (1, 1_000_000),
    "cpu_s": (1, 3600),
    "wall_s": (0.1, 3600),
    "memory_mb": (128, 1 << 20),
    "workers": (0, 4096),
    "batch": (1, 65536),
    "version": (0, 1 << 31),
    "max_age_days": (0, 36500),
    "max_near_hits_per_entry": (1, 1 << 31),
    "radius": (0, 127),
    "radius64": (0, 31),
    "max_fault_share_shard": (0, 1),
    "max_fault_share_run": (0, 1),
    "resize": (0, 65_500),
    "quality": (1, 100),
    "threads": (1, 1024),
    "price_per_hour": (0, 1e6),
    **dict.fromkeys(("release_days", "restricted_days", "journal_days", "sealed_days"), (0, 36500)),
    "signer_timeout_s": (1, 600),
    "attempts": (1, 100),
    "silence_s": (1, 3600),
    "fetch_s": (0.1, 3600),
    "max_redirects": (0, 50),
    "host_rate": (0.01, 1_000_000),
    **dict.fromkeys(("host_connections", "connections"), (1, 4096)),
    "rows_per_shard": (1, 1_000_000),
    "retry_after_s": (0, 86_400),
}


class TableReader:
    """Turns TOML tables into dataclasses, naming file and key in every error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, kind: type[Any], raw: object, where: str) -> Any:  # noqa: ANN401 - an instance of `kind`
        """Return the dataclass `kind` from a table; `where` names it in errors.

        Raises:
            ConfigError: a key is unknown, missing, of the wrong type or out of range.
        """
        if not isinstance(raw, dict):
            raise ConfigError(f"{self._path}: {where or 'file'}: expected a table, found {_kind_name(raw)}")
        hints = get_type_hints(kind)
        known = {item.name: item for item in fields(kind)}
        for key in raw:
            if key not in known:
                raise ConfigError(f"{self._path}: {self._join(where, key)}: unknown key{_nearest(key, known)}")
        values: dict[str, Any] = {}
        for name, item in known.items():
            full = self._join(where, name)
            if name in raw:
                values[name] = self._value(hints[name], raw[name], full)
            elif item.default is MISSING and item.default_factory is MISSING:
                raise ConfigError(f"{self._path}: {full}: missing; this key has no default")
        try:
            return kind(**values)
        except ValueError as error:
            raise ConfigError(f"{self._path}: {where}: {error}") from None

    def _value(self, kind: Any, raw: object, where: str) -> Any:  # noqa: ANN401 - a value of type `kind`
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            options = [item for item in arguments if item is not type(None)]
            kind = next((o for o in options if (get_origin(o) is tuple) == isinstance(raw, list)), options[0])
            return self._value(kind, raw, where)
        if origin is Literal:
            if raw not in arguments:
                choices = " | ".join(repr(item) for item in arguments)
                raise ConfigError(f"{self._path}: {where}: expected {choices}, found {raw!r}")
            return raw
        if origin is tuple:
            if not isinstance(raw, list):
                raise ConfigError(f"{self._path}: {where}: expected a list, found {_kind_name(raw)}")
            return tuple(self._value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
        if is_dataclass(kind) and isinstance(kind, type):
            return self.table(kind, raw, where)
        return self._scalar(kind, raw, where)

    def _scalar(self, kind: Any, raw: object, where: str) -> Any:  # noqa: ANN401 - a value of type `kind`
        if kind is Path and isinstance(raw, str):
            return (self._path.parent / raw).absolute()
        if kind is float and type(raw) is int:
            raw = float(raw)
        if type(raw) is not kind:
            wanted = "text" if kind in (str, Path) else kind.__name__
            raise ConfigError(f"{self._path}: {where}: expected {wanted}, found {_kind_name(raw)}")
        low, high = _RANGES.get(where.rsplit(".", 1)[-1], (float("-inf"), float("inf")))
        if isinstance(raw, int | float) and not low <= raw <= high:
            raise ConfigError(f"{self._path}: {where}: expected {low} to {high}, found {raw}")
        return raw

    @staticmethod
    def _join(where: str, key: str) -> str:
        return f"{where}.{key}" if where else key


def _kind_name(raw: object) -> str:
    names = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true/false",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(raw), type(raw).__name__)


def _nearest(key: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys are {', '.join(sorted(known))}"
