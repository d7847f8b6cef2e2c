"""From a configuration to everything a run needs: plan, lists, policy.

Owns the wiring. Leaves the parts to `resolve.py`, and the tools of a worker, torch among them, to `examiners.py`.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.match import CodeSearch, join_column, search_column
from classifiers.blocklists.shared import attach_lists, read_about, share_lists
from classifiers.signals import Classifier
from classifiers.text.terms import TermList, TermsError
from classifiers.weights import WeightsError
from manifests import durable
from manifests.cases import SealError, check_recipients
from manifests.collection import RESTRICTED_FILE_MODE, Collection, RootsError
from manifests.keyed import make_secret
from manifests.records import canonical_json
from pipeline.case_owner import check_owner, reads_a_recipient
from pipeline.commit import Decider
from pipeline.config import Config, ListConfig, PolicyConfig, load_config
from pipeline.errors import ConfigError, RunError
from pipeline.executors.protocol import WorkerOptions
from pipeline.ingest.shards import ShardSource, find_sources
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
        return found[0].opened() if found and found[0].name == shard else None


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
        return find_sources(config, base=options.config.absolute().parent)
    except (ConfigError, RunError):  # also a store that does not answer
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


def settle_search(setup: Setup, *, threads: int) -> CodeSearch:
    """Return the search for all codes of a collection at once."""
    device = setup.plan.examine.device
    return partial(join_column, threads=threads) if device == "cpu" else search_on(device)


def search_on(device: str) -> CodeSearch:
    """Return the search for the codes of one shard."""
    if device == "cpu":
        return search_column
    from classifiers.blocklists.torch_search import DeviceSearch  # noqa: PLC0415 - loads torch

    return DeviceSearch(device)
