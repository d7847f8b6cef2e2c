"""Check a finished collection from its files alone: digests, counts, identities, nothing more and nothing less.

Owns what "the files agree" means. Needs no torch, no list and no secret key. Reads one shard at a time.

- Every problem is found and named by file; none is repaired.
- A file that no record names is a problem too: it may hold what was withheld.
- What was destroyed, as was recorded, is told and is no problem (`lifetime.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import schema
from manifests.audit.log import CHECKPOINT
from manifests.collection import Collection
from manifests.commits import Close, Counts, ExamineCommit, RecordError, SettleCommit, smaller_batches
from manifests.contents import content_judged
from manifests.decisions import ConservationError, prove_conservation
from manifests.features import decode_features, faulted_samples
from manifests.keyed import KeyedError, read_keyed, read_secret
from manifests.leaks import find_leaks
from manifests.lifetime import REVIEW_KEYS, read_chain, read_destroyed
from manifests.publish import PublishError, handed_out, recorded
from manifests.records import Action, canonical_json, digest_json, identities_digest, readable_json
from manifests.screens import verify_screen
from manifests.verify_log import verify_evidence, verify_log
from manifests.verify_release import Report, file_problems, verify_current, verify_names, verify_release

# age: header with its recipients, 16 bytes for each chunk of 64 KiB, and stanzas it adds at random.
_AGE_OVERHEAD_BYTES = 8192
_AGE_CHUNK_BYTES = 64 << 10
_SETTLED_NAMES = {"changes.parquet", "close.json", "plan.json", "summary.json", "flooded.json", "decisions"}
_FOLDERS = {"examined", "settled", "releases", "sealed", "journal", "publications", "log"}


def verify(root: Path, *, public_key: str = "", since: Path | None = None, model_key: Path | None = None) -> Report:
    """Check the collection at `root`, or what of it is at hand; see `verify_log` for the keys and the checkpoint.

    Raises:
        RecordError: there is no collection there.
    """
    collection, report = Collection(root), Report()
    if (root / "decisions").is_dir():
        return verify_screen(root)
    if not collection.examine_plan.is_file() and (collection.log / CHECKPOINT).is_file():
        verify_log(collection, report, public_key=public_key, since=since, model_key=model_key)
        return report
    if not collection.examine_plan.is_file():
        raise RecordError(f"{root}: not a collection (no {collection.examine_plan.name})")
    try:
        report.gone = read_destroyed(collection)
        report.reviews = read_chain(collection.reviews, REVIEW_KEYS)[1]
    except RecordError as error:
        report.problems.append(str(error))
    commits = _verify_examined(collection, report)
    report.stamps = tuple(sorted({stamp for commit in commits.values() for stamp in commit.stamps}))
    numbers = collection.closed_settles()
    released = [number for number in numbers if _verify_settle(collection, number, numbers[-1], commits, report)]
    verify_current(collection, released, report)
    _verify_publications(collection, report)
    verify_log(collection, report, public_key=public_key, since=since, model_key=model_key)
    verify_names(collection.settled(1).parent, {f"{number:04d}" for number in numbers}, report)
    if numbers != list(range(1, len(numbers) + 1)):
        report.problems.append(f"{collection.settled(1).parent}: settles {numbers} are not numbered without a gap")
    records = (collection.reviews, collection.destroyed, collection.holds, collection.screens)
    roots, own = collection.roots(), (collection.roots_record, collection.bucket_record)
    files = (collection.examine_plan, collection.current, collection.secret, *records)
    verify_names(root, _FOLDERS | {path.name for path in (*files, *own)}, report)
    for home in sorted(set(roots.values())):
        held = {tier for tier, folder in roots.items() if folder == home}
        verify_names(home, held | ({collection.current.name} if "releases" in held else set()), report)
    told = sorted(Counter(report.gone.values()).items())
    report.checked += [f"{count} files of the tier {text}, not checkable" for text, count in told]
    return report


def _verify_examined(collection: Collection, report: Report) -> dict[str, ExamineCommit]:
    record = _read_json(collection.examine_plan, report)
    plan, batch = digest_json(record), record.get("batch", 0)
    commits: dict[str, ExamineCommit] = {}
    named, sealed = set(), set()
    for shard in collection.committed_shards():
        try:
            commit = ExamineCommit.read(collection.commit(shard))
            path = collection.examined / commit.features.name
            table = None if path in report.gone else schema.read(path, sha256=commit.features.sha256)
        except (RecordError, schema.TableError) as error:
            report.problems.append(str(error))
            continue
        commits[shard] = commit
        named |= {f"{shard}.json", commit.features.name, f"{shard}.keyed"}
        sealed |= {item.name for item in commit.sealed}
        report.problems += [
            *_examined_problems(collection, commit, table, plan, report),
            *_keyed_problems(collection, commit),
        ]
        if commit.batch not in range(1, batch + 1):
            report.problems.append(f"{collection.commit(shard)}: batch {commit.batch}, but the plan's is {batch}")
    verify_names(collection.examined, named, report)
    verify_names(collection.sealed, sealed, report)
    report.checked.append(f"{len(commits)} examined shards: features, identities, faults, sealed files")
    report.checked += smaller_batches(commits.values(), batch)
    return commits


def _verify_publications(collection: Collection, report: Report) -> None:
    try:
        for folder in recorded(collection):
            shards = [shard for shard, _ in handed_out(folder)]
            verify_names(folder / "manifest", {f"{shard}.parquet" for shard in shards}, report)
    except (PublishError, schema.TableError) as error:
        report.problems.append(str(error))


def _read_json(path: Path, report: Report) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one, and a problem, where it is not as we write it."""
    try:
        data = path.read_bytes()
        value = json.loads(data)
        if isinstance(value, dict) and data in (canonical_json(value), readable_json(value)):
            return value
    except (OSError, ValueError):
        pass
    report.problems.append(f"{path}: missing, or not a JSON object in the form that it was written in")
    return {}


