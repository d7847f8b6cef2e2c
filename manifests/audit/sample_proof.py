"""Proofs that one sample was judged, and kept or not kept: files that show nothing of any other sample.

Owns what such a file holds beside the proof that the entry of its shard is in the log, making and checking it.

- It is a `.tlog-proof` whose extra data are the entry, the sample's record with the key that opens it, and its path
  to the root in the entry. No signature covers these: each is held against what the log says.
- The place in the tree is the index in the record, of as many as the entry counts: one record for each sample.
- The outcome is opened on demand, and never that of a sample which is withheld, in that settle or in the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from manifests import schema
from manifests.anchors import split_note
from manifests.audit import merkle, note
from manifests.audit.entries import decode_entry, mac, records_root, sample_records
from manifests.audit.log import CHECKPOINT
from manifests.audit.note import NoteKey
from manifests.audit.proof import LogProof, check_proof, make_proof
from manifests.audit.tiles import WIDTH, LogError, Tiles, read_file
from manifests.collection import Collection
from manifests.commits import Evidence, SettleCommit
from manifests.keyed import read_secret
from manifests.records import Action, FilesError, canonical_json

_RECORD = {"index": int, "kept": bool, "key": str, "outcome": str, "settle": int, "shard": str}
_SHOWN, _OUTCOME = {"entry", "record", "key", "path"}, {"outcome", "outcome_key"}


class SampleProofError(FilesError):
    """There is no such sample to prove, its outcome is not shown, or a proof does not hold."""


def prove_sample(
    collection: Collection, shard: str, key: str, *, settle: int | None, index: int | None, outcome: bool
) -> bytes:
    """Return the proof of the sample `key` of a shard, as of a settle.

    Args:
        collection: with its log and the restricted tier.
        shard: its name.
        key: of the sample.
        settle: its number; None is the newest that was finished.
        index: of the sample in the shard, where several have the key.
        outcome: show action and reason too.

    Raises:
        SampleProofError: no such settle is in the log, no such sample in the settle, or its outcome is not shown.
        FilesError: a file is missing or damaged, or the stored decisions are not those that the log commits to.
    """
    closed = collection.closed_settles()
    finished = [number for number in closed if (collection.settled(number) / "evidence.json").exists()]
    number = max(finished, default=0) if settle is None else settle
    size = Evidence.read(collection.settled(number) / "evidence.json").log_size if number in finished else 0
    if not size:
        raise SampleProofError(f"{collection.root}: no settle {number:04d} that was finished and is in a log")
    table = _decisions(collection, number, shard)
    rows = zip(table["key"].to_pylist(), table["index"].to_pylist(), strict=True)
    places = [at for at, row in enumerate(rows) if row[0] == key and index in (None, row[1])]
    if len(places) != 1:
        raise SampleProofError(f"{len(places)} samples of settle {number:04d} are named so (shard/key, --index)")
    tables = (table, _decisions(collection, closed[-1], shard)) if outcome else ()
    if any(key in one.filter(one["withheld"])["key"].to_pylist() for one in tables):
        raise SampleProofError("the outcome of this sample is not shown; kept or not kept can be proved")
    signed = read_file(collection.log / CHECKPOINT, note.MAX_NOTE_BYTES)
    checkpoint = split_note(signed)[1]
    at, entry = _find_entry(Tiles(collection.log, checkpoint.size), size, number, shard)
    records = sample_records(table, shard=shard, settle=number, secret=read_secret(collection))
    if records_root(records) != decode_entry(entry, at)["records"]:
        raise LogError(f"shard {shard}, settle {number:04d}: not the decisions that the log commits to")
    leaves = [merkle.leaf_hash(one.commitment) for one in records]
    one, path = records[places[0]], merkle.prove_inclusion(places[0], len(leaves), merkle.nodes_of(leaves))
    more = {"outcome": one.outcome.decode(), "outcome_key": one.outcome_key.hex()} if outcome else {}
    parts = {"entry": entry.decode(), "record": one.record.decode(), "key": one.key.hex()}
    extra = canonical_json({**parts, **more, "path": [item.hex() for item in path]})
    return make_proof(collection.log, at, checkpoint, signed, extra=extra)[0].encode()


def check_sample(data: bytes, public_key: str) -> list[str]:
    """Return in words what a proof shows, once all of it holds under the log's verifier key, which has its name.

    Raises:
        FilesError: it does not.
    """
    key = NoteKey.parse(public_key)
    try:
        proof = LogProof.parse(data)
        shown = _read((proof.extra or b"").decode(), _SHOWN, _OUTCOME)
        log = check_proof(proof, shown["entry"].encode(), key.name, [key])
        entry, record = decode_entry(shown["entry"].encode(), proof.index), _read(shown["record"], _RECORD)
        leaf = merkle.leaf_hash(mac(_unhex(shown["key"]), shown["record"].encode()))
        path = [_unhex(one) for one in shown["path"]]
        merkle.check_inclusion(leaf, record["index"], entry["in"], path, _unhex(entry["records"]))
        outcome = _read(shown["outcome"], {"action", "reason"}) if "outcome" in shown else None
        if (
            entry["kind"] != "shard-commit"
            or any(type(record[name]) is not kind for name, kind in _RECORD.items())
            or (record["shard"], record["settle"]) != (entry["shard"], entry["settle"])
            or (outcome and mac(_unhex(shown["outcome_key"]), shown["outcome"].encode()).hex() != record["outcome"])
            or (outcome and (outcome["action"] == Action.KEEP.name) != record["kept"])
        ):
            raise SampleProofError("the proof does not hold: its parts are not of one sample")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        known = isinstance(error, FilesError)
        raise SampleProofError(str(error) if known else "not as `shardscrub prove` writes proofs") from None
    shard = _plain(record["shard"])
    because = outcome and f"; action {_plain(outcome['action'])}, reason {_plain(outcome['reason'] or 'none')}"
    return [
        f"sample    {_plain(record['key'])}, the one with index {record['index']} of shard {shard}",
        f"settle    {record['settle']:04d}",
        f"was       {'kept' if record['kept'] else 'not kept'}{because or ''}",
        f"log       {log.origin}, {log.size} entries, signed by this key",
    ]


def _plain(text: str) -> str:
    """Names come from whoever made the data: no line breaks, no control characters on a terminal."""
    return text if text.isprintable() else ascii(text)


def _read(text: str, names: Iterable[str], more: Iterable[str] = ()) -> dict[str, Any]:
    value = json.loads(text)
    if set(value) not in (set(names), {*names, *more}) or canonical_json(value) != text.encode():
        raise ValueError
    return dict(value)


def _unhex(text: str) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != merkle.HASH_BYTES or data.hex() != text:
        raise ValueError
    return data


def _decisions(collection: Collection, number: int, shard: str) -> pa.Table:
    """Return what a settle decided of a shard; nothing if it had no such shard."""
    folder = collection.settled(number) / "decisions"
    if not (folder / f"{shard}.json").is_file():
        return schema.decision_schema([]).empty_table()
    decisions = SettleCommit.read(folder / f"{shard}.json").decisions
    return schema.read(folder / decisions.name, sha256=decisions.sha256)


def _find_entry(tiles: Tiles, end: int, number: int, shard: str) -> tuple[int, bytes]:
    """Return index and bytes of the entry of a shard, looked for backwards from the end of its settle."""
    like = canonical_json({"shard": shard})[1:-1]
    for bundle in reversed(range(-(-min(end, tiles.size) // WIDTH))):
        for at, data in enumerate(tiles.entries(bundle), bundle * WIDTH):
            if at < end and like in data:
                entry = decode_entry(data, at)
                if (entry["kind"], entry.get("settle"), entry.get("shard")) == ("shard-commit", number, shard):
                    return at, data
    raise LogError(f"{tiles.folder}: no entry of shard {shard} for settle {number:04d}; `verify` says more")
