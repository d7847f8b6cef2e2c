"""Inputs that are no tars here: what is wrong with one is said, and what is right is as if it were a local tar."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call, message
from layouts import SHARD, as_parquet, as_tar, drawings
from scrapes import Scrape, outputs, to_toml

from manifests.collection import Collection
from manifests.commits import ExamineCommit


def configure(scrape: Scrape, *items: dict[str, object], name: str = "collection", **settings: object) -> Path:
    config = scrape.root / f"{name}.toml"
    whole = {**scrape.settings, "collection": str(scrape.root / name), "input": list(items), **settings}
    config.write_text(to_toml(whole))
    return config


def write_rows(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


IMAGES = pa.array([drawings()[0].image], pa.binary())


@pytest.mark.parametrize(
    ("columns", "named", "words"),
    [
        ({"picture": IMAGES}, {}, ["a column 'image or jpg", "found picture", "[[input]] columns.image"]),
        ({"jpg": IMAGES}, {"columns.url": "href"}, ["a column 'href' for url", "found jpg", "columns.url"]),
        ({"jpg": IMAGES, "url": [7]}, {}, ["column 'url'", "expected text", "found int64", "columns.url"]),
        ({"jpg": ["text"]}, {"columns.image": "jpg"}, ["column 'jpg'", "bytes, or a struct", "found string"]),
        ({"jpg": IMAGES, "key": [0.5]}, {}, ["column 'key'", "text or whole numbers", "found double"]),
    ],
)
def test_a_column_that_is_not_as_it_should_be_is_named_and_nothing_is_committed(tmp_path, columns, named, words):
    scrape = Scrape.make(tmp_path)
    table = write_rows(tmp_path / "in/b.parquet", **columns)
    done = call("examine", configure(scrape, {"shards": str(table), "kind": "parquet", **named}), "--workers", 1)
    assert done.code == 4
    assert all(word in message(done) for word in ["shard b", str(table), *words]), done.err
    assert not Collection(scrape.collection).committed_shards()


def test_files_of_two_schemas_are_told_apart_and_the_others_are_done(tmp_path):
    scrape = Scrape.make(tmp_path)
    write_rows(tmp_path / "in/a.parquet", jpg=IMAGES)
    write_rows(tmp_path / "in/b.parquet", picture=IMAGES)
    config = configure(scrape, {"shards": "in/*.parquet"})
    done = call("run", config, "--workers", 1)
    assert done.code == 4
    assert "b.parquet" in message(done)
    assert "a.parquet" not in message(done)
    assert list(Collection(scrape.collection).committed_shards()) == ["a"]
    second = {"shards": "in/b.parquet", "columns.image": "picture"}
    done = call("run", configure(scrape, {"shards": "in/a.parquet"}, second), "--workers", 1)
    assert done.code == 0, done.err
    assert [row["action"] for row in scrape.decisions()] == ["KEEP", "KEEP"]


def test_columns_for_what_is_no_table_are_refused(tmp_path):
    scrape = Scrape.make(tmp_path)
    done = call("run", configure(scrape, {**as_tar(tmp_path / "in"), "columns.url": "href"}))
    assert done.code == 2
    assert f"'{SHARD}.tar' is taken for a tar" in message(done)


def test_rows_of_a_row_group_that_cannot_be_read_are_missing_samples_and_refuse_the_release(tmp_path):
    scrape = Scrape.make(tmp_path)
    as_parquet(tmp_path / "in")
    table = tmp_path / "in" / f"{SHARD}.parquet"
    chunk = pq.read_metadata(table).row_group(1)
    column = next(c for c in map(chunk.column, range(chunk.num_columns)) if c.path_in_schema == "jpg")
    data = bytearray(table.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    table.write_bytes(data)
    config = configure(scrape, {"shards": str(table)})
    done = call("run", config, "--workers", 1)
    assert done.code == 4
    assert "row group 1 of the table cannot be read to its end" in message(done)
    reasons = [row["reason"] for row in scrape.decisions()]
    assert len(reasons) == 12
    assert reasons.count("fault:missing_from_shard") == 5
    as_parquet(tmp_path / "again")
    table.write_bytes((tmp_path / "again" / table.name).read_bytes())
    done = call("run", config, "--workers", 1)
    assert done.code == 0, done.err
    assert len(scrape.decisions(2)) == 12


def test_a_table_that_is_none_is_damage(tmp_path):
    scrape = Scrape.make(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").write_bytes(b"PAR1 no table")
    done = call("run", configure(scrape, {"shards": "in/a.parquet", "kind": "parquet"}), "--workers", 1)
    assert done.code == 4
    assert "the table is not readable Parquet" in message(done)


def test_a_folder_counts_links_and_stray_files_and_follows_none(tmp_path):
    scrape = Scrape.make(tmp_path)
    place = tmp_path / "in/photos"
    (place / "deep.er").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(drawings()[1].image)
    (place / "one.two.jpg").write_bytes(drawings()[0].image)
    (place / "one.two.txt").write_text("a caption")
    (place / "deep.er/b.JPG").write_bytes(drawings()[2].image)
    (place / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (place / "notes.pdf").write_bytes(b"%PDF")
    done = call("run", configure(scrape, {"shards": "in/photos"}), "--workers", 1)
    assert done.code == 0, done.err
    found = {row["key"]: (row["action"], row["reason"]) for row in scrape.decisions()}
    assert found == {
        "one%2Etwo": ("KEEP", None),
        "deep.er/b": ("KEEP", None),
        "link": ("QUARANTINE", "fault:link_member"),
        "notes": ("QUARANTINE", "fault:unjudged_member"),
    }
    (place / "notes.pdf").write_bytes(b"%PDX")
    done = call("run", scrape.root / "collection.toml", "--workers", 1)
    assert done.code == 4
    assert "is not what was examined" in message(done)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with ranges and entity tags, and notes what was asked for."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        self.asked.append((self.command, self.path))
        path = Path(self.directory) / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, part = path.read_bytes(), self.headers.get("Range")
        first, last = part.removeprefix("bytes=").split("-") if part else ("0", str(len(data) - 1))
        piece = data[int(first) : int(last) + 1]
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(data)}"')
        if part:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder that a web server serves: its path, its URL, and what was asked for."""
    folder = tmp_path_factory.mktemp("served")
    handler = type("Noting", (Handler,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_tar_on_a_web_server_gives_the_bytes_of_a_local_one_and_is_fetched_no_more_than_it_must(tmp_path, served):
    folder, url, asked = served
    scrape = Scrape.make(tmp_path)
    item = as_tar(folder / "crawl")
    assert call("run", configure(scrape, item, name="local"), "--workers", 1).code == 0
    config = configure(scrape, {"shards": f"{url}/crawl/{{00007..00008}}.tar"}, name="far")
    done = call("run", config, "--workers", 1)
    assert done.code == 4
    assert "shard 00008: the shard is missing" in message(done)
    config = configure(scrape, {"shards": f"{url}/crawl/{{00007..00007}}.tar"}, name="remote")
    done = call("run", config, "--workers", 1)
    assert done.code == 0, done.err
    assert outputs(tmp_path / "remote", scrape.identity) == outputs(tmp_path / "local", scrape.identity)
    assert ExamineCommit.read(Collection(tmp_path / "remote").commit(SHARD)).sidecar_sha256 is not None
    assert not list((tmp_path / "remote/journal/spool").iterdir())
    left = tmp_path / "remote/journal/spool/.tmp-fetched-0123456789abcdef"
    left.write_bytes(b"of a process that died where files must have names")
    asked.clear()
    assert call("run", config, "--workers", 1).code == 0
    assert not [path for verb, path in asked if verb == "GET"]
    assert not left.exists()
    assert call("verify", tmp_path / "remote", "--deep").code == 0
    assert [path for verb, path in asked if verb == "GET"] == ["/crawl/00007.tar", "/crawl/00007.parquet"]


def test_an_object_that_changed_since_is_refused(tmp_path, served):
    folder, url, _ = served
    scrape = Scrape.make(tmp_path)
    as_tar(folder / "other")
    config = configure(scrape, {"shards": f"{url}/other/00007.tar"})
    assert call("run", config, "--workers", 1, "--dry-run").code == 0
    assert not scrape.collection.exists()
    assert call("run", config, "--workers", 1).code == 0
    with (folder / "other/00007.tar").open("ab") as file:
        file.write(b"\0" * 512)
    done = call("run", config, "--workers", 1)
    assert done.code == 4
    assert f"{url}/other/00007.tar or its sidecar is not what was examined" in message(done)


def test_a_glob_over_tables_in_a_store(tmp_path):
    scrape = Scrape.make(tmp_path)
    as_parquet(tmp_path / "in")
    files = fsspec.filesystem("memory")
    files.pipe("/tables/00007.parquet", (tmp_path / "in/00007.parquet").read_bytes())
    item = {"shards": "memory://tables/*.parquet"}
    done = call("run", configure(scrape, item), "--workers", 1)
    assert done.code == 2
    assert 'expected kind = "tar", "parquet"' in message(done)
    done = call("run", configure(scrape, {**item, "kind": "parquet"}), "--workers", 1)
    assert done.code == 0, done.err
    assert len(scrape.decisions()) == 12
    done = call("run", configure(scrape, {"shards": "memory://tables/*.tar"}), "--workers", 1)
    assert done.code == 2
    assert "no object below memory://tables fits the pattern" in message(done)


def test_a_url_with_a_signature_is_refused_and_not_repeated(tmp_path):
    scrape = Scrape.make(tmp_path)
    for text in ("https://example.invalid/a.tar?X-Signature=hidden", "https://me:hidden@example.invalid/a.tar"):
        done = call("run", configure(scrape, {"shards": text}))
        assert done.code == 2
        assert "example.invalid" in message(done)
        assert "hidden" not in message(done)
