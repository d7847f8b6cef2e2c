"""How fast is a download behind the gateway beside plain img2dataset, and does every row of a rough scrape add up?

    python benchmarks/download.py [--rough 5000] [--clean 10000] [--rounds 2] [--bytes 20000]

A server on the loopback, in this process, stands for the web. `rough`: 200, 404, 500 and then 200, timeouts,
redirects to private addresses and other ports, wrong types, 0 bytes, bodies of 300 MB, slow drips, duplicates,
changing and listed URLs; every row must have the state that belongs to it, bytes on disk must be bytes served, and
nothing private or listed may be asked for. `clean`: pictures only, by the whole command `shardscrub download` and
by img2dataset with the same settings given the URLs themselves, in turn. Both are measured from the start of the
process to its end, by the clock and in processor seconds with all children; the server's are in neither.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from measuring import save  # noqa: E402
from picture_server import Listener, PictureServer  # noqa: E402
from scrapes import Scrape, list_store  # noqa: E402

from pipeline.lists.imports import import_list  # noqa: E402
from pipeline.lists.manifest import About  # noqa: E402

PLAIN = """import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", output_format="webdataset",
        url_col="url", processes_count=1, thread_count=256, number_sample_per_shard=10000,
        resize_mode="no", disable_all_reencoding=True, extract_exif=False, compute_hash="sha256", retries=0,
        timeout=30)
