"""How fast are tables screened before download, and in how much memory?

    python benchmarks/screen.py [--rows 10_000_000] [--folder DIR] [--only NAME]

Makes a table with LAION's columns (URL, TEXT, similarity, punsafe, NSFW, md5) in row groups of 100,000, a list of
2 M URLs and domains and one of 16 M MD5, and screens the table by the command itself with two workers: reading,
deciding, writing the rows to download and all decisions.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from manifests.cases import new_identity  # noqa: E402
from pipeline.lists.imports import import_list  # noqa: E402
from pipeline.lists.manifest import About  # noqa: E402
from pipeline.lists.store import ListStore  # noqa: E402

GROUP = 100_000
LISTED = 16_000_000
EVERY_LIST = ("urls", "domains", "md5")
TEXT = """a the of in with and for photo picture vintage modern black white red blue dress woman man dog cat house
car kitchen table wedding flowers beach sunset mountain river children's boys girl baby shirt print poster design
art wall canvas new sale size women's men's leather shoes bag watch gold silver ring free shipping stock
vector illustration background logo template icon set summer winter christmas birthday party food recipe
chicken cake chocolate coffee tea garden tree green forest road city new york london paris street view map
hotel room bathroom bedroom living"""
WORDS = TEXT.split()

POLICY = """name = "bench"
required = ["url.usable"{required}]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "listed-other"
when = "list.other.exact >= 1"
action = "REMOVE"
[[rule]]
id = "punsafe"
when = "meta.punsafe > 0.95 or meta.nsfw >= 1"
action = "REMOVE"
{terms}
"""
TERMS = """[[rule]]
id = "words"
when = "caption.minor >= 1 and (caption.sexual >= 1 or url.sexual >= 1 or url.minor >= 1)"
action = "REMOVE"
"""


def make_table(path: Path, rows: int) -> None:
    """Write a table with LAION's columns."""
    random = np.random.default_rng(1)
    hosts = [f"{a}{n}.{b}" for n, (a, b) in enumerate(zip(
        random.choice(["www.shop", "i.img", "cdn", "media.photo", "www.news"], 200_000),
        random.choice(["com", "co.uk", "example.net", "de", "org"], 200_000), strict=True))]  # fmt: skip
    words = np.array(WORDS)
    writer = None
    for first in range(0, rows, GROUP):
        count = min(GROUP, rows - first)
        place = np.minimum(random.zipf(1.2, count) - 1, 10**9) % len(hosts)
        numbers = random.integers(0, 1 << 40, count)
        urls = [f"https://{host}/images/{n % 9973}/{n:x}/{WORDS[n % 90]}-{WORDS[n // 90 % 90]}_{n % 1000}.jpg"
                for host, n in zip([hosts[n] for n in place.tolist()], numbers.tolist(), strict=True)]  # fmt: skip
        for n in range(0, count, 29):  # some stand in no canonical form
            urls[n] = urls[n].replace("/images/", "/Im%c3%a4ges/") if n % 2 else urls[n].replace("https", "HTTPS")
        lengths = random.integers(4, 18, count)
        drawn = words[random.integers(0, len(words), int(lengths.sum()))].tolist()
        ends = np.cumsum(lengths).tolist()
        texts = [" ".join(drawn[end - n : end]) for end, n in zip(ends, lengths.tolist(), strict=True)]
        digits = random.bytes(16 * count).hex()
        md5 = pa.array([digits[n : n + 32] for n in range(0, len(digits), 32)])
        # As published of LAION-5B: 3 % over 0.45; of them we put 4 in 10 over 0.95.
        drawn_score = random.random((2, count))
        score = np.select([drawn_score[0] < 0.012, drawn_score[0] < 0.03], [0.95, 0.45], 0.0)
        score += drawn_score[1] * np.select([drawn_score[0] < 0.012, drawn_score[0] < 0.03], [0.05, 0.5], 0.45)
        table = pa.table({
            "SAMPLE_ID": np.arange(first, first + count), "URL": urls, "TEXT": texts,
            "HEIGHT": random.integers(60, 2000, count), "WIDTH": random.integers(60, 2000, count),
            "similarity": random.random(count).astype(np.float32),
            "NSFW": pa.array(["UNLIKELY", "UNSURE", "NSFW"]).take(pa.array(np.digitize(score, [0.6, 0.9]))),
            "punsafe": score.astype(np.float32), "md5": md5,
        })  # fmt: skip
        writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table, row_group_size=GROUP)
    assert writer is not None
    writer.close()


