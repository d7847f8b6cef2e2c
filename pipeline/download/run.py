"""A whole download: what it needs, its two passes, and the close that accounts for every row.

Owns the folder that a download writes:

    plan.json               what was asked for: tables and lists by digest (restricted, as all but summary.json)
    orders/                 the rows of each shard, made before anything is contacted
    shards/                 what a run reads: a tar and a sidecar as img2dataset writes them
    results/, commits/      what became of each row of a shard, by table and number; the commit, written last
    rows.parquet            one final state for every row of every table
    summary.json            in, kept, not kept, faults
    download.json           the close
    work/, journal/         of a download at work; errors of img2dataset

- A shard without a commit is fetched anew; one that has it is left as it is. Other tables, lists or caps need
  another folder.
- A second pass asks again for rows whose failure is of a class that passes; no row is asked for a third time.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.url_match import read_urls
from manifests import durable
from manifests.collection import RESTRICTED_FILE_MODE, RESTRICTED_FOLDER_MODE, Collection
from manifests.records import SCHEMA_VERSION, canonical_json, digest_json
from pipeline.config import Config, load_config
from pipeline.download.close import close_download
from pipeline.download.crawl import crawling
from pipeline.download.fetched import RETRYABLE, Failure, FetchError
from pipeline.download.gateway import Gateway
from pipeline.download.orders import first_orders, order_path, read_order_urls, settle_rows, write_orders
from pipeline.download.staging import Staging, stage
from pipeline.errors import ConfigError, RunError
from pipeline.resolve import UnsafeWarning
from pipeline.run_lists import read_lists
from pipeline.runs import lock
from pipeline.screen_tables import Table, find_tables, sha256_of
from pipeline.url_screen import UrlScreen

_FOLDERS = ("orders", "shards", "results", "commits", "journal")
_LOOK_S = 0.2
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """What the command line says. tables: of URLs, or folders that `screen` wrote. to: the folder to stage in."""

    tables: tuple[Path, ...]
    config: Path
    to: Path


@dataclass(frozen=True, slots=True)
class _Job:
    """lists: what the plan is bound to; screen: these, and what the collection has withheld by now."""

    config: Config
    tables: tuple[Table, ...]
    lists: UrlScreen
    screen: UrlScreen
    staging: Staging


def download_all(options: DownloadOptions) -> dict[str, Any]:
    """Download all rows, or what is left of them; returns what `summary.json` holds.

    Raises:
        ConfigError: something is not usable, or the folder holds another download.
        ScrubError: it did not come to its end; run again to go on.
    """
    to = options.to
    job, plan = _load(options.tables, load_config(options.config), to)
    for name in ("", *_FOLDERS):
        durable.make_folder(to / name, mode=RESTRICTED_FOLDER_MODE if name else 0o755)
    try:
        durable.write(to / "plan.json", plan, replace=False, mode=RESTRICTED_FILE_MODE)
    except durable.DurableError:
        raise ConfigError(f"{to}: was begun with other tables, lists or caps; name another --to") from None
    with lock(Collection(to), alone=True):
        if not (to / "download.json").exists():
            for name in ("", *_FOLDERS):
                durable.sweep(to / name)
            rows, most = settle_rows(job.tables, job.lists), job.config.download.rows_per_shard
            first = write_orders(first_orders(job.tables, rows), to / "orders", 0, most)
            _crawl(job, range(first))
            again = write_orders(_failed(job.staging, first), to / "orders", first, most)
            _crawl(job, range(first, first + again), wait_s=job.config.download.retry_after_s)
            shutil.rmtree(to / "work", ignore_errors=True)
            close_download(job.staging, rows, first + again)
        summary: dict[str, Any] = json.loads((to / "download.json").read_bytes())["summary"]
        return summary


def _load(paths: Sequence[Path], config: Config, to: Path) -> tuple[_Job, bytes]:
    name = to.absolute().name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--to {to}: shards are named after it: expected letters, digits, and ._- within")
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and not (path / "screen.json").is_file():
            raise ConfigError(f"{path}: expected a table, or the folder of a finished `shardscrub screen`")
        files += sorted((path / "download").glob("*.parquet")) if path.is_dir() else [path]
    tables = find_tables(files, config.screen)
    try:
        lists = read_lists(config, now=datetime.now(UTC))
    except ListError as error:
        raise ConfigError(str(error)) from None
    for stamp, why in (unsafe := config.download.unsafe()).items():
        warnings.warn(f"{stamp}: {why}", UnsafeWarning, stacklevel=2)
    stamps = tuple(unsafe)
    plan = {
        "schema": SCHEMA_VERSION,
        "name": name,
        "tables": {table.name: sha256_of(table.path) for table in tables},
        "columns": [[table.name, table.url, table.caption] for table in tables],
        "lists": [asdict(item) for item in lists.plans],
        "caps": config.download.outcome(),
        "stamps": stamps,
    }
    data = canonical_json(plan)
    staging = Staging(to, name, digest_json(json.loads(data)), stamps)
    screen = UrlScreen(lists.feeds)
    asked = screen.and_withheld(Collection(config.collection, config.roots))
    return _Job(config, tables, screen, asked, staging), data


def _failed(staging: Staging, first: int) -> Iterator[pa.Table]:
    """Yield the rows of the first pass that are asked for again."""
    kinds = pa.array([str(one) for one in RETRYABLE])
    for number in range(first):
        failures = pq.read_table(staging.path("results", number), columns=["failure"])["failure"]
        again = pc.is_in(failures, kinds)
        if pc.any(again).as_py():
            yield pq.read_table(order_path(staging.root / "orders", number)).filter(again)


def _crawl(job: _Job, numbers: Sequence[int], *, wait_s: float = 0.0) -> None:
    """Fetch and stage all shards of a pass that have no commit.

    Raises:
        RunError: img2dataset ended before it was done.
    """
    left = [number for number in numbers if not job.staging.path("commit", number).is_file()]
    if not left:
        return
    work = job.staging.root / "work"
    shutil.rmtree(work, ignore_errors=True)
    mine = work / secrets.token_hex(4)  # what an earlier img2dataset may still write has no place here
    for name in ("in", "out"):
        durable.make_folder(mine / name, mode=RESTRICTED_FOLDER_MODE)
    asyncio.run(_serve(job, left, mine, wait_s))


async def _serve(job: _Job, left: Sequence[int], work: Path, wait_s: float) -> None:
    settings, orders = job.config.download, job.staging.root / "orders"
    await asyncio.sleep(wait_s)
    # Names are resolved in threads: a name server that is slow must not hold the others up.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.connections))
    listed = {number: job.screen.find(read_urls(read_order_urls(orders, number))) for number in left}

    def url_of(shard: int, row: int) -> str:
        if listed[shard][row]:
            raise FetchError(Failure.LISTED)
        return read_order_urls(orders, shard)[row]

    gateway = Gateway(settings, job.screen, url_of)
    log = job.staging.root / "journal" / "img2dataset.log"
    async with gateway.open():
        for place, number in enumerate(left):
            source = read_order_urls(orders, number)
            addresses = [gateway.address(number, row) for row in range(len(source))]
            pq.write_table(
                pa.table({"url": addresses, "source_url": pa.array(source, pa.string())}),
                order_path(work / "in", place),
            )
        with crawling(work, log, settings) as child:
            waiting = dict(enumerate(left))
            while waiting:
                ended = child.poll() is not None  # asked first: what it wrote before its end is still found
                for place in [one for one in waiting if (work / "out" / f"{one:05d}_stats.json").exists()]:
                    number, crawled = waiting.pop(place), work / "out" / f"{place:05d}.tar"
                    await asyncio.to_thread(stage, job.staging, number, crawled, gateway.attempts.pop(number, {}))
                    crawled.unlink()
                if waiting and ended:
                    raise RunError(f"{len(waiting)} shards were not fetched; {log} may say why; run again to go on")
                await asyncio.sleep(_LOOK_S)
