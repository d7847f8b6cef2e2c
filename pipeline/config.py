"""The one configuration file: TOML in, frozen dataclasses out.

Owns key names, types, defaults and ranges. Leaves to others what the values mean together (`plan.py`).

- Every key is documented in `docs/operating.md` and in the file that `shardscrub init` writes.
- An unknown key is refused with the nearest known one; nothing is read from the environment.
- Relative paths are relative to the configuration file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from classifiers.hashes.views import VIEW_NAMES
from classifiers.image.registry import NetSettings
from manifests.croissant import Dataset
from pipeline.config_values import TableReader
from pipeline.download.settings import DownloadConfig
from pipeline.errors import ConfigError
from pipeline.input_config import InputConfig
from pipeline.log_config import LogConfig, check_log
from pipeline.metadata import MetadataColumn
from pipeline.nightly_config import NightlyConfig, check_nightly
from pipeline.release_config import ReleaseConfig
from pipeline.remote_config import RemoteConfig, check_bucket

THUMBNAIL = "thumbnail"
VIEWS = (*VIEW_NAMES, THUMBNAIL)


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
    compile: bool = False


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """A classifier on the embedding, pinned by digest.

    kind: one of `classifiers.heads.registry`, or of a plug-in. backbones: for a published kind, the digests of the
    model folders that hold the weights it was made for.
    """

    file: Path
    sha256: str
    kind: str = "mlp"
    backbones: tuple[str, ...] = ()


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
    """Who can open the records of withheld samples (age X25519 public keys), and who takes the cases.

    identities_at: where else to look for secret keys that a run must not be able to read. unsafe_preserve_bytes:
    the bytes of sealed images go into the sealed file.
    """

    recipients: tuple[str, ...] = ()
    case_owner_role: str = ""
    case_owner_contact: str = ""
    identities_at: tuple[Path, ...] = ()
    unsafe_preserve_bytes: bool = False


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """How many days the files of each tier are kept; 0 is no end. Destroyed by a command, never by itself."""

    release_days: int = 0
    restricted_days: int = 0
    journal_days: int = 0
    sealed_days: int = 0

    def of(self, tier: str) -> int:
        """Return the days of one tier."""
        days: int = getattr(self, f"{tier}_days")
        return days


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """How a release is handed to outsiders: the secret file under which kept samples are dropped as cover."""

    cover: Path | None = None


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How the work is spread; workers = 0 means one a core.

    share_model: one process holds the model for all workers, as on a GPU. price_per_hour: of the machine.
    """

    workers: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    share_model: bool = False
    price_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class ScreenConfig:
    """How tables are screened before download: the policy, and columns with names of their own.

    policy: a profile or a .toml file. every_term: look for terms also where nothing hangs on them.
    """

    policy: str = "screen"
    url: str = ""
    caption: str = ""
    digests: tuple[str, ...] = ()
    every_term: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, as written."""

    collection: Path
    input: tuple[InputConfig, ...]
    policy: PolicyConfig
    release_root: Path | None = None
    sealed_root: Path | None = None
    log_root: Path | None = None
    bucket: str = ""
    embedder: EmbedderConfig | None = None
    head: tuple[HeadConfig, ...] = ()
    list: tuple[ListConfig, ...] = ()
    net: tuple[NetSettings, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    terms: tuple[TermsConfig, ...] = ()
    metadata: tuple[MetadataColumn, ...] = ()
    lists: ListsConfig = field(default_factory=ListsConfig)
    members: MembersConfig = field(default_factory=MembersConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    hashes: HashesConfig = field(default_factory=HashesConfig)
    sealed: SealedConfig = field(default_factory=SealedConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    run: RunConfig = field(default_factory=RunConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    screen: ScreenConfig = field(default_factory=ScreenConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    nightly: NightlyConfig = field(default_factory=NightlyConfig)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    log: LogConfig | None = None
    dataset: Dataset | None = None
    unsafe_stand_in_models: bool = False
    unsafe_historic_policy: bool = False

    @property
    def roots(self) -> dict[str, Path]:
        """The folders of tiers that have one of their own."""
        named = {"releases": self.release_root, "sealed": self.sealed_root, "log": self.log_root}
        return {tier: home for tier, home in named.items() if home is not None}


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
    config: Config = TableReader(path).table(Config, raw, "")
    _check(path, config)
    return config


def _check(path: Path, config: Config) -> None:
    if not config.input:
        raise ConfigError(f"{path}: no [[input]]; say where the shards lie")
    if (config.policy.file is None) == (not config.policy.profile):
        raise ConfigError(f"{path}: [policy] needs either `file` or `profile`, and not both")
    check_bucket(path, config.bucket)
    if config.head and config.embedder is None:
        raise ConfigError(f"{path}: [[head]] needs an [embedder] to read from")
    for what, names in (
        ("[[list]] tables have the id", [item.id for item in config.list]),
        ("[[net]] tables have the name", [item.name for item in config.net]),
        ("[[metadata]] tables give the signal", [item.signal for item in config.metadata]),
    ):
        for duplicate in sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{path}: two {what} {duplicate!r}; each needs its own")
    if config.log is not None:
        check_log(path, config.log, [config.collection, *config.roots.values()])
    if (config.list or config.nightly.lists) and config.lists.store is None:
        raise ConfigError(f"{path}: [[list]] needs [lists] store, the folder that `shardscrub lists import` fills")
    check_nightly(path, config.nightly, [config.collection, *config.roots.values()])
    named = (config.members.text, config.members.copied, config.members.left_out)
    for extension in sorted({name for group in named for name in group}):
        if sum(extension in group for group in named) > 1:
            raise ConfigError(f"{path}: [members] names the extension {extension!r} twice")