def _examined_problems(
    collection: Collection, commit: ExamineCommit, table: pa.Table | None, plan: str, report: Report
) -> Iterator[str]:
    path = collection.commit(commit.shard)
    if commit.plan != plan or commit.shard != path.stem:
        yield f"{path}: examined under another plan than {collection.examine_plan.name}, or another shard's record"
    for item in commit.sealed:
        file = collection.sealed / item.name
        size = file.stat().st_size if file.is_file() else 0
        least = item.padded_size + 16 * (item.padded_size // _AGE_CHUNK_BYTES)
        if file not in report.gone and not least <= size <= least + _AGE_OVERHEAD_BYTES:
            yield f"{file}: missing or not of the size its commit names"
    if table is None:
        return
    features = decode_features(table)
    identities = list(features.identities())
    if len(identities) != commit.samples or identities_digest(identities) != commit.identities:
        yield f"{path}: its features do not hold exactly its {commit.samples} samples"
    if len(faulted_samples(table)) != commit.faults:
        yield f"{path}: says {commit.faults} faults, its features hold {len(faulted_samples(table))}"
    withheld = features.withheld()
    if int(withheld.sum()) != commit.withheld:
        yield f"{path}: says {commit.withheld} withheld, its features hold {int(withheld.sum())}"
    yield from _blank_problems(table, path)


def _keyed_problems(collection: Collection, commit: ExamineCommit) -> Iterator[str]:
    try:
        read_keyed(collection, commit.shard, read_secret(collection))
        if commit.withheld and not collection.keyed(commit.shard).exists():
            yield f"{collection.keyed(commit.shard)}: missing, though the shard withholds samples"
    except KeyedError as error:
        yield str(error)


def _blank_problems(table: pa.Table, path: Path) -> Iterator[str]:
    blank = table.filter(table["withheld"])
    for name in blank.column_names:
        if name not in ("shard", "index", "key", "withheld") and blank[name].null_count != blank.num_rows:
            yield f"{path}: column {name} is not blank for withheld samples"


def _verify_settle(
    collection: Collection, number: int, newest: int, commits: dict[str, ExamineCommit], report: Report
) -> bool:
    path = collection.settled(number) / "close.json"
    try:
        close = Close.read(path)
    except RecordError as error:
        report.problems.append(str(error))
        return False
    report.stamps = tuple(sorted({*report.stamps, *close.stamps}))
    counts, gone = Counts(), {folder for file in report.gone for folder in file.parents}
    released = close.released and collection.release(number) not in gone
    for shard, digest in close.shards.items():
        try:
            settled = SettleCommit.read(path.parent / "decisions" / f"{shard}.json")
            if hashlib.sha256(settled.encode()).hexdigest() != digest:
                report.problems.append(f"{path.parent}/decisions/{shard}.json: not the record that was closed")
            counts = counts.plus(settled)
            current = commits.get(shard) if number == newest else None
            if number == newest and current is None:
                report.problems.append(
                    f"{collection.commit(shard)}: missing or damaged; settle {number:04d} names it"
                )
            report.problems += _settled_problems(collection, number, settled, current, report, released=released)
        except (RecordError, schema.TableError, ConservationError) as error:
            report.problems.append(str(error))
    if counts != close.counts or close.number != number:
        report.problems.append(f"{path}: its totals are not the sums of its shards, or it is another settle's")
    _verify_plan(path.parent, close, report)
    named = {f"{shard}.{suffix}" for shard in close.shards for suffix in ("json", "parquet")}
    verify_names(path.parent / "decisions", named, report)
    if close.changes is not None and path.parent / close.changes.name not in report.gone:
        report.problems += file_problems(path.parent, close.changes)
    named, in_release = verify_evidence(collection, close, report)
    verify_names(path.parent, _SETTLED_NAMES | named, report)
    report.checked.append(f"settle {number:04d}: {counts.samples} samples, each decided exactly once")
    if released:
        verify_release(collection, close, report, in_release)
    if released and gone.isdisjoint((collection.examined, path.parent)):
        try:
            report.problems += find_leaks(collection, number, list(close.shards))
        except (OSError, ValueError) as error:
            report.problems.append(f"{collection.release(number)}: could not be searched for leaks: {error}")
    if not close.released and collection.release(number).exists():
        report.problems.append(f"{collection.release(number)}: exists though settle {number:04d} released nothing")
    return close.released


def _verify_plan(folder: Path, close: Close, report: Report) -> None:
    plan = _read_json(folder / "plan.json", report)
    examine, decide = plan.get("examine"), plan.get("decide")
    digest = digest_json({"examine": digest_json(examine), "decide": decide})
    if (digest_json(examine), digest) != (close.examine_plan, close.plan):
        report.problems.append(f"{folder / 'plan.json'}: not the plan that the settle was closed under")
    elif isinstance(examine, dict) and isinstance(decide, dict):
        if [*examine["stamps"], *decide["stamps"]] != list(close.stamps):
            report.problems.append(f"{folder / 'close.json'}: its unsafe_ stamps are not those of its plan")
        if decide["reviews"] not in report.reviews:
            report.problems.append(f"{folder / 'plan.json'}: rests on reviews that are not recorded as they were")
        if close.shards and sum(item["canaries"] for item in decide["lists"]) != close.canaries:
            report.problems.append(f"{folder / 'close.json'}: not every canary of its lists was found")
    flooded = _read_json(folder / "flooded.json", report)
    if flooded != {"flooded": [asdict(item) for item in close.flooded]}:
        report.problems.append(f"{folder / 'flooded.json'}: not the entries over the hit cap that the close names")
    summary = _read_json(folder / "summary.json", report)
    if summary != {"number": close.number, **asdict(close.counts)}:
        report.problems.append(f"{folder / 'summary.json'}: not what the settle counted")


def _settled_problems(
    collection: Collection,
    number: int,
    settled: SettleCommit,
    commit: ExamineCommit | None,
    report: Report,
    *,
    released: bool,
) -> Iterator[str]:
    path, release = collection.settled(number) / "decisions" / settled.decisions.name, collection.release(number)
    if released and settled.tar is not None:
        yield from file_problems(release / "shards", settled.tar)
    if path in report.gone:
        if released and settled.manifest is not None:
            yield from file_problems(release / "manifest", settled.manifest)
        return
    table = schema.read(path, sha256=settled.decisions.sha256)
    tally = prove_conservation(table, shard=settled.shard, samples=settled.samples, identities=settled.identities)
    found = (tally.keep, tally.remove, tally.quarantine, tally.withheld, tally.reasons)
    if found != (settled.keep, settled.remove, settled.quarantine, settled.withheld, settled.reasons):
        yield f"{path}: counts differ from its record"
    yield from _blank_problems(table, path)
    if commit is not None and commit.withheld != settled.withheld:
        yield f"{path}: withholds {settled.withheld}, the shard's features only {commit.withheld}"
    if commit is not None and (
        commit.identities != settled.identities or hashlib.sha256(commit.encode()).hexdigest() != settled.examined
    ):
        yield f"{path}: was decided on other features than the shard's commit names"
    if not released:
        return
    if settled.manifest is None:
        yield f"{path}: released without a manifest"
        return
    manifest_path = release / "manifest" / settled.manifest.name
    manifest = schema.read(manifest_path, sha256=settled.manifest.sha256)
    if not schema.is_manifest(manifest):
        yield f"{manifest_path}: columns are not those of a manifest"
        return
    kept = table.filter(pa.compute.equal(table["action"], Action.KEEP.name))
    if manifest["index"].to_pylist() != kept["index"].to_pylist() or manifest["key"] != kept["key"]:
        yield f"{manifest_path}: does not name exactly the samples that were kept"
    if [row[:16] for row in manifest["sha256"].to_pylist()] != manifest["uid"].to_pylist():
        yield f"{manifest_path}: a uid is not the head of its sha256"
    if commit is not None and collection.examined / commit.features.name not in report.gone:
        features = decode_features(schema.read(collection.examined / commit.features.name))
        if not content_judged(features, manifest):
            yield f"{manifest_path}: names content that was not judged"
