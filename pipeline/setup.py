"""From a configuration to everything a run needs: plan, lists, policy, models.

Owns the wiring, and the checks that need more than one part of the configuration. Examining needs torch, which
is imported only when models are made; settling does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from classifiers.blocklists.lists import HashList, ListError, load_list
from classifiers.embedders.devices import resolve_device, resolve_precision
from classifiers.embedders.folder import ClipFolder, embedder_name, read_folder
from classifiers.hashes.registry import find_kind, kind_names
from classifiers.heads.mlp import MlpHead
from classifiers.weights import WeightsError, check_pin
from manifests import durable
from manifests.cases import SealError, check_recipients
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import canonical_json
from manifests.schema import CODE_BYTES
from pipeline.commit import Decider
from pipeline.config import VIEWS, Config, ListConfig, load_config
from pipeline.decode import DecodeLimits, Decoder
from pipeline.errors import ConfigError
from pipeline.examine import Examiner
from pipeline.executors.protocol import OnRows, WorkerOptions
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.shards import ShardSource, find_shards
from pipeline.measure import Models
from pipeline.plan import (
    DecidePlan,
    DecodePlan,
    ExaminePlan,
    ListPlan,
    Plan,
    check_same_plan,
    make_plan,
    read_recorded,
    software_versions,
)
from pipeline.policy import Policy, PolicyError, SignalSpec, load_policy, shipped_policy
from pipeline.verdicts import list_signal_specs

STAND_IN_STAMP = "unsafe_stand_in_models"


class UnsafeWarning(UserWarning):
    """Something that weakens safety is switched on."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run needs besides models; `path` is the configuration's."""

    path: Path
    config: Config
    collection: Collection
    sources: tuple[ShardSource, ...]
    plan: Plan
    heads: tuple[MlpHead, ...]
    decider: Decider

    def source(self, shard: str) -> ShardSource | None:
        """Return the shard of that name, if the configuration names it."""
        return next((item for item in self.sources if item.name == shard), None)


def load_setup(options: WorkerOptions) -> Setup:
    """Read the configuration and resolve the plan.

    Raises:
        ConfigError: anything in it is not usable.
    """
    config = load_config(options.config)
    collection = Collection(config.collection)
    sources = find_shards(config.input, base=options.config.absolute().parent)
    recorded = read_recorded(collection.examine_plan)
    try:
        lists = tuple(_read_list(item) for item in config.list)
        _check_hashes(config, lists)
        folder, heads = _read_models(config, recorded)
        policy = _read_policy(config, lists, heads)
        check_recipients(config.sealed.recipients)
    except (ListError, WeightsError, PolicyError, SealError) as error:
        raise ConfigError(str(error)) from None
    if policy.can_withhold and not config.sealed.recipients:
        raise ConfigError(
            f"policy {policy.name!r} can withhold samples, and [sealed] recipients is empty; make a key with "
            "`shardscrub cases keys new FILE` and put the public one there"
        )
    device, precision = _resolve_device(config, options, recorded)
    stamps = _stamps(config, folder, heads)
    examine = _examine_plan(config, folder, heads, device, precision, stamps)
    plan = make_plan(examine, _decide_plan(config, policy, lists))
    if recorded is not None:
        check_same_plan(recorded, plan, path=collection.examine_plan)
    return Setup(
        options.config.absolute(),
        config,
        collection,
        sources,
        plan,
        heads,
        Decider(lists, policy, config.sealed.recipients),
    )


def begin(setup: Setup) -> None:
    """Make the collection's folders and record the examine plan it is begun with."""
    setup.collection.make()
    durable.write(
        setup.collection.examine_plan,
        canonical_json(setup.plan.examine.record()),
        replace=False,
        mode=RESTRICTED_FILE_MODE,
    )
    path = str(setup.path).encode("utf-8", "surrogateescape")
    durable.write(setup.collection.config_note, path, replace=True, mode=RESTRICTED_FILE_MODE)


