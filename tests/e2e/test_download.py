"""Tables downloaded behind the gateway: what is contacted, what is not, and one final state for every row."""

from __future__ import annotations

import hashlib
import json
import socket
import tarfile
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call, files
from picture_server import Listener, PictureServer
from scrapes import Scrape, jpeg, list_store, write_list, write_tar

from classifiers.hashes.digests import take_digests
from manifests.collection import Collection
from manifests.lifetime import read_destroyed
from pipeline.lists.imports import import_list
from pipeline.lists.manifest import About

GOOD = 24


class Crawl:
    """A scrape, its server, and the rows of its table: URL, and the failure expected; None where there is none."""

    def __init__(self, root: Path, server: PictureServer, other: Listener) -> None:
        self.server, self.root = server, root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.closed = f"127.0.0.1:{free.getsockname()[1]}"
        self.scrape = Scrape.make(
            root,
            input=[{"shards": "staged/shards/*.tar"}],
            list=[{"id": "known"}, {"id": "places"}],
            download={
                "allow_hosts": [server.place, self.closed],
                "max_bytes": 1 << 20,
                "fetch_s": 1.5,
                "max_redirects": 4,
                "host_rate": 100000,
                "host_connections": 256,
                "connections": 64,
                "rows_per_shard": 60,
                "retry_after_s": 0,
            },
        )
        path = root / "lists" / "places.csv"
        path.write_text(f"{server.url('/listed/a b')}\nlisted.test\n")
        import_list(
            list_store(root), "places", [path], About(purpose="opt-out"), format_name="urls", effect="remove"
        )
        self.rows = [*self._served(), *self._private(other.port), *self._listed()]

    def _served(self) -> list[tuple[str | None, str | None]]:
        url = self.server.url
        rows: list[tuple[str | None, str | None]] = [(url(f"/ok/{n}.jpg?q={n}"), None) for n in range(GOOD)]
        rows += [(url("/ok/0.jpg?q=0"), "duplicate"), (url("/%6fk/1.jpg?q=1#f"), "duplicate")]
        rows += [
            (url("/flaky/1"), None),
            (url("/html/1"), None),
            (url("/large/1"), None),
            (url("/changing/1"), None),
        ]
        rows += [(url("/to?u=" + quote("/to?u=/ok/far")), None), (url("/refuses/otherbot: noai"), None)]
        rows += [(url("/404/1"), "http_404"), (url("/403/1"), "http_4xx"), (url("/429/1"), "http_429")]
        rows += [(url("/503/1"), "http_5xx"), (url("/hang/1"), "timeout"), (url("/drip/1"), "timeout")]
        rows += [(url("/huge/1"), "too_large"), (url("/declared/1"), "too_large"), (url("/short/1"), "broken")]
        rows += [(url("/empty/1"), "empty"), (url("/loop/1"), "redirect_limit")]
        rows += [(url("/refuses/noai"), "opt_out"), (url("/refuses/shardscrub: noindex"), "opt_out")]
        rows += [("http://nothing.invalid/x", "dns"), (f"http://{self.closed}/x", "connect")]
        rows += [
            (f"https://{self.server.place}/ok/tls", "tls"),
            (f"http://u:p@{self.server.place}/ok/p", "credentials"),
        ]
        return [*rows, (None, "bad_url"), ("", "bad_url"), ("ftp://site.test/x", "bad_url")]

    def _private(self, port: int) -> list[tuple[str, str]]:
        private = [
            f"http://{host}:{port}/x"
            for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]")
        ]
        private += [
            "http://169.254.169.254/latest",
            "http://10.0.0.1/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
        ]
        odd = [
            f"http://2130706433:{port}/",
            f"http://127.1:{port}/",
            f"http://0x7f.0.0.1:{port}/",
            "file:///etc/passwd",
        ]
        odd += [f"http://127.0.0.1:{port}@[::1/"]
        rows = [(one, "private_address") for one in private] + [(one, "bad_url") for one in odd]
        rows += [(f"http://u@127.0.0.1:{port}/", "credentials")]
        return rows + [
            (self.server.url(f"/to?n={n}&u={quote(one, safe='')}"), why) for n, (one, why) in enumerate(rows)
        ]

    def _listed(self) -> list[tuple[str, str]]:
        place = self.server.place
        paths = (
            "/listed/a%20b",
            "/listed/a b",
            "/%6Cisted/a%20b",
            "/x/../listed/a%20b",
            "/./listed/a%20b#f",
            "/listed/%61%20b",
        )
        spelled = [f"http://{place}{path}" for path in paths] + [
            "HTTP://WWW.Listed.test./x",
            f"https://{place}/listed/a%20b",
        ]
        rows = [(one, "listed") for one in spelled]
        for number, one in enumerate(spelled):
            for hop in range(3):
                one = self.server.url(f"/to?h={number}.{hop}&u={quote(one, safe='')}")
            rows.append((one, "listed"))
        return rows

    def table(self) -> pa.Table:
        count = len(self.rows)
        return pa.table(
            {
                "URL": [url for url, _ in self.rows],
                "TEXT": [f"a drawing of a hill {n}" if n % 3 else None for n in range(count)],
                "punsafe": [n / count for n in range(count)],
                "sha256": ["00" * 32] * count,
                "key": pa.array(range(count), pa.int64()),
                "box": [[1.5, float(n)] for n in range(count)],
                "raw": [bytes([n % 256]) for n in range(count)],
            }
        )

    def download(self, *arguments: object, to: str = "staged"):
        table = self.root / "urls.parquet"
        if not table.exists():
            pq.write_table(self.table(), table)
        return call("download", table, "--config", self.scrape.config, "--to", self.root / to, *arguments)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    other = Listener()
    with PictureServer() as server:
        made = Crawl(tmp_path_factory.mktemp("crawl"), server, other)
        made.done = made.download()
        made.staged = made.root / "staged"
        yield made
    assert other.close() == 0  # redirects and rows led there; nobody connected


