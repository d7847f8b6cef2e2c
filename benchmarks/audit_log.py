"""How long does the audit log take to grow by 100,000 entries, to be checked, and to prove one of them?

Entries of about 1 kB, as shard commits are, appended and published in a process of its own, so that its peak of
memory is its own; beside it, the same entries in one plain file with one fsync, which is the least that anything
durable takes. The bounds are those of the audit log's requirements; durations are for an idle machine.
`--quick` takes few entries, to see that it runs; its figures say nothing.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import pyarrow as pa  # noqa: E402 - the paths come first
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402 - the paths come first
from measuring import save  # noqa: E402

from manifests import durable, schema  # noqa: E402
from manifests.audit.entries import encode_entry, records_root, sample_records  # noqa: E402
from manifests.audit.log import Log, read_checkpoint  # noqa: E402
from manifests.audit.note import NoteKey  # noqa: E402
from manifests.audit.proof import LogProof, check_proof, make_proof  # noqa: E402
from manifests.audit.sample_proof import check_sample, prove_sample  # noqa: E402
from manifests.audit.tiles import check_log  # noqa: E402
from manifests.collection import Collection  # noqa: E402
from manifests.commits import Close, Counts, Evidence, FileDigest, SettleCommit  # noqa: E402
from manifests.keyed import make_secret, read_secret  # noqa: E402
from manifests.signers import FileSigner, vkey  # noqa: E402

QUICK = "--quick" in sys.argv[1:]
ENTRIES, ENTRY_BYTES, PROOFS = (2_000 if QUICK else 100_000), 1_000, 200
SAMPLES = 10_000  # of a shard
MOST_WRITE_S, MOST_MIB, MOST_PROOF_S = 60, 500, 1
NAME = "example.com/benchmark"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = FileSigner(NAME, KEY.public_key().public_bytes_raw(), KEY)
KEYS = (NoteKey.of(SIGNER),)


def entries() -> Iterator[bytes]:
    """Yield entries of about the size of a shard's commit."""
    for number in range(ENTRIES):
        yield b"%08d" % number + b"x" * (ENTRY_BYTES - 8)


def seconds_of(call, *arguments) -> tuple[float, object]:
    """Return what a call takes and returns."""
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result