"""
CAPS = {"host_rate": 1_000_000, "host_connections": 256, "fetch_s": 3.0, "retry_after_s": 0}


def rough_rows(server: PictureServer, other: int, count: int) -> list[tuple[str, str | None]]:
    """Return URLs of every kind, each with the failure that it must end with."""
    url, rows = server.url, []
    kinds: list[tuple[str, str | None]] = [
        ("/flaky/{n}", None), ("/html/{n}", None), ("/changing/{n}", None), ("/to?u=%2Fok%2Fr{n}", None),
        ("/404/{n}", "http_404"), ("/503/{n}", "http_5xx"), ("/empty/{n}", "empty"),
        ("/refuses/noai?{n}", "opt_out"),
        ("/loop/{n}000", "redirect_limit"), ("/short/{n}", "broken"), ("/listed/{n}", "listed"),
        ("/to?n={n}&u=" + quote(url("/%6Cisted/{n}"), safe="{}"), "listed"),
        ("/to?n={n}&u=" + quote(f"http://127.0.0.1:{other}/"), "private_address"),
        ("/to?n={n}&u=" + quote(f"http://localhost:{other}/"), "private_address"),
        ("/to?n={n}&u=" + quote("http://169.254.169.254/x"), "private_address"),
    ]  # fmt: skip
    rare = [
        ("/hang/{n}", "timeout"),
        ("/drip/{n}", "timeout"),
        ("/huge/{n}", "too_large"),
        ("/declared/{n}", "too_large"),
    ]
    for n in range(count):
        if n % 500 == 0:
            path, failure = rare[n // 500 % len(rare)]
        elif n % 3 == 0:
            path, failure = kinds[n // 3 % len(kinds)]
        elif n % 50 == 1 and n > 50:
            rows.append((url("/ok/1.jpg"), "duplicate"))
            continue
        else:
            path, failure = "/ok/{n}.jpg", None
        rows.append((url(path.format(n=n)), failure))
    return rows


def make(root: Path, server: PictureServer, rows: list[str]) -> Scrape:
    """Write a table and a configuration with a list of URLs."""
    download = {**CAPS, "allow_hosts": [server.place], "max_bytes": 8 << 20}
    scrape = Scrape.make(root, list=[{"id": "known"}, {"id": "places"}], download=download)
    path = root / "lists" / "places.csv"
    path.write_text("".join(f"{server.url(f'/listed/{n}')}\n" for n in range(len(rows))) + "listed.test\n")
    import_list(list_store(root), "places", [path], About(purpose="opt-out"), format_name="urls", effect="remove")
    captions = [f"a drawing of a hill {n}" for n in range(len(rows))]
    pq.write_table(pa.table({"url": rows, "caption": captions}), root / "urls.parquet")
    return scrape


def timed(*command: object) -> tuple[float, float]:
    """Run a command; return seconds by the clock, and processor seconds of it and all its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    kept = {**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", *map(str, command)], env=kept, capture_output=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr.decode()[-2000:])
    return seconds, sum(getattr(after, one) - getattr(before, one) for one in ("ru_utime", "ru_stime"))


def run_download(scrape: Scrape, to: str) -> tuple[float, float]:
    """Time the command."""
    where = ("--config", scrape.config, "--to", scrape.root / to)
    return timed("-m", "pipeline.cli", "download", scrape.root / "urls.parquet", *where)


def staged_digests(folder: Path) -> dict[tuple[str, str], str]:
    """Return the SHA-256 of every staged image, by shard and key."""
    found = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            for one in tar:
                if one.name.endswith(".jpg"):
                    found[path.stem, one.name[:-4]] = hashlib.sha256(tar.extractfile(one).read()).hexdigest()
    return found


def rough(root: Path, count: int) -> dict[str, object]:
    """Check a rough scrape."""
    other = Listener()
    with PictureServer() as server:
        rows = rough_rows(server, other.port, count)
        scrape = make(root, server, [url for url, _ in rows])
        seconds, cpu = run_download(scrape, "staged")
        found = pq.read_table(root / "staged" / "rows.parquet").to_pylist()
        digests = staged_digests(root / "staged" / "shards")
        served = {digest for several in server.served.values() for digest in several}
        kept = [row for row in found if row["state"] == "downloaded"]
        checks = {
            "rows": len(found),
            "rows_with_another_state_than_theirs": sum(
                row["failure"] != expected for row, (_, expected) in zip(found, rows, strict=True)
            ),
            "downloaded": len(kept),
            "staged_images": len(digests),
            "bytes_that_differ": sum(digests[row["shard"], row["key"]] != row["sha256"].hex() for row in kept),
            "bytes_never_served": len(set(digests.values()) - served),
            "listed_requested": sum(path.startswith("/listed") for path in server.asked),
            "requests": len(server.asked),
        }
    return {"seconds": seconds, "cpu_seconds": cpu, **checks, "connections_to_another_port": other.close()}


def clean(root: Path, count: int, size: int, rounds: int) -> dict[str, object]:
    """Measure the rate beside that of plain img2dataset."""
    measured: dict[str, list[tuple[float, float]]] = {"plain": [], "gateway": []}
    with PictureServer(size=size, keep=False) as server:
        scrape = make(root, server, [server.url(f"/ok/{n}.jpg") for n in range(count)])
        (root / "plain.py").write_text(PLAIN)
        for number in range(rounds):
            measured["plain"].append(timed(root / "plain.py", root / "urls.parquet", root / f"plain-{number}"))
            measured["gateway"].append(run_download(scrape, f"staged-{number}"))
    summary = json.loads((root / "staged-0" / "summary.json").read_bytes())
    ratios = [plain[0] / ours[0] for plain, ours in zip(*measured.values(), strict=True)]
    result: dict[str, object] = {"ratio": statistics.median(ratios), "ratios": ratios, "kept": summary["kept"]}
    for name, runs in measured.items():
        result[name] = {
            "images_per_second": [count / seconds for seconds, _ in runs],
            "cpu_ms_per_image": [1000 * cpu / count for _, cpu in runs],
        }
    return result


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rough", type=int, default=5000)
    parser.add_argument("--clean", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bytes", type=int, default=20_000)
    given = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if given.rough:
            results["rough"] = rough(Path(folder) / "rough", given.rough)
        if given.clean:
            results["clean"] = clean(Path(folder) / "clean", given.clean, given.bytes, given.rounds)
    print(json.dumps(results, indent=2))
    print(save("download", vars(given), results))


if __name__ == "__main__":
    main()