def states(crawl) -> list[dict[str, object]]:
    return pq.read_table(crawl.staged / "rows.parquet").to_pylist()


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {f"{path.stem}/{one.name}": tar.extractfile(one).read() for one in tar}
    return found


def test_every_row_has_the_one_state_that_became_of_it(crawl):
    assert crawl.done.code == 0, crawl.done.err
    rows = states(crawl)
    assert [(row["table"], row["row"]) for row in rows] == [("urls", n) for n in range(len(crawl.rows))]
    assert [(crawl.rows[n][0], row["failure"]) for n, row in enumerate(rows)] == crawl.rows
    kept = [row for row in rows if row["state"] == "downloaded"]
    assert Counter(row["state"] for row in rows)["duplicate"] == 2
    assert {row["first"] for row in rows if row["state"] == "duplicate"} == {0, 1}
    counts = dict(
        zip(("in", "kept", "not", "faults"), (w for w in crawl.done.out.split() if w.isdigit()), strict=True)
    )
    failed = sum(row["state"] == "failed" for row in rows)
    assert counts == {
        "in": str(len(rows)),
        "kept": str(len(kept)),
        "not": str(len(rows) - len(kept)),
        "faults": str(failed),
    }
    assert {row["content_type"] for row in kept} == {"image/jpeg", "text/html"}
    assert next(row for n, row in enumerate(rows) if "/403/" in (crawl.rows[n][0] or ""))["status"] == 403


