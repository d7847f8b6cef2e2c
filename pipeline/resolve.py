"""The parts of a configuration, each read and checked: lists, models, policy, hashes, device, stamps.

Owns turning one part of a configuration into what it names, and putting the two plans together. Leaves the order,
and what is made of them, to `setup.py`. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from classifiers.blocklists.lists import HashList
from classifiers.embedders.devices import resolve_device, resolve_precision
from classifiers.embedders.folder import ClipFolder, embedder_name, read_folder
from classifiers.hashes.registry import find_kind, kind_names
from classifiers.heads.registry import OUR_KINDS, load_head
from classifiers.image.registry import full_name_of
from classifiers.plugins import CLASSIFIERS, HASHES, distributions_of
from classifiers.signals import Classifier
from classifiers.text.terms import TermList, read_terms, shipped_terms
from classifiers.weights import check_pin
from manifests.collection import Collection
from manifests.schema import CODE_BYTES
from pipeline.config import VIEWS, Config, PolicyConfig
from pipeline.errors import ConfigError
from pipeline.executors.protocol import WorkerOptions
from pipeline.list_signals import list_signal_specs
from pipeline.measure import TEXTS
from pipeline.overrides import Overrides
from pipeline.plan import DecidePlan, DecodePlan, ExaminePlan, ListPlan, software_versions
from pipeline.policy import Policy, SignalSpec, load_policy, shipped_policy
from pipeline.reviews import reviews_digest

PLAIN_LISTS_STAMP = "unsafe_plain_lists"
STAND_IN_STAMP = "unsafe_stand_in_models"
HISTORIC_STAMP = "unsafe_historic_policy"
PRESERVE_STAMP = "unsafe_preserve_bytes"
READABLE_STAMP = "unsafe_readable_recipient"


class UnsafeWarning(UserWarning):
    """Something that weakens safety is switched on."""


def read_models(config: Config) -> tuple[ClipFolder | None, tuple[Classifier, ...]]:
    """Read the model folder and the heads that the configuration pins.

    Raises:
        WeightsError: one of them is missing, not the pinned one, or made for another.
        ConfigError: two heads have one name.
    """
    if config.embedder is None:
        return None, ()
    item = config.embedder
    check_pin(item.folder, item.sha256, what=f"embedder {item.name!r}")
    folder = read_folder(item.folder, name=item.name)
    name = embedder_name(item.name, item.sha256, folder, "fp32")
    heads = tuple(
        load_head(
            head.kind,
            head.file,
            sha256=head.sha256,
            embedder_name=name,
            dims=folder.dims,
            backbones=head.backbones,
        )
        for head in config.head
    )
    names = [head.name for head in heads] + [net.name for net in config.net]
    for duplicate in sorted({text for text in names if names.count(text) > 1}):
        raise ConfigError(f"two [[head]] files or [[net]] tables call themselves {duplicate!r}; names are unique")
    return folder, heads


def read_text_terms(config: Config) -> tuple[TermList, ...]:
    """Read the terms of every concept: the shipped words and those of pinned files, as one list each.

    Raises:
        TermsError: a file is not one of terms.
        WeightsError: it is not the pinned one.
    """
    found: dict[str, TermList] = {concept: shipped_terms(concept) for concept in config.text.concepts}
    for item in config.terms:
        check_pin(item.file, item.sha256, what=f"terms of {item.concept!r}")
        terms = read_terms(item.file, item.concept)
        found[item.concept] = found[item.concept].joined_with(terms) if item.concept in found else terms
    return tuple(found[concept] for concept in sorted(found))


def net_specs(config: Config) -> Iterator[SignalSpec]:
    """Yield the signals of the pixel nets, whose files must be the pinned ones.

    Raises:
        WeightsError: a file is missing or not the pinned one, or the settings are not those of its kind.
    """
    for item in config.net:
        yield SignalSpec(item.name, "high", (full_name_of(item),), None, searchable=True)


def text_specs(terms: tuple[TermList, ...]) -> Iterator[SignalSpec]:
    """Yield the signals that terms give: of captions and of URLs."""
    for item in terms:
        for where in TEXTS:
            full_name = f"{where}.{item.full_name}"
            yield SignalSpec(f"{where}.{item.concept}", "high", (full_name,), None, searchable=True)


def read_policy(
    config: Config, lists: tuple[HashList, ...], heads: tuple[Classifier, ...], terms: tuple[TermList, ...]
) -> Policy:
    """Read the policy against the signals that lists and heads give.

    Raises:
        PolicyError: it is not usable.
        ConfigError: the file cannot be read.
    """
    known = [
        *list_signal_specs(lists),
        *(SignalSpec(head.name, "high", (head.full_name,), None, searchable=True) for head in heads),
        *net_specs(config),
        *text_specs(terms),
        *(SignalSpec(item.signal, "high", (item.full_name,), None, searchable=True) for item in config.metadata),
    ]
    return load_named(config.policy, known)


def load_named(named: PolicyConfig, known: Sequence[SignalSpec]) -> Policy:
    """Read the file or profile that a configuration names.

    Raises:
        PolicyError: it is not usable.
        ConfigError: the file cannot be read.
    """
    if named.file is None:
        return load_policy(shipped_policy(named.profile), source=named.profile, known=known)
    file = named.file

    def read(name: str) -> str:
        return _policy_text(file.parent / name) if name.endswith(".toml") else shipped_policy(name)

    return load_policy(_policy_text(file), source=file.name, known=known, read=read)


def _policy_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[policy] file {path}: cannot be read ({type(error).__name__})") from None


def resolve_placing(config: Config, options: WorkerOptions, recorded: dict[str, object] | None) -> tuple[str, str]:
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


def stamps_of(config: Config, folder: ClipFolder | None, heads: tuple[Classifier, ...]) -> tuple[str, ...]:
    """Return the `unsafe_` options in force, warning of each.

    Raises:
        ConfigError: a model is a stand-in, and stand-ins are not allowed.
    """
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


def check_releasable(config: Config, policy: Policy) -> None:
    """Refuse to decide a release by a replica of a published removal, or warn of it.

    Raises:
        ConfigError: it is one, and `unsafe_historic_policy` is not set.
    """
    if not policy.historic:
        return
    if not config.unsafe_historic_policy:
        raise ConfigError(
            f"policy {policy.name!r} is {policy.historic}; it is for `shardscrub policy preview`. To release by it "
            f"all the same set {HISTORIC_STAMP} = true, which stamps every output"
        )
    warnings.warn(f"{HISTORIC_STAMP}: {policy.name} is {policy.historic}", UnsafeWarning, stacklevel=2)


def make_examine_plan(
    config: Config,
    folder: ClipFolder | None,
    heads: tuple[Classifier, ...],
    terms: tuple[TermList, ...],
    device: str,
    precision: str,
    stamps: tuple[str, ...],
) -> ExaminePlan:
    """Put together all that shapes a feature."""
    plugins = distributions_of(HASHES, config.hashes.kinds, kind_names())
    plugins |= distributions_of(CLASSIFIERS, [head.kind for head in config.head], OUR_KINDS)
    name = ""
    if folder is not None and config.embedder is not None:
        item = config.embedder
        name = embedder_name(item.name, item.sha256, folder, precision, compiled=item.compile)
    return ExaminePlan(
        members=config.members,
        decode=DecodePlan(**{item.name: getattr(config.decode, item.name) for item in fields(DecodePlan)}),
        hashes=tuple(_hash_names(config)),
        embedder=name,
        dims=0 if folder is None else folder.dims,
        heads=tuple(head.full_name for head in heads),
        nets=tuple(spec.full_names[0] for spec in net_specs(config)),
        texts=tuple(item.full_name for item in terms),
        metadata=config.metadata,
        batch=config.embedder.batch if config.embedder else 256,
        device=device,
        precision=precision,
        threads=config.run.threads,
        software=(*sorted(plugins), *software_versions()),
        stamps=stamps,
    )


def make_decide_plan(
    config: Config, policy: Policy, lists: tuple[ListPlan, ...], overrides: Overrides, *, readable: bool
) -> DecidePlan:
    """Put together all that shapes a decision or a release; `readable`: the run could open what it seals."""
    unsafe = {PLAIN_LISTS_STAMP: config.lists.unsafe_plain_lists, HISTORIC_STAMP: policy.historic}
    unsafe |= {READABLE_STAMP: readable, PRESERVE_STAMP: config.sealed.unsafe_preserve_bytes}
    return DecidePlan(
        policy=policy.name,
        policy_digest=policy.digest,
        policy_text=policy.text,
        rules=policy.rules_by_source(),
        signals=policy.signals,
        lists=lists,
        max_near_hits_per_entry=config.lists.max_near_hits_per_entry,
        overrides=overrides.record,
        reviews=reviews_digest(Collection(config.collection)),
        stamps=tuple(stamp for stamp, is_on in unsafe.items() if is_on),
        shards=config.release.shards,
        max_fault_share_shard=config.release.max_fault_share_shard,
        max_fault_share_run=config.release.max_fault_share_run,
        accept_damaged=config.release.accept_damaged,
        resize=config.release.encoding,
    )


def _hash_names(config: Config) -> Iterator[str]:
    for kind in config.hashes.kinds:
        for view in config.hashes.views:
            yield f"{find_kind(kind).name}.{view}"


def check_hashes(config: Config, lists: tuple[HashList, ...]) -> None:
    """Refuse unknown kinds and views, and lists whose codes no kind would be matched with.

    Raises:
        ConfigError: naming the key or the list.
        PluginError: a kind is neither ours nor a usable plug-in's.
    """
    for kind in config.hashes.kinds:
        find_kind(kind)
    for name, allowed in (("kinds", (*kind_names(), *config.hashes.kinds)), ("views", VIEWS)):
        chosen = getattr(config.hashes, name)
        unknown = [value for value in chosen if value not in allowed]
        if unknown or not chosen or len(set(chosen)) < len(chosen):
            known = ", ".join(allowed)
            raise ConfigError(f"[hashes] {name}: expected some of {known}, each once; found {list(chosen)}")
    taken = {kind.partition(":")[0] for kind in config.hashes.kinds}
    for item in lists:
        for algorithm in CODE_BYTES:
            if algorithm in item.columns and algorithm not in taken:
                raise ConfigError(
                    f"list {item.list_id!r} holds {algorithm} codes, which [hashes] kinds does not take; "
                    "add a kind of that name, or leave them out of the list"
                )
            if algorithm in item.columns and "oriented" not in config.hashes.views:
                raise ConfigError(
                    f"list {item.list_id!r} holds {algorithm} codes, and [hashes] views does not take pictures as "
                    'they are shown; add "oriented"'
                )
