"""The lists of a run, out of the store: as they are matched, and as the plan names them.

Owns which versions may be used on a day. Leaves the store to `pipeline.lists`, matching to `matching.py`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime

from classifiers.blocklists.algorithms import WIDTHS
from classifiers.blocklists.lists import HashList, make_feeds
from pipeline.canary_shard import expected_hits
from pipeline.config import Config, ListConfig
from pipeline.errors import ConfigError
from pipeline.lists.manifest import ListManifest
from pipeline.lists.store import ListStore
from pipeline.plan import ListPlan
from pipeline.resolve import PLAIN_LISTS_STAMP, UnsafeWarning


@dataclass(frozen=True, slots=True, repr=False)
class RunLists:
    """The lists of a run: as they are matched, and as the plan names them."""

    feeds: tuple[HashList, ...]
    plans: tuple[ListPlan, ...]


def read_lists(config: Config, *, now: datetime) -> RunLists:
    """Read the lists of a run out of the store.

    Raises:
        ListError: one is missing, withdrawn, changed on disk, or holds nothing that is to be matched.
        ConfigError: one has expired or is too old.
    """
    feeds: list[HashList] = []
    plans = []
    if config.lists.unsafe_plain_lists:
        warnings.warn(f"{PLAIN_LISTS_STAMP}: lists may lie unencrypted in the store", UnsafeWarning, stacklevel=2)
    for item in config.list:
        assert config.lists.store is not None  # `load_config` refuses lists without a store
        store = ListStore(config.lists.store, config.lists.key, config.lists.unsafe_plain_lists)
        manifest, stored = store.read(item.id, item.version or None)
        _check_fresh(item, manifest, now)
        mine = make_feeds(
            stored,
            list_id=item.id,
            version=manifest.version,
            purpose=manifest.purpose,
            source=manifest.received_from.strip().casefold() or item.id,
            set_digest=manifest.set_digest,
            radius=item.radius,
            radius64=item.radius64,
            algorithms=tuple(WIDTHS),
        )
        feeds += mine
        plans.append(
            ListPlan(
                id=item.id,
                version=manifest.version,
                purpose=manifest.purpose,
                radius=item.radius,
                radius64=item.radius64,
                set_digest=manifest.set_digest,
                entries=sum(manifest.entries.values()),
                effects=tuple(sorted(manifest.effects.items())),
                canaries=sum(1 for _ in expected_hits(mine)),
            )
        )
    return RunLists(tuple(feeds), tuple(plans))


def _check_fresh(item: ListConfig, manifest: ListManifest, now: datetime) -> None:
    again = "import the owner's newest version"
    if manifest.expired(now.date()):
        raise ConfigError(f"list {manifest.name} expired on {manifest.expires}; {again}, or take the list out")
    age = manifest.age_days(now)
    if item.max_age_days and age > item.max_age_days:
        raise ConfigError(
            f"list {manifest.name} was imported {age} days ago, more than max_age_days = {item.max_age_days}; "
            f"{again}"
        )