@contextmanager
def make_examiner(setup: Setup, on_rows: OnRows) -> Iterator[Examiner]:
    """Load the models and start the decoders; the decoders end with the block."""
    config, plan = setup.config, setup.plan.examine
    limits = DecodeLimits(
        max_bytes=config.decode.max_bytes,
        max_pixels=config.decode.max_pixels,
        max_frames=config.decode.max_frames,
        cpu_s=config.decode.cpu_s,
        wall_s=config.decode.wall_s,
        memory_mb=config.decode.memory_mb,
        animated=config.decode.animated,
        trailing_bytes="copy" if config.members.trailing_bytes == "copied" else "quarantine",
    )
    with Decoder(limits, workers=max(1, config.decode.workers)) as decoder:
        yield Examiner(
            setup.collection,
            setup.plan,
            config.members,
            _load_models(config, plan, setup.heads),
            decoder,
            setup.decider,
            on_rows,
        )


def _load_models(config: Config, plan: ExaminePlan, heads: tuple[MlpHead, ...]) -> Models:
    hashes = PictureHashes(tuple(find_kind(name) for name in config.hashes.kinds), config.hashes.views)
    if config.embedder is None:
        return Models(hashes, None, (), plan.batch)
    import torch  # noqa: PLC0415 - half a second and 200 MB that settling does without

    from classifiers.embedders.open_clip import OpenClipEmbedder  # noqa: PLC0415 - as above

    torch.set_num_threads(plan.threads)
    try:
        embedder = OpenClipEmbedder(
            config.embedder.folder,
            name=config.embedder.name,
            sha256=config.embedder.sha256,
            device=plan.device,
            precision=plan.precision,
            batch=plan.batch,
        )
    except (WeightsError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if embedder.dims != plan.dims or embedder.name != plan.embedder:
        raise ConfigError(f"embedder {embedder.name}: {embedder.dims} wide, its folder says {plan.dims}")
    return Models(hashes, embedder, heads, plan.batch)


def _read_models(
    config: Config, recorded: dict[str, object] | None
) -> tuple[ClipFolder | None, tuple[MlpHead, ...]]:
    if config.embedder is None:
        return None, ()
    item = config.embedder
    check_pin(item.folder, item.sha256, what=f"embedder {item.name!r}")
    folder = read_folder(item.folder, name=item.name)
    name = embedder_name(item.name, item.sha256, folder, "fp32")
    heads = tuple(
        MlpHead.load(head.file, sha256=head.sha256, embedder_name=name, dims=folder.dims) for head in config.head
    )
    names = [head.name for head in heads]
    for duplicate in sorted({text for text in names if names.count(text) > 1}):
        raise ConfigError(f"two [[head]] files call themselves {duplicate!r}; names are unique")
    return folder, heads


def _read_list(item: ListConfig) -> HashList:
    try:
        return load_list(
            item.file, list_id=item.id, purpose=item.purpose, radius=item.radius, radius64=item.radius64
        )
    except OSError as error:
        raise ConfigError(f"[[list]] {item.id!r}: {item.file} cannot be read ({error.strerror})") from None


def _read_policy(config: Config, lists: tuple[HashList, ...], heads: tuple[MlpHead, ...]) -> Policy:
    known = [
        *list_signal_specs(lists),
        *(SignalSpec(head.name, "high", (head.full_name,), None, searchable=True) for head in heads),
    ]
    if config.policy.file is None:
        return load_policy(shipped_policy(config.policy.profile), source=config.policy.profile, known=known)
    try:
        text = config.policy.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[policy] file {config.policy.file}: cannot be read ({type(error).__name__})") from None
    return load_policy(text, source=config.policy.file.name, known=known)


def _resolve_device(config: Config, options: WorkerOptions, recorded: dict[str, object] | None) -> tuple[str, str]:
    """Return device and precision: as recorded where the collection has begun, else what this machine offers."""
    wanted = options.device if options.device != "auto" else config.run.device
    if config.embedder is None:
        return "cpu", "fp32"
    precision: str = config.embedder.precision
    if recorded is not None:
        device = str(recorded["device"]) if wanted == "auto" else wanted
        return device, str(recorded["precision"]) if precision == "auto" else precision
    try:
        device = resolve_device(wanted)
        return device, resolve_precision(precision, device)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _stamps(config: Config, folder: ClipFolder | None, heads: tuple[MlpHead, ...]) -> tuple[str, ...]:
    stand_ins = [head.name for head in heads if head.stand_in]
    if folder is not None and folder.stand_in and config.embedder is not None:
        stand_ins.append(config.embedder.name)
    if stand_ins and not config.unsafe_stand_in_models:
        raise ConfigError(
            f"{', '.join(sorted(stand_ins))}: stand-in models judge nothing; for a trial set "
            "unsafe_stand_in_models = true, which stamps every output"
        )
    if not config.unsafe_stand_in_models:
        return ()
    warnings.warn(
        "unsafe_stand_in_models: nothing in this collection was judged by a real model", UnsafeWarning, stacklevel=2
    )
    return (STAND_IN_STAMP,)


def _examine_plan(
    config: Config,
    folder: ClipFolder | None,
    heads: tuple[MlpHead, ...],
    device: str,
    precision: str,
    stamps: tuple[str, ...],
) -> ExaminePlan:
    decode = config.decode
    name = ""
    if folder is not None and config.embedder is not None:
        name = embedder_name(config.embedder.name, config.embedder.sha256, folder, precision)
    return ExaminePlan(
        members=config.members,
        decode=DecodePlan(
            decode.max_bytes,
            decode.max_pixels,
            decode.max_frames,
            decode.cpu_s,
            decode.wall_s,
            decode.memory_mb,
            decode.animated,
        ),
        hashes=tuple(_hash_names(config)),
        embedder=name,
        dims=0 if folder is None else folder.dims,
        heads=tuple(head.full_name for head in heads),
        batch=config.embedder.batch if config.embedder else 256,
        device=device,
        precision=precision,
        threads=config.run.threads,
        software=software_versions(),
        stamps=stamps,
    )


def _decide_plan(config: Config, policy: Policy, lists: tuple[HashList, ...]) -> DecidePlan:
    return DecidePlan(
        policy=policy.name,
        policy_digest=policy.digest,
        policy_text=policy.text,
        signals=policy.signals,
        lists=tuple(
            ListPlan(item.list_id, item.purpose, item.radius, item.radius64, item.set_digest, _entries(item))
            for item in lists
        ),
        shards=config.release.shards,
        max_fault_share_shard=config.release.max_fault_share_shard,
        max_fault_share_run=config.release.max_fault_share_run,
        accept_damaged=config.release.accept_damaged,
    )


def _entries(item: HashList) -> int:
    return sum(len(rows) for rows in (item.codes, *item.digests.values(), *item.codes64.values()))


def _hash_names(config: Config) -> Iterator[str]:
    for kind in config.hashes.kinds:
        for view in config.hashes.views:
            yield f"{find_kind(kind).name}.{view}"


def _check_hashes(config: Config, lists: tuple[HashList, ...]) -> None:
    for name, allowed in (("kinds", kind_names()), ("views", VIEWS)):
        chosen = getattr(config.hashes, name)
        unknown = [value for value in chosen if value not in allowed]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            known = ", ".join(allowed)
            raise ConfigError(f"[hashes] {name}: expected some of {known}, each once; found {list(chosen)}")
    taken = {kind.partition(":")[0] for kind in config.hashes.kinds}
    for item in lists:
        for algorithm in CODE_BYTES:
            if len(item.coded(algorithm)[0]) and algorithm not in taken:
                raise ConfigError(
                    f"list {item.list_id!r} holds {algorithm} codes, which [hashes] kinds does not take; "
                    "add a kind of that name, or leave them out of the list"
                )