def write(folder: Path) -> dict[str, float]:
    """Append and publish, in this process: seconds, and the peak of resident memory before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    log = Log.open(folder, NAME, KEYS)
    append_s, _ = seconds_of(log.append, entries())
    publish_s, _ = seconds_of(log.publish, SIGNER)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"append_s": append_s, "publish_s": publish_s, "peak_mib": peak, "idle_mib": before}


def write_plainly(path: Path) -> None:
    """Write the same entries to one file."""
    with path.open("wb") as file:
        file.writelines(entries())
        file.flush()
        os.fsync(file.fileno())


def prove(folder: Path) -> dict[str, float]:
    """Make and check proofs over the whole log, each from the files anew."""
    making, checking = [], []
    for index in range(0, ENTRIES, ENTRIES // PROOFS):
        seconds, made = seconds_of(
            lambda index=index: make_proof(folder, index, *read_checkpoint(folder, NAME, KEYS))
        )
        making.append(seconds)
        text, entry = made[0].encode(), made[1]
        checking.append(
            seconds_of(lambda text=text, entry=entry: check_proof(LogProof.parse(text), entry, NAME, KEYS))[0]
        )
    return {
        "prove_s": statistics.median(making),
        "slowest_prove_s": max(making),
        "check_proof_s": statistics.median(checking),
        "slowest_check_proof_s": max(checking),
    }


def prove_samples(root: Path) -> dict[str, float]:
    """Prove and check samples of a settle with a log's worth of shards: the first, the middle and the last."""
    home, decided = Collection(root), sample_table()
    names, making, checking = [f"{number:06d}" for number in range(ENTRIES)], [], []
    home.make()
    make_secret(home)
    settled, log = home.settled(1), Log.open(home.log, NAME, KEYS)
    data = schema.encode(decided)
    for name in names:
        root_hash = "0" * 64
        if name in (names[0], names[ENTRIES // 2], names[-1]):
            durable.make_folder(settled / "decisions")
            durable.write(settled / "decisions" / f"{name}.parquet", data, replace=True)
            SettleCommit(
                shard=name, plan="p", stamps=(), samples=SAMPLES, identities="i", keep=SAMPLES, remove=0,
                quarantine=0, withheld=0, faults=0, reasons={}, examined="e", matched=False, manifest=None,
                tar=None, decisions=FileDigest.of(f"{name}.parquet", data),
            ).write(settled / "decisions" / f"{name}.json", replace=True, mode=0o600)  # fmt: skip
            records = sample_records(decided, shard=name, settle=1, secret=read_secret(home))
            root_hash = records_root(records)
        about = {"details": "0" * 64, "input": "0" * 64, "manifest": "0" * 64, "settle": 1, "shard": name}
        log.append([encode_entry("shard-commit", **{"in": SAMPLES, "kept": SAMPLES, "not_kept": 0}, **about,
                                 records=root_hash)])  # fmt: skip
    log.publish(SIGNER)
    Close(
        number=1, plan="p", examine_plan="e", stamps=(), counts=Counts(), shards=dict.fromkeys(names, "0" * 64),
        released=True, refused=(), canaries=0, flooded=(), changes=None, uids=None, release_summary=None,
    ).write(settled / "close.json", replace=True, mode=0o600)  # fmt: skip
    Evidence(1, "", log.size, ()).write(settled / "evidence.json", replace=True, mode=0o600)
    for name in (names[0], names[ENTRIES // 2], names[-1]):
        seconds, proof = seconds_of(
            lambda name=name: prove_sample(home, name, "k7", settle=None, index=None, outcome=True)
        )
        making.append(seconds)
        checking.append(seconds_of(check_sample, proof, vkey(NAME, SIGNER.public_key))[0])
    return {"slowest_prove_sample_s": max(making), "slowest_check_sample_s": max(checking)}


def sample_table() -> pa.Table:
    """Return the decisions of one shard."""
    value = {"shard": "s", "withheld": False, "action": "KEEP"}
    columns = {name: [one] * SAMPLES for name, one in value.items()}
    columns |= {"index": range(SAMPLES), "key": [f"k{number}" for number in range(SAMPLES)]}
    fields = schema.decision_schema([])
    return pa.table([pa.array(columns.get(one.name, [None] * SAMPLES), one.type) for one in fields], schema=fields)


def main() -> None:
    """Measure, print the figures and write them."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "log"
        command = [sys.executable, __file__, "--write", str(folder), *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        results = json.loads(done.stdout)
        results["plain_s"], _ = seconds_of(write_plainly, Path(name) / "plain")
        checkpoint, _ = read_checkpoint(folder, NAME, KEYS)
        results["check_log_s"], _ = seconds_of(check_log, folder, checkpoint.size, checkpoint.root)
        results["reopen_s"], _ = seconds_of(Log.open, folder, NAME, KEYS)
        results |= prove(folder)
        results |= prove_samples(Path(name) / "collection")
    plan = {
        "entries": ENTRIES,
        "entry_bytes": ENTRY_BYTES,
        "proofs": PROOFS,
        "samples": SAMPLES,
        "most_write_s": MOST_WRITE_S,
        "most_mib": MOST_MIB,
        "most_proof_s": MOST_PROOF_S,
    }
    write_s = results["append_s"] + results["publish_s"]
    print(f"{ENTRIES:,} entries of {ENTRY_BYTES} bytes, load at start {load:.1f}:")
    print(f"    append + checkpoint {write_s:8.2f} s (bound {MOST_WRITE_S}), plain file {results['plain_s']:.2f} s")
    print(f"    peak of memory      {results['peak_mib']:8.1f} MiB (bound {MOST_MIB})")
    print(
        f"    whole log checked   {results['check_log_s']:8.2f} s, opened again {results['reopen_s'] * 1e3:.1f} ms"
    )
    for what, name in (("made", "prove"), ("checked", "check_proof")):
        median, worst = (results[f"{kind}{name}_s"] * 1e3 for kind in ("", "slowest_"))
        print(f"    proof {what:<13} {median:8.2f} ms, at most {worst:.2f}")
    for what in ("prove", "check"):
        print(f"    {what} one sample    {results[f'slowest_{what}_sample_s']:8.2f} s (bound {MOST_PROOF_S})")
    print(save("audit_log_quick" if QUICK else "audit_log", plan, {"load_at_start": load, **results}))


if __name__ == "__main__":
    if "--write" in sys.argv:
        print(json.dumps(write(Path(sys.argv[2]))))
    else:
        main()
