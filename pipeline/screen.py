"""Screening rows of a table: signals of a row without its picture, and the decision of each.

Owns which signals a table gives and what they say. Leaves the rules to the policy, reading to `screen_tables`,
files to `screen_run`. No pixel, no network.

- `list.<feed>.exact` is 1 where the URL, its domain or a digest of the row is listed; NaN where none is and the row
  lacks what could be: a usable URL, or, in a table with digests, any digest.
- Terms are looked for only where the decision hangs on them: it is the same with none of them and with all, or
  it is not settled. More harm never makes a rule less true, so nothing in between can differ.
- A row without a usable URL, or with a text beyond the cap, is never kept.
- A row whose URL or bytes a collection has withheld is removed and withheld, whatever the policy says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifiers.blocklists.algorithms import UID, URL_WIDTHS, WIDTHS
from classifiers.blocklists.lists import HashList
from classifiers.blocklists.match import match_digests
from classifiers.blocklists.url_match import URL_ALGORITHMS, UrlForms, match_forms, read_urls, url_spellings
from classifiers.hashes.digests import DIGEST_WIDTHS
from classifiers.text.terms import TermList, TermMatcher
from manifests.records import Action, FaultKind
from pipeline.config import Config
from pipeline.errors import CanaryError
from pipeline.list_signals import FEEDS, list_signal_specs
from pipeline.policy import Decided, Policy, SignalSpec, decide
from pipeline.resolve import text_specs
from pipeline.screen_sealing import RowHits, seal_rows
from pipeline.screen_tables import MAX_TEXT_BYTES, Table, digest_columns, score_column, text_column
from pipeline.withheld import Withheld

URL_USABLE = "url.usable"
_UID_BYTES = 16
_FAULTS = (FaultKind.BAD_URL.value, FaultKind.TOO_MANY_BYTES.value)
_DIGESTS = (*DIGEST_WIDTHS, UID)


def screen_specs(
    config: Config, lists: Sequence[HashList], terms: tuple[TermList, ...], *, digests: bool
) -> list[SignalSpec]:
    """Return the signals that a table gives; `digests`: whether every table has digests."""
    specs = [SignalSpec(URL_USABLE, "low", ("url",), None, searchable=True), *text_specs(terms)]
    for feed, spec in ((feed, spec) for spec in list_signal_specs(lists) for feed in FEEDS):
        if spec.name == f"list.{feed}.exact":
            held = _held(lists, feed)
            speaks = not held.isdisjoint(URL_WIDTHS) or (digests and not held.isdisjoint(_DIGESTS))
            specs.append(replace(spec, searchable=speaks))
    return [*specs, *(SignalSpec(one.signal, "high", (one.full_name,), None, True) for one in config.metadata)]


@dataclass(frozen=True, slots=True, repr=False)
class Screened:
    """Decisions of a batch. action: int8. withheld, fault: bool. decisions: as written. sealed: withheld rows."""

    action: NDArray[np.int8]
    withheld: NDArray[np.bool_]
    fault: NDArray[np.bool_]
    decisions: pa.RecordBatch
    sealed: pa.Table | None


class Screener:
    """Decides batches of tables by one policy, with one set of lists and terms."""

    def __init__(
        self,
        policy: Policy,
        lists: Sequence[HashList],
        terms: Sequence[TermList],
        internal: Withheld | None = None,
        *,
        every_term: bool,
    ) -> None:
        self.policy, self._internal = policy, internal
        self._lists, self._is_sieved = tuple(lists), False
        self._every_term = every_term
        self._terms = tuple(name for name in policy.signals if name.startswith(("caption.", "url.")))
        self._terms = tuple(name for name in self._terms if name != URL_USABLE)
        self._matcher = TermMatcher(terms) if self._terms else None
        self._columns = _decision_schema(policy)

    @property
    def columns(self) -> pa.Schema:
        """The columns of the decisions."""
        return self._columns

    def check_canaries(self) -> None:
        """Look the canaries of every list's digests up, as digests of rows are.

        Raises:
            CanaryError: one was not found.
        """
        for item in self._lists:
            for canary in item.canaries:
                if canary.algorithm in _DIGESTS:
                    asked = np.frombuffer(canary.entry, np.uint8).reshape(1, -1)
                    if not match_digests(item, canary.algorithm, asked).is_canary.any():
                        raise CanaryError(f"list {item.list_id}: a canary is not found: import the list again")

    def screen(self, batch: pa.RecordBatch, table: Table, first: int) -> Screened:
        """Decide the rows of a batch; `first` is the number of its first row in the table."""
        if not self._is_sieved:
            self._lists, self._is_sieved = tuple(item.sieved() for item in self._lists), True
        urls = text_column(batch, table.url, mend=False)
        captions = None if table.caption is None else text_column(batch, table.caption, mend=True)
        long = _too_long(urls)
        if captions is not None:
            long |= _too_long(captions)
        forms = read_urls(
            pc.if_else(pa.array(long), pa.scalar(None, pa.large_string()), urls) if long.any() else urls
        )
        usable = forms.usable
        hits, digested = self._find(batch, table, forms)
        known = self._known(batch, table, forms)
        columns = self._signals(batch, table, hits, usable, digested)
        decided, columns = self._decide(columns, urls, captions, long)
        fault = ~usable | long
        action = np.where(fault, np.maximum(decided.action, Action.QUARANTINE), decided.action).astype(np.int8)
        action[known] = np.maximum(action[known], Action.REMOVE)
        withheld = decided.sensitive | (action == Action.SEAL) | known
        kind = pa.array(_FAULTS).take(pa.array(long.astype(np.int8), mask=~fault))
        rows = first + np.arange(batch.num_rows)
        made = self._table(rows, forms, action, decided, kind, columns, withheld, known)
        sealed = None
        if self.policy.can_withhold or self._internal is not None:
            sealed = seal_rows(made, batch, table, hits, self._lists, np.flatnonzero(withheld))
            made = _blank(made, withheld)
        return Screened(action, withheld, fault, made, sealed)

    def _find(
        self, batch: pa.RecordBatch, table: Table, forms: UrlForms
    ) -> tuple[RowHits, Mapping[str, NDArray[np.bool_]]]:
        found = match_forms(forms, self._lists)
        names = list(WIDTHS)
        kinds = np.array([names.index(name) for name in URL_ALGORITHMS])[found.algorithm]
        parts = [np.stack([found.row, found.place.astype(np.int64), kinds, found.number.astype(np.int64)])]
        digested = {name: np.zeros(batch.num_rows, np.bool_) for name in _DIGESTS}
        for known, rows, values in digest_columns(batch, table):
            for name in (known, UID) if known == "sha256" else (known,):
                digested[name][rows] = True
                asked = np.ascontiguousarray(values[:, : WIDTHS[name]])
                for place, item in enumerate(self._lists):
                    hit = match_digests(item, name, asked)
                    real = ~hit.is_canary
                    mine = np.full((2, int(real.sum())), [[place], [names.index(name)]], np.int64)
                    parts.append(np.vstack([rows[hit.row[real]], mine, hit.number[real].astype(np.int64)]))
        return RowHits(*np.concatenate(parts, axis=1)), digested

    def _known(self, batch: pa.RecordBatch, table: Table, forms: UrlForms) -> NDArray[np.bool_]:
        """Say which rows the collection has withheld: by URL, or by their bytes."""
        known = np.zeros(batch.num_rows, np.bool_)
        if self._internal is not None:
            rows, spelled = url_spellings(forms)
            known[rows[self._internal.knows_urls(spelled)]] = True
            for name, rows, values in digest_columns(batch, table):
                if name == "sha256":
                    known[rows[self._internal.knows_images(values)]] = True
        return known

    def _signals(
        self,
        batch: pa.RecordBatch,
        table: Table,
        hits: RowHits,
        usable: NDArray[np.bool_],
        digested: Mapping[str, NDArray[np.bool_]],
    ) -> dict[str, NDArray[np.float32]]:
        columns = {URL_USABLE: np.where(usable, np.float32(1), np.float32(np.nan))}
        for feed in FEEDS:
            held = _held(self._lists, feed)
            listed = np.zeros(len(usable), np.bool_)
            places = [place for place, item in enumerate(self._lists) if item.feed == feed]
            listed[hits.row[np.isin(hits.place, places)]] = True
            asked = usable | held.isdisjoint(URL_WIDTHS)
            if table.digests and not held.isdisjoint(_DIGESTS):
                asked &= np.logical_or.reduce(list(digested.values()))
            columns[f"list.{feed}.exact"] = np.where(listed | asked, listed, np.nan).astype(np.float32)
        for item in table.metadata:
            if item.signal in self.policy.signals:
                columns[item.signal] = score_column(batch, item)
        return columns

    def _decide(
        self,
        columns: dict[str, NDArray[np.float32]],
        urls: pa.Array,
        captions: pa.Array | None,
        long: NDArray[np.bool_],
    ) -> tuple[Decided, dict[str, NDArray[np.float32]]]:
        if self._matcher is None:
            return decide(self.policy, columns), columns
        values = {name: np.zeros(len(long), np.float32) for name in self._terms}
        open_rows = np.ones(len(long), np.bool_)
        if not self._every_term:
            ones = np.ones(len(long), np.float32)
            least = decide(self.policy, {**columns, **values})
            most = decide(self.policy, {**columns, **dict.fromkeys(self._terms, ones)})
            open_rows = (least.rule != most.rule) | (least.action != most.action)
            open_rows |= (least.sensitive != most.sensitive) | (least.open_rules != most.open_rules).any(axis=1)
        wanted = np.flatnonzero(open_rows & ~long)
        chosen = pa.array(wanted)
        for where, texts in (("caption", captions), ("url", urls)):
            mine = [name for name in self._terms if name.startswith(f"{where}.")]
            if mine and texts is not None and len(wanted):
                some = texts.take(chosen).to_pylist()
                found = self._matcher.score_urls(some) if where == "url" else self._matcher.score_texts(some)
                for name in mine:
                    values[name][wanted] = found[name.partition(".")[2]]
        decided = decide(self.policy, {**columns, **values})
        for column in values.values():
            column[~open_rows | long] = np.nan  # not looked for
        return decided, {**columns, **values}

    def _table(
        self,
        rows: NDArray[np.int64],
        forms: UrlForms,
        action: NDArray[np.int8],
        decided: Decided,
        fault: pa.Array,
        columns: Mapping[str, NDArray[np.float32]],
        withheld: NDArray[np.bool_],
        known: NDArray[np.bool_],
    ) -> pa.RecordBatch:
        ids = pa.array([rule.id for rule in self.policy.rules], pa.string())
        internal = known & (decided.action < Action.REMOVE)
        place = pa.array(decided.rule, mask=internal | (decided.rule < 0))
        rule = ids.take(place)
        reasons = pa.array([f"rule:{one.id}" for one in self.policy.rules], pa.string())
        why = pc.binary_join_element_wise(pa.scalar("fault:"), fault, "")
        ours = pa.array(["internal"]).take(pa.array(np.zeros(len(rows), np.int8), mask=~internal))
        reason = pc.coalesce(reasons.take(place), ours, why, pa.scalar("unknown"))
        open_rows, open_rules = np.nonzero(decided.open_rules)
        ends = np.searchsorted(open_rows, np.arange(len(rows) + 1)).astype(np.int32)
        uids = np.ascontiguousarray(forms.digests()[:, :_UID_BYTES])
        uid = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_UID_BYTES), len(rows), [None, pa.py_buffer(uids)])
        has_url = pa.array(forms.usable)
        made = {
            "row": pa.array(rows),
            "url_uid": uid
            if has_url.true_count == len(rows)
            else pc.if_else(has_url, uid, pa.scalar(None, uid.type)),
            "withheld": pa.array(withheld),
            "action": pa.array([one.name for one in Action]).take(pa.array(action)),
            "rule": rule,
            "reason": pc.if_else(pa.array(action == Action.KEEP), pa.scalar(None, pa.string()), reason),
            "open_rules": pa.ListArray.from_arrays(pa.array(ends), ids.take(pa.array(open_rules))),
        }
        for name in self.policy.signals:
            made[f"signal.{name}"] = pa.array(columns[name], mask=np.isnan(columns[name]))
        return pa.record_batch([made[name] for name in self._columns.names], schema=self._columns)


def _decision_schema(policy: Policy) -> pa.Schema:
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("url_uid", pa.binary(_UID_BYTES)),
            pa.field("withheld", pa.bool_(), nullable=False),
            pa.field("action", pa.string()),
            pa.field("rule", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("open_rules", pa.list_(pa.string())),
            *(pa.field(f"signal.{name}", pa.float32()) for name in policy.signals),
        ]
    )


def _blank(made: pa.RecordBatch, withheld: NDArray[np.bool_]) -> pa.RecordBatch:
    """Return the decisions with nothing but the row's number where they are withheld."""
    mask = pa.array(withheld)
    columns = [
        made[field.name]
        if field.name in ("row", "withheld")
        else pc.if_else(mask, pa.scalar(None, field.type), made[field.name])
        for field in made.schema
    ]
    return pa.record_batch(columns, schema=made.schema)


def _held(lists: Sequence[HashList], feed: str) -> set[str]:
    return {name for item in lists if item.feed == feed for name in item.columns}


def _too_long(texts: pa.Array) -> NDArray[np.bool_]:
    lengths = pc.fill_null(pc.binary_length(texts), 0)
    return np.asarray(pc.greater(lengths, MAX_TEXT_BYTES).to_numpy(zero_copy_only=False), np.bool_)
