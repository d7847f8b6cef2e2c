"""From a configuration to everything a run needs: plan, lists, policy, models.

Owns the wiring. Leaves the parts to `resolve.py`. Examining needs torch, which is imported only when models are
made; settling does not.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.match import CodeSearch, join_column, search_column
from classifiers.blocklists.shared import attach_lists, read_about, share_lists
from classifiers.hashes.registry import find_kind
from classifiers.image.registry import load_net
from classifiers.signals import BatchTooLargeError, Classifier
from classifiers.text.terms import TermList, TermMatcher, TermsError
from classifiers.weights import WeightsError
from manifests import durable
from manifests.cases import SealError, check_recipients
from manifests.collection import RESTRICTED_FILE_MODE, Collection, RootsError
from manifests.keyed import make_secret
from manifests.records import canonical_json
from pipeline.canary_shard import CanaryShard
from pipeline.case_owner import check_owner, reads_a_recipient
from pipeline.commit import Decider
from pipeline.config import Config, ListConfig, PolicyConfig, load_config
from pipeline.decode import DecodeLimits, Decoder
from pipeline.errors import ConfigError
from pipeline.examine import MORE_MEMORY, Examiner
from pipeline.executors.protocol import OnRows, WorkerOptions
from pipeline.hash_pictures import PictureHashes
from pipeline.ingest.shards import ShardSource, find_shards
from pipeline.measure import Models
from pipeline.overrides import read_overrides
from pipeline.plan import ListPlan, Plan, check_same_plan, make_plan, read_recorded
from pipeline.policy import PolicyError
from pipeline.resolve import (
    UnsafeWarning,
    check_hashes,
    make_decide_plan,
    make_examine_plan,
    read_models,
    read_policy,
    read_text_terms,
    resolve_placing,
    stamps_of,
)
from pipeline.run_lists import read_lists


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run needs besides models; `path` is the configuration's, lists_fd the memory that holds its lists."""

    path: Path
    config: Config
    collection: Collection
    sources: tuple[ShardSource, ...]
    plan: Plan
    heads: tuple[Classifier, ...]
    terms: tuple[TermList, ...]
    decider: Decider
    lists_fd: int

    def source(self, shard: str) -> ShardSource | None:
        """Return the shard of that name, if the configuration names it."""
        place = bisect_left(self.sources, shard, key=lambda item: item.name)  # they are sorted by name
        found = self.sources[place : place + 1]
        return found[0] if found and found[0].name == shard else None


def load_setup(options: WorkerOptions) -> Setup:
    """Read the configuration and resolve the plan.

    The lists come out of the store, once, into shared memory; a worker finds them there (`options.lists_fd`).

    Raises:
        ConfigError: anything in it is not usable.
    """
    config = with_options(load_config(options.config), options)
    collection = Collection(config.collection, config.roots)
    try:
        collection.check_roots()
    except RootsError as error:
        raise ConfigError(str(error)) from None
    sources = _find_sources(config, options)
    recorded = read_recorded(collection.examine_plan)
    try:
        lists_fd, plans = _open_lists(config, options)
        lists = attach_lists(lists_fd, options.index_fd)
        check_hashes(config, lists)
        folder, heads = read_models(config)
        terms = read_text_terms(config)
        policy = read_policy(config, lists, heads, terms)
        # A worker that starts after midnight goes on with what the run began with.
        today = datetime.now(UTC).date() if options.lists_fd is None else date.min
        overrides = read_overrides(config.policy.overrides, lists, policy, today=today)
        check_recipients(config.sealed.recipients)
    except (ListError, TermsError, WeightsError, PolicyError, SealError) as error:
        raise ConfigError(str(error)) from None
    if policy.can_withhold and not config.sealed.recipients:
        raise ConfigError(
            f"policy {policy.name!r} can withhold samples, and [sealed] recipients is empty; make a key with "
            "`shardscrub cases keys new FILE` and put the public one there"
        )
    check_owner(config, policy)
    if config.sealed.unsafe_preserve_bytes:
        text = "unsafe_preserve_bytes: sealed files hold the images that a rule seals"
        warnings.warn(text, UnsafeWarning, stacklevel=1)
    readable = options.readable
    if readable is None:
        readable = reads_a_recipient(config, options.config.absolute().parent)
    device, precision = resolve_placing(config, options, recorded)
    stamps = stamps_of(config, folder, heads)
    examine = make_examine_plan(config, folder, heads, terms, device, precision, stamps)
    plan = make_plan(examine, make_decide_plan(config, policy, plans, overrides, readable=readable))
    if recorded is not None:
        check_same_plan(recorded, plan, path=collection.examine_plan)
    return Setup(
        options.config.absolute(),
        config,
        collection,
        sources,
        plan,
        heads,
        terms,
        Decider(
            lists,
            policy,
            config.sealed.recipients,
            config.lists.max_near_hits_per_entry,
            overrides,
            preserve_bytes=config.sealed.unsafe_preserve_bytes,
        ),
        lists_fd,
    )