def test_bytes_on_disk_are_the_bytes_served_and_every_file_names_the_original_url(crawl):
    staged, rows = members(crawl.staged), states(crawl)
    kept = [row for row in rows if row["state"] == "downloaded"]
    assert len([name for name in staged if name.endswith(".jpg")]) == len(kept)
    served = {digest for digests in crawl.server.served.values() for digest in digests}
    table = crawl.table().to_pylist()
    for row in kept:
        name, own = f"{row['shard']}/{row['key']}", table[row["row"]]
        digest = hashlib.sha256(staged[f"{name}.jpg"]).digest()
        assert digest == row["sha256"]
        assert digest.hex() in served or "refuses" in own["URL"]
        about = json.loads(staged[f"{name}.json"])
        assert (about["url"], about["caption"], about["punsafe"]) == (own["URL"], own["TEXT"], own["punsafe"])
        assert (about["table_key"], about["table_sha256"], about["box"]) == (own["key"], "00" * 32, own["box"])
        assert (staged.get(f"{name}.txt") or b"").decode() == (own["TEXT"] or "")
    listed = [
        row for path in (crawl.staged / "shards").glob("*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    assert {row["url"] for row in listed if row["status"] == "success"} == {
        table[row["row"]]["URL"] for row in kept
    }


def test_nothing_listed_is_requested_and_refusals_are_not_asked_again(crawl):
    assert not [path for path in crawl.server.asked if "listed" in path.partition("?")[0]]
    counts = crawl.server.counts()
    assert counts["/ok/0.jpg?q=0"] == 1
    again = {path for path, count in counts.items() if count == 2 and path.count("/") == 2}
    assert again == {"/flaky/1", "/429/1", "/503/1", "/hang/1", "/drip/1", "/short/1"}
    assert max(counts.values()) == 2
    assert crawl.server.cookies == []
    assert len(crawl.server.agents) == 1


def test_no_gateway_address_stays_and_no_log_or_console_names_a_url(crawl):
    for path in crawl.staged.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            texts = (
                [data, *(repr(row).encode() for row in pq.read_table(path).to_pylist())]
                if path.suffix == ".parquet"
                else [data]
            )
            asked_of = {n.encode() for n in (crawl.server.place, crawl.closed)}
            for text in texts:
                for found in (part for part in text.split(b"http://127.0.0.1:")[1:]):
                    place = b"127.0.0.1:" + found[:5].rstrip(b"/\"', ")
                    assert place in asked_of or b"/x" in found[:8] or b"/" not in found[:8], path
            if path.parent.name == "journal":
                assert b"http" not in data
    assert not (crawl.staged / "work").exists()
    assert "http" not in crawl.done.out + crawl.done.err
    assert "warning: download_allow_hosts" in crawl.done.err
    assert "download_allow_hosts" in crawl.done.out
    assert all(
        json.loads(p.read_bytes())["stamps"] == ["download_allow_hosts"]
        for p in (crawl.staged / "commits").iterdir()
    )


def test_a_finished_download_does_nothing_and_another_one_is_refused(crawl):
    before, asked = files(crawl.staged, but="journal"), len(crawl.server.asked)
    assert crawl.download().out == crawl.done.out
    assert (files(crawl.staged, but="journal"), len(crawl.server.asked)) == (before, asked)
    crawl.scrape.settings["download"]["max_bytes"] = 1000
    crawl.scrape.write()
    done = crawl.download()
    assert done.code == 2
    assert "name another --to" in done.err.splitlines()[-1]
    crawl.scrape.settings["download"]["max_bytes"] = 1 << 20
    crawl.scrape.write()


def test_staged_shards_go_when_the_collection_is_done_with_them_and_not_on_hold(crawl):
    signed = ("--by", "A. Name", "--why", "examined")
    purge = ("download", "--config", crawl.scrape.config, "--to", crawl.staged, "--purge-staging")
    shards = sorted(path.stem for path in (crawl.staged / "shards").glob("*.tar"))
    assert len(shards) > 1
    assert call(*purge).code == 2
    assert call(*purge, *signed).out == f"destroyed 0 staged shards; left: {len(shards)}\n"
    done = call("run", crawl.scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    home = Collection(crawl.scrape.collection)
    home.holds.write_text(f'[[hold]]\nshard = "{shards[0]}"\nuntil = 2999-01-01\nby = "A. Name"\n')
    assert call(*purge, *signed).out == f"destroyed {len(shards) - 1} staged shards; left: 1\n"
    assert {path.stem for path in (crawl.staged / "shards").iterdir()} == {shards[0]}
    gone = {path.name for path in read_destroyed(home)}
    assert gone == {f"{one}.{kind}" for one in shards[1:] for kind in ("tar", "parquet")}
    assert call(*purge, *signed).out == "destroyed 0 staged shards; left: 1\n"
    assert call("verify", crawl.scrape.collection).code == 0
    assert crawl.download().out == crawl.done.out


def test_what_the_collection_has_withheld_is_not_requested_again_whoever_leads_there(tmp_path):
    with PictureServer() as server:
        caps = {"allow_hosts": [server.place], "host_rate": 100000}
        scrape = Scrape.make(tmp_path, download=caps)
        about = json.dumps({"url": server.url("/ok/was withheld")}).encode()
        write_tar(scrape.shards / "00.tar", [("a.jpg", jpeg(1)), ("a.json", about)])
        write_list(
            tmp_path / "lists" / "known.csv", [("md5", take_digests(jpeg(1)).md5), ("pdq", bytes(range(32)))]
        )
        assert call("run", scrape.config).code == 0
        write_list(tmp_path / "lists" / "known.csv", [("md5", b"9" * 16), ("pdq", bytes(range(32)))])
        urls = [server.url(path) for path in ("/ok/was%20withheld", "/%6fk/was withheld#f", "/ok/other")]
        for hop in range(3):
            urls.append(server.url(f"/to?h={hop}&u={quote(urls[-1 if hop else 0], safe='')}"))
        pq.write_table(pa.table({"url": urls}), tmp_path / "urls.parquet")
        done = call("download", tmp_path / "urls.parquet", "--config", scrape.config, "--to", tmp_path / "staged")
        assert done.code == 0, done.err
        rows = pq.read_table(tmp_path / "staged" / "rows.parquet").to_pylist()
        assert [row["failure"] for row in rows] == ["listed", "duplicate", None, "listed", "listed", "listed"]
        assert not any("withheld" in path for path in server.asked if path.startswith("/ok"))
        assert any(path.startswith("/to") for path in server.asked)
