"""The one configuration file: TOML in, frozen dataclasses out.

Owns key names, types, defaults and ranges. Leaves to others what the values mean together (`plan.py`).

- Every key is documented in `docs/operating.md` and in the file that `shardscrub init` writes.
- An unknown key is refused with the nearest known one; nothing is read from the environment.
- Relative paths are relative to the configuration file.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from classifiers.hashes.views import VIEW_NAMES
from classifiers.image.preprocessing import OPEN_NSFW, Preprocessing
from pipeline.errors import ConfigError

THUMBNAIL = "thumbnail"
VIEWS = (*VIEW_NAMES, THUMBNAIL)


@dataclass(frozen=True, slots=True)
class InputConfig:
    """Where shards lie: one tar, a glob or a `{000..127}` range, or a list of these."""

    shards: str | tuple[str, ...]
    prefix: str = ""
    sidecar: Literal["auto", "none"] = "auto"


@dataclass(frozen=True, slots=True)
class MembersConfig:
    """What to do with the members of a sample that are not images."""

    text: tuple[str, ...] = ("json", "txt")
    copied: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    trailing_bytes: Literal["quarantine", "copied"] = "quarantine"


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """Caps on one image, and how many isolated decoders a shard worker keeps."""

    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000
    max_frames: int = 1000
    cpu_s: int = 10
    wall_s: float = 30.0
    memory_mb: int = 1024
    animated: Literal["quarantine", "first-frame"] = "quarantine"
    workers: int = 1


@dataclass(frozen=True, slots=True)
class HashesConfig:
    """Which perceptual hashes are taken, of which views of a picture (`classifiers.hashes`)."""

    kinds: tuple[str, ...] = ("pdq:fullres", "pdq:turned")
    views: tuple[str, ...] = VIEWS


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """The image tower: a folder as open_clip's `local-dir:` reads it, pinned by digest."""

    name: str
    folder: Path
    sha256: str
    batch: int = 32
    precision: Literal["auto", "fp32", "bf16"] = "auto"


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """A classifier on the embedding, pinned by digest.

    backbones: for a published kind, the digests of the model folders that hold the weights it was made for.
    """

    file: Path
    sha256: str
    kind: Literal["mlp", "zero-shot", "laion-nsfw", "laion-nsfw-mean-impute", "laion-violence"] = "mlp"
    backbones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetConfig:
    """An image classifier in an ONNX file, pinned by digest; without `preprocessing` it is OpenNSFW."""

    name: str
    file: Path
    sha256: str
    preprocessing: Preprocessing = OPEN_NSFW


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Which concepts captions and URLs are screened for, by the words that come with the distribution."""

    concepts: tuple[Literal["minor", "sexual"], ...] = ()


@dataclass(frozen=True, slots=True)
class TermsConfig:
    """A file of further terms, pinned by digest: those of a concept above, or of one of its own."""

    concept: str
    file: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class ListsConfig:
    """Where the list store lies and what opens it, and how many near hits make an entry a bad one."""

    store: Path | None = None
    key: Path | None = None
    unsafe_plain_lists: bool = False
    max_near_hits_per_entry: int = 1000


@dataclass(frozen=True, slots=True)
class ListConfig:
    """A list of the store; version 0 is the newest, max_age_days 0 is no bound."""

    id: str
    version: int = 0
    radius: int = 31
    radius64: int = 4
    max_age_days: int = 0


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """The rules: a file of yours or a shipped profile."""

    file: Path | None = None
    profile: str = ""
    overrides: Path | None = None


@dataclass(frozen=True, slots=True)
class SealedConfig:
    """Who can open the records of withheld samples (age X25519 public keys)."""

    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseConfig:
    """What a release holds, and when there is none."""

    shards: bool = True
    max_fault_share_shard: float = 0.10
    max_fault_share_run: float = 0.02
    accept_damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How the work is spread; workers = 0 means one a core, or one a GPU."""

    workers: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, as written."""

    collection: Path
    input: tuple[InputConfig, ...]
    policy: PolicyConfig
    embedder: EmbedderConfig | None = None
    head: tuple[HeadConfig, ...] = ()
    list: tuple[ListConfig, ...] = ()
    net: tuple[NetConfig, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    terms: tuple[TermsConfig, ...] = ()
    lists: ListsConfig = field(default_factory=ListsConfig)
    members: MembersConfig = field(default_factory=MembersConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    hashes: HashesConfig = field(default_factory=HashesConfig)
    sealed: SealedConfig = field(default_factory=SealedConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    run: RunConfig = field(default_factory=RunConfig)
    unsafe_stand_in_models: bool = False


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
    "threads": (1, 1024),
}


def load_config(path: Path) -> Config:
    """Read and check one configuration file.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, missing, of the wrong type or out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `shardscrub init DIR` writes a commented one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    config: Config = _Reader(path).table(Config, raw, "")
    _check(path, config)
    return config


def _check(path: Path, config: Config) -> None:
    if not config.input:
        raise ConfigError(f"{path}: no [[input]]; say where the shards lie")
    if (config.policy.file is None) == (not config.policy.profile):
        raise ConfigError(f"{path}: [policy] needs either `file` or `profile`, and not both")
    if config.head and config.embedder is None:
        raise ConfigError(f"{path}: [[head]] needs an [embedder] to read from")
    ids = [item.id for item in config.list]
    for duplicate in sorted({name for name in ids if ids.count(name) > 1}):
        raise ConfigError(f"{path}: two [[list]] tables have the id {duplicate!r}; ids are unique")
    if config.list and config.lists.store is None:
        raise ConfigError(f"{path}: [[list]] needs [lists] store, the folder that `shardscrub lists import` fills")
    named = (config.members.text, config.members.copied, config.members.left_out)
    for extension in sorted({name for group in named for name in group}):
        if sum(extension in group for group in named) > 1:
            raise ConfigError(f"{path}: [members] names the extension {extension!r} twice")


class _Reader:
    """Turns TOML tables into dataclasses, naming file and key in every error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, kind: type[Any], raw: object, where: str) -> Any:  # noqa: ANN401 - an instance of `kind`
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
                values[name] = self.value(hints[name], raw[name], full)
            elif item.default is MISSING and item.default_factory is MISSING:
                raise ConfigError(f"{self._path}: {full}: missing; this key has no default")
        try:
            return kind(**values)
        except ValueError as error:
            raise ConfigError(f"{self._path}: {where}: {error}") from None

    def value(self, kind: Any, raw: object, where: str) -> Any:  # noqa: ANN401 - a value of type `kind`
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            options = [item for item in arguments if item is not type(None)]
            kind = next((o for o in options if (get_origin(o) is tuple) == isinstance(raw, list)), options[0])
            return self.value(kind, raw, where)
        if origin is Literal:
            if raw not in arguments:
                choices = " | ".join(repr(item) for item in arguments)
                raise ConfigError(f"{self._path}: {where}: expected {choices}, found {raw!r}")
            return raw
        if origin is tuple:
            if not isinstance(raw, list):
                raise ConfigError(f"{self._path}: {where}: expected a list, found {_kind_name(raw)}")
            return tuple(self.value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(raw))
        if is_dataclass(kind) and isinstance(kind, type):
            return self.table(kind, raw, where)
        return self.scalar(kind, raw, where)

    def scalar(self, kind: Any, raw: object, where: str) -> Any:  # noqa: ANN401 - a value of type `kind`
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
