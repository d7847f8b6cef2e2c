"""What follows the close of a settle: log entries, checkpoint A, reports, statements, checkpoint B, `current`.

Owns that order and going on in it. Leaves the form of entries to `manifests.audit.entries`.

- Everything rests on records that are final: it can be done again, by a run with another configuration, too.
- A release counts once `current` names it, which comes last.
- Without `[log]` there are reports and no log; a log that was begun is never left out.
- Checkpoints go to the store outside of the collection before anything cites them, and B is vouched for elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from manifests import durable, schema
from manifests.anchors import CheckpointStore, anchor_all
from manifests.attest import ReleaseFacts, write_attestations
from manifests.audit.entries import COMMITTED, Committer, encode_entry, records_root, sample_records
from manifests.audit.log import Log, check_extends
from manifests.audit.merkle import prove_consistency
from manifests.audit.note import NoteKey, open_checkpoint, open_note
from manifests.audit.tiles import LogError, Tiles
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.commits import Close, Evidence, ExamineCommit, FileDigest, SettleCommit
from manifests.key_rotation import read_rotation
from manifests.keyed import read_secret
from manifests.lifetime import logged_events
from manifests.records import TOOL_VERSION, canonical_json
from manifests.report_page import write_reports
from manifests.signers import Signer, SignerError
from pipeline.bom import used_models
from pipeline.errors import ConfigError, RunError
from pipeline.log_config import LogConfig, open_anchors, open_signer
from pipeline.release import point_current
from pipeline.setup import Setup


def finish_settle(setup: Setup, close: Close) -> None:
    """Do all that is left to do after a close; a settle that is finished already stays as it is.

    Raises:
        ConfigError: the log was begun, and the configuration has no `[log]`, or no key for it.
        RunError: the log is not what is kept outside, or nobody vouches for it.
    """
    collection, config = setup.collection, setup.config.log
    if config is None and (collection.log / "checkpoint").exists():
        raise ConfigError(f"{collection.log}: this collection has a log; the configuration needs its [log]")
    logger = None if config is None else _Logger.open(collection, config, close)
    path = collection.settled(close.number) / "evidence.json"
    if not path.exists():
        checkpoint = None if logger is None else logger.log_settle()
        _write_evidence(setup, close, checkpoint, logger)
    if logger is not None and (evidence := Evidence.read(path)).log_size:  # 0: finished before a log was kept
        logger.log_close(evidence)
    point_current(collection, close)


def _write_evidence(setup: Setup, close: Close, checkpoint: bytes | None, logger: _Logger | None) -> None:
    collection, settled = setup.collection, setup.collection.settled(close.number)
    files = list(write_reports(collection, close.number))
    if logger is not None and checkpoint is not None:
        openings = settled / "openings.json"
        files.append(FileDigest.of(collection.name_of(openings), openings.read_bytes()))
        files.append(FileDigest.of(collection.name_of(settled / "checkpoint"), checkpoint))
        if close.released:
            files += _attest(setup, close, checkpoint, logger, files)
    evidence = Evidence(
        number=close.number,
        close=hashlib.sha256(close.encode()).hexdigest(),
        log_size=0 if logger is None else logger.size,
        files=tuple(sorted(files, key=lambda one: one.name)),
    )
    evidence.write(settled / "evidence.json", replace=False, mode=RESTRICTED_FILE_MODE)


def _attest(
    setup: Setup, close: Close, checkpoint: bytes, logger: _Logger, reports: list[FileDigest]
) -> Iterator[FileDigest]:
    collection, release = setup.collection, setup.collection.release(close.number)
    files = [item for item in (close.uids, close.release_summary) if item is not None]
    files += logger.in_release(reports)
    for shard in close.shards:
        commit = SettleCommit.read(collection.settled(close.number) / "decisions" / f"{shard}.json")
        for folder, item in (("manifest", commit.manifest), ("shards", commit.tar)):
            if item is not None:
                files.append(FileDigest(f"{folder}/{item.name}", item.sha256, item.size))
    facts = ReleaseFacts(
        number=close.number,
        files=tuple(sorted(files, key=lambda one: one.name)),
        samples=close.counts.samples,
        kept=close.counts.keep,
        faults=close.counts.faults,
        examine_plan=close.examine_plan,
        decide_plan=close.plan,
        policy=str(logger.plan["decide"]["policy_digest"]),
        stamps=close.stamps,
        checkpoint=checkpoint,
        tool_version=TOOL_VERSION,
        started=logger.opened_at(),
        finished=_now(),
        dataset=setup.config.dataset,
        model_key=logger.config.model_key,
        models=used_models(setup.config, logger.plan["examine"]) if logger.config.cyclonedx else None,
    )
    for item in write_attestations(release, facts, logger.signer):
        yield replace(item, name=collection.name_of(release / item.name))


@dataclass(slots=True)
class _Logger:
    """The log of a collection, open for the entries of one settle. size: with its entries up to checkpoint A."""

    collection: Collection
    config: LogConfig
    close: Close
    signer: Signer
    log: Log
    keys: tuple[NoteKey, ...]
    committer: Committer
    plan: dict[str, dict[str, object]]
    size: int = 0

    @classmethod
    def open(cls, collection: Collection, config: LogConfig, close: Close) -> _Logger:
        signer = open_signer(config, collection.root)
        keys = [NoteKey.of(signer)]
        if config.rotation is not None:
            old, new = map(NoteKey.parse, read_rotation(config.rotation.read_bytes()))
            if new != keys[0]:
                raise ConfigError(f"{config.rotation}: is about another key than the one that [log] names")
            keys.append(old)
        log = Log.open(collection.log, config.origin, keys)
        plan = json.loads((collection.settled(close.number) / "plan.json").read_bytes())
        committer = Committer(read_secret(collection), close.number)
        made = cls(collection, config, close, signer, log, tuple(keys), committer, plan)
        held = CheckpointStore(config.checkpoint_store).read()
        if held is not None and (log.checkpoint is None or not made._is_begin(held)):
            raise RunError(
                f"{config.checkpoint_store}: the log in {collection.log} is no continuation of the checkpoint "
                "kept here: it was cut or rewritten; restore it"
            )
        return made

    def log_settle(self) -> bytes:
        """Append the entries of the settle and publish checkpoint A, unless that was done; return its note."""
        settled, begin = self.collection.settled(self.close.number), self._begin()
        path = settled / "checkpoint"
        if self.log.size == begin:
            entries = [*self._rotation(), *self._entries()]
            # Before they stand: a review that is recorded before this is finished must not change what opens them.
            data = canonical_json(self.committer.openings)
            durable.write(settled / "openings.json", data, replace=True, mode=RESTRICTED_FILE_MODE)
            self.log.append(entries)
            self.log.publish(self.signer)
        self._check_key()
        if not path.exists():
            note = (self.collection.log / "checkpoint").read_bytes()
            durable.write(path, note, replace=False, mode=RESTRICTED_FILE_MODE)
        data = path.read_bytes()
        self.size = open_checkpoint(data, self.config.origin, self.keys).size
        self._keep(data, begun=begin > 0)
        return data

    def log_close(self, evidence: Evidence) -> None:
        """Append the close entry, publish checkpoint B and have it vouched for, unless that was done."""
        if self.log.size == evidence.log_size:
            self._check_key()
            files = {one.name: one.sha256 for one in self.in_release(evidence.files)}
            committed = self.committer.commit("evidence", hashlib.sha256(evidence.encode()).hexdigest())
            about = {"at": _now(), "evidence": committed, "files": files, "settle": self.close.number}
            self.log.append([encode_entry("run-close", **about)])
            self.log.publish(self.signer)
        self._keep((self.collection.log / "checkpoint").read_bytes(), begun=True)
        self._anchor()

    def in_release(self, files: Iterable[FileDigest]) -> Iterator[FileDigest]:
        """Yield those files that lie in the release, by their names in it."""
        inside = f"{self.collection.name_of(self.collection.release(self.close.number))}/"
        for one in files:
            if one.name.startswith(inside):
                yield replace(one, name=one.name.removeprefix(inside))

    def opened_at(self) -> str:
        """Return when the settle was opened, as its entry says."""
        for entry in Tiles(self.collection.log, self.log.size).all_entries(self._begin()):
            value = json.loads(entry)
            if value["kind"] == "run-open":
                return str(value["at"])
        raise RunError(f"{self.collection.log}: the entries of settle {self.close.number} are not there")

    def _begin(self) -> int:
        """Return how many entries the settles before have."""
        for number in range(self.close.number - 1, 0, -1):
            path = self.collection.settled(number) / "evidence.json"
            if path.exists() and (size := Evidence.read(path).log_size):
                return size + 1
        return 0

    def _keep(self, note: bytes, *, begun: bool) -> None:
        CheckpointStore(self.config.checkpoint_store).advance(
            note, begun=begun, consistent=lambda held, _: self._is_begin(held)
        )

    def _is_begin(self, held: bytes) -> bool:
        """Say whether a checkpoint states a begin of the log."""
        assert self.log.checkpoint is not None
        try:
            older = open_checkpoint(held, self.config.origin, self.keys)
            check_extends(self.collection.log, older, self.log.checkpoint)
        except (LogError, SignerError):
            return False
        return True

    def _anchor(self) -> None:
        folder = self.collection.journal / f"anchors-{self.close.number:04d}"
        if any(folder.glob("*")):
            return
        data = (self.collection.log / "checkpoint").read_bytes()
        receipts, failed = anchor_all(open_anchors(self.config, self.collection.root, self._prove), data)
        for text in failed:
            warnings.warn(f"{text}; others vouch for the checkpoint", stacklevel=1)
        durable.make_folder(folder)
        for name, receipt in receipts.items():
            durable.write(folder / name, receipt, replace=True, mode=RESTRICTED_FILE_MODE)

    def _check_key(self) -> None:
        """Refuse to finish with one key what another began: the log then would not say that it followed."""
        _, signed = open_note((self.collection.log / "checkpoint").read_bytes(), self.keys)
        if NoteKey.of(self.signer) not in signed:
            raise ConfigError(
                f"{self.collection.log}: settle {self.close.number:04d} was begun with the key before; run again "
                "with that key, then change it"
            )

    def _prove(self, old: int, new: int) -> list[bytes]:
        return prove_consistency(old, new, Tiles(self.collection.log, new).node)

    def _rotation(self) -> Iterator[bytes]:
        """Yield the entry by which a new key follows the one that signed the log so far."""
        path = self.collection.log / "checkpoint"
        if self.config.rotation is None or not path.exists():
            return
        if NoteKey.of(self.signer) not in open_note(path.read_bytes(), self.keys)[1]:
            yield encode_entry("key-rotation", statement=self.config.rotation.read_text(encoding="utf-8"))

    def _entries(self) -> Iterator[bytes]:
        close, commit = self.close, self.committer.commit
        about = {"decide_plan": close.plan, "examine_plan": close.examine_plan, "settle": close.number}
        yield encode_entry("run-open", at=_now(), tool=TOOL_VERSION, **about)
        given = self.committer.values(self.plan, close.canaries)
        given |= {kind: states[-1] for kind, states in logged_events(self.collection).items()}
        for kind in COMMITTED:
            yield encode_entry(kind, settle=close.number, value=commit(kind, given[kind]))
        for shard in close.shards:
            yield self._shard_entry(shard)
        counts, named = close.counts, (close.uids, close.release_summary)
        uids, summary = (None if item is None else item.sha256 for item in named)
        yield encode_entry(
            "settle",
            **about,
            **{"in": counts.samples, "kept": counts.keep, "not_kept": counts.samples - counts.keep},
            close=commit("close", hashlib.sha256(close.encode()).hexdigest()),
            faults=counts.faults,
            shards=len(close.shards),
            stamps=list(close.stamps),
            summary=summary,
            uids=uids,
        )

    def _shard_entry(self, shard: str) -> bytes:
        folder = self.collection.settled(self.close.number) / "decisions"
        settled = SettleCommit.read(folder / f"{shard}.json")
        examined = ExamineCommit.read(self.collection.commit(shard))
        table = schema.read(folder / settled.decisions.name, sha256=settled.decisions.sha256)
        records = sample_records(table, shard=shard, settle=self.close.number, secret=read_secret(self.collection))
        return encode_entry(
            "shard-commit",
            **{"in": settled.samples, "kept": settled.keep, "not_kept": settled.samples - settled.keep},
            details=self.committer.commit(f"shard:{shard}", hashlib.sha256(settled.encode()).hexdigest()),
            input=examined.input_sha256,
            manifest=None if settled.manifest is None else settled.manifest.sha256,
            records=records_root(records),
            settle=self.close.number,
            shard=shard,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