def make_lists(folder: Path, table: Path) -> None:
    """Import a list of a million URLs, one of a million domains, one of 16 million MD5; a few are in the table."""
    (folder / "lists.key").write_text(new_identity()[0])
    (folder / "lists.key").chmod(0o600)
    store = ListStore(folder / "store", folder / "lists.key")
    known = pq.ParquetFile(table).read_row_group(0, columns=["URL"])["URL"][:500].to_pylist()
    urls = [*known, *(f"http://listed{n % 5000}.example/pictures/{n}.jpg" for n in range(1_000_000))]
    domains = ["shop7.com", "img12.de", *(f"d{n}.listed.example" for n in range(1_000_000))]
    for name, lines in (("urls", urls), ("domains", domains)):
        path = folder / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        import_list(store, name, [path], About(purpose="opt-out"), format_name="urls", effect="remove")
    raw = pa.py_buffer(np.random.default_rng(2).bytes(16 * LISTED))
    md5 = folder / "md5.parquet"
    pq.write_table(pa.table({"md5": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), LISTED, [None, raw])}), md5)
    import_list(store, "md5", [md5], About(purpose="csam"), format_name="parquet", effect="case")


def write_config(folder: Path, name: str, settings: str, *, lists: tuple[str, ...], historic: bool) -> Path:
    """Write the configuration of one measurement."""
    path = folder / f"{name}.toml"
    recipient = new_identity()[1]
    path.write_text(
        f"collection = 'collection'\nunsafe_historic_policy = {str(historic).lower()}\n"
        "[[input]]\nshards = 'none.tar'\n[policy]\nprofile = 'separation'\n"
        "[text]\nconcepts = ['minor', 'sexual']\n"
        "[[metadata]]\ncolumn = 'punsafe'\n"
        "[[metadata]]\ncolumn = 'NSFW'\nwords = ['UNLIKELY', 'UNSURE', 'NSFW']\nscores = [0.0, 0.5, 1.0]\n"
        f"[lists]\nstore = 'store'\nkey = 'lists.key'\n[sealed]\nrecipients = ['{recipient}']\n"
        "case_owner_role = 'nobody'\ncase_owner_contact = 'nobody'\n"
        + "".join(f"[[list]]\nid = '{one}'\n" for one in lists)
        + f"[screen]\n{settings}\n"
    )
    return path


def measure(folder: Path, name: str, table: Path, config: Path, rows: int) -> None:
    """Run the command once, and print what it took."""
    to = folder / f"out-{name}"
    subprocess.run(["rm", "-rf", str(to)], check=True)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "screen", str(table), "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["--to", str(to), "--workers", "2"]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = [0, 0]
    watcher = threading.Thread(target=_watch, args=(child, peak))
    watcher.start()
    out, _ = child.communicate()
    took = time.perf_counter() - start
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    watcher.join()
    counts = " ".join(out.split())
    print(f"{name}: {took:.1f} s ({cpu:.1f} s of processors), {rows / took:,.0f} rows/s, "
          f"peak of private memory {peak[0] >> 20} MiB in all "
          f"(half-way: {peak[1] >> 20}); {counts}", flush=True)  # fmt: skip
    subprocess.run(["rm", "-rf", str(to)], check=True)


def _watch(child: subprocess.Popen[str], peak: list[int]) -> None:
    samples = []
    while child.poll() is None:
        total = 0
        for pid in [child.pid, *_children(child.pid)]:
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            found = dict(line.split(":", 1) for line in text.splitlines()[1:])
            total += sum(int(found[name].split()[0]) * 1024 for name in ("Private_Dirty", "Private_Clean"))
        samples.append(total)
        time.sleep(0.3)
    peak[0], peak[1] = max(samples), max(samples[: len(samples) // 2 + 1])


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def main() -> None:
    """Make what is not there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)).absolute()
        folder.mkdir(exist_ok=True)
        table = folder / f"table-{given.rows}.parquet"
        if not table.exists():
            make_table(table, given.rows)
        if not (folder / "store").exists():
            make_lists(folder, table)
        (folder / "plain.toml").write_text(POLICY.format(required="", terms=""))
        (folder / "terms.toml").write_text(POLICY.format(required=', "caption.minor", "url.minor"', terms=TERMS))
        runs = {
            "relaion-research": ("policy = 'historic/relaion-research'", ()),
            "relaion-research-all-terms": ("policy = 'historic/relaion-research'\nevery_term = true", ()),
            "relaion-research-safe": ("policy = 'historic/relaion-research-safe'", ()),
            "domains-digests-scores": ("policy = 'plain.toml'", ("domains", "md5")),
            "lists-and-scores": ("policy = 'plain.toml'", EVERY_LIST),
            "everything": ("policy = 'terms.toml'\nevery_term = true", EVERY_LIST),
            "everything-terms-where-needed": ("policy = 'terms.toml'", EVERY_LIST),
        }
        for name, (settings, lists) in runs.items():
            if given.only in name:
                config = write_config(folder, f"config-{name}", settings, lists=lists, historic=not lists)
                measure(folder, name, table, config, given.rows)


if __name__ == "__main__":
    main()
