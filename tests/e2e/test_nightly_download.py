"""Nights that download: tables become shards once, and nothing is asked for that is listed by then."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from in_process import call
from picture_server import PictureServer
from scrapes import Scrape, list_store

from pipeline.lists.imports import import_list
from pipeline.lists.manifest import About


def night(scrape: Scrape, **nightly: object) -> dict[str, tuple[object, ...]]:
    scrape.settings["nightly"] = {"tables": ["tables/*.parquet"], **nightly}
    scrape.write()
    done = call("nightly", "--config", scrape.config, "--workers", 1)
    assert done.code == 0, (done.out, done.err)
    lines = [json.loads(line) for line in done.out.splitlines()]
    return {line["stage"]: (line["state"], line["in"], line["kept"], line["faults"]) for line in lines}


def add_table(scrape: Scrape, name: str, urls: list[str]) -> None:
    table = pa.table({"url": urls, "caption": ["a hill"] * len(urls)})
    pq.write_table(table, scrape.root / "tables" / f"{name}.parquet")


def list_urls(root: Path, urls: list[str]) -> None:
    path = root / "lists" / "places.csv"
    path.write_text("\n".join([*urls, ""]))
    import_list(list_store(root), "places", [path], About(purpose="opt-out"), format_name="urls", effect="remove")


def test_tables_are_downloaded_once_and_what_was_listed_meanwhile_is_never_asked_for(tmp_path):
    with PictureServer() as server:
        scrape = Scrape.make(
            tmp_path,
            input=[{"shards": "staging/*/shards/*.tar", "optional": True}],
            list=[{"id": "known"}, {"id": "places"}],
            download={"allow_hosts": [server.place], "host_rate": 1000, "retry_after_s": 0},
        )
        (tmp_path / "tables").mkdir()
        list_urls(tmp_path, ["http://listed.test/x"])
        first = night(scrape, staging="staging")
        assert {said[0] for name, said in first.items() if name not in ("lists", "anchor")} == {"nothing"}

        add_table(scrape, "a b", [server.url(f"/ok/{n}") for n in range(4)] + [server.url("/404/1")])
        second = night(scrape, staging="staging")
        assert second["screen"] == ("done", 5, 5, 0)
        assert second["download"][:3] == ("done", 5, 4)
        assert second["examine"] == ("done", 1, 1, 0)
        assert second["settle"][:2] == ("done", 4)
        asked = list(server.asked)

        add_table(scrape, "c", [server.url(f"/ok/{n}") for n in (10, 11)])
        third = night(scrape)  # nothing is downloaded here
        assert (third["screen"], third["download"][0]) == (("done", 2, 2, 0), "skipped")
        list_urls(tmp_path, ["http://listed.test/x", server.url("/ok/11")])
        fourth = night(scrape, staging="staging")
        assert fourth["screen"] == ("done", 2, 1, 0)
        assert fourth["download"][:3] == ("done", 1, 1)
        assert server.asked == [*asked, "/ok/10"]
        assert fourth["settle"][:2] == ("done", 5)

        for folder in sorted((tmp_path / "staging").iterdir()):
            gone = ("--config", scrape.config, "--to", folder, "--purge-staging", "--by", "A", "--why", "a try")
            assert call("download", *gone).code == 0
        assert not list((tmp_path / "staging").glob("*/shards/*.tar"))
        fifth = night(scrape, staging="staging")
        assert {said[0] for name, said in fifth.items() if name not in ("lists", "anchor")} == {"nothing"}
        assert len(server.asked) == len(asked) + 1