def _find_sources(config: Config, options: WorkerOptions) -> tuple[ShardSource, ...]:
    try:
        return find_shards(config.input, base=options.config.absolute().parent)
    except ConfigError:
        if options.from_stored:  # features tell all but the bytes of kept samples, which tars alone need
            return ()
        raise


def with_options(config: Config, options: WorkerOptions) -> Config:
    """Return the configuration with what the command line says anew of the decide plan.

    Raises:
        ConfigError: a list is not written id or id@version.
    """
    if options.policy:
        is_file = options.policy.endswith(".toml")
        named = {"file": Path(options.policy).absolute()} if is_file else {"profile": options.policy}
        config = replace(config, policy=PolicyConfig(**named, overrides=config.policy.overrides))
    if options.lists:
        configured = {item.id: item for item in config.list}
        chosen = []
        for text in options.lists:
            name, _, version = text.partition("@")
            if not name or not (version or "0").isdigit():
                raise ConfigError(f"--list: expected ID or ID@VERSION, found {text!r}")
            chosen.append(replace(configured.get(name, ListConfig(name)), version=int(version or 0)))
        config = replace(config, list=tuple(chosen))
    if options.shards is not None:
        config = replace(config, release=replace(config.release, shards=options.shards))
    return config


def _open_lists(config: Config, options: WorkerOptions) -> tuple[int, tuple[ListPlan, ...]]:
    """Return the memory with the lists, and what the plan says of them."""
    if options.lists_fd is not None:
        return options.lists_fd, tuple(ListPlan.of(record) for record in read_about(options.lists_fd))
    read = read_lists(config, now=datetime.now(UTC))
    return share_lists(read.feeds, [asdict(item) for item in read.plans]), read.plans


def begin(setup: Setup) -> None:
    """Make the collection's folders and record the examine plan it is begun with."""
    setup.collection.make()
    make_secret(setup.collection)
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
        **asdict(plan.decode),
        trailing_bytes="copy" if config.members.trailing_bytes == "copied" else "quarantine",
    )
    canaries = CanaryShard(setup.decider.lists)
    with closing(canaries), Decoder(limits, workers=max(1, config.decode.workers)) as decoder:
        yield Examiner(
            setup.collection,
            setup.plan,
            config.members,
            _load_models(setup),
            decoder,
            replace(setup.decider, search=_search_on(plan.device)),
            canaries,
            on_rows,
        )


def settle_search(setup: Setup, *, threads: int) -> CodeSearch:
    """Return the search for all codes of a collection at once."""
    device = setup.plan.examine.device
    return partial(join_column, threads=threads) if device == "cpu" else _search_on(device)


def _search_on(device: str) -> CodeSearch:
    if device == "cpu":
        return search_column
    from classifiers.blocklists.torch_search import DeviceSearch  # noqa: PLC0415 - loads torch

    return DeviceSearch(device)


def _load_models(setup: Setup) -> Models:
    config, plan = setup.config, setup.plan.examine
    terms = TermMatcher(setup.terms) if setup.terms else None
    hashes = PictureHashes(tuple(find_kind(name) for name in config.hashes.kinds), config.hashes.views)
    try:
        nets = tuple(load_net(item, threads=plan.threads) for item in config.net)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    if config.embedder is None:
        return Models(hashes, None, (), nets, terms, plan.batch, config.metadata)
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
            jit=config.embedder.compile,
        )
    except (WeightsError, ValueError) as error:
        raise ConfigError(str(error)) from None
    except BatchTooLargeError as error:
        raise ConfigError(f"embedder {plan.embedder}: {error}; {MORE_MEMORY}") from None
    if embedder.dims != plan.dims or embedder.name != plan.embedder:
        raise ConfigError(f"embedder {embedder.name}: {embedder.dims} wide, its folder says {plan.dims}")
    return Models(hashes, embedder, setup.heads, nets, terms, plan.batch, config.metadata)
