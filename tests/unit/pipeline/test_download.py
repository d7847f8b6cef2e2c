"""What may be contacted, whose turn it is, and what becomes of a table without a row to fetch."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import tomllib

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import call
from scrapes import Scrape, to_toml

from pipeline.config import load_config
from pipeline.download.crawl import crawling
from pipeline.download.fetched import RETRYABLE, Failure, FetchError, failure_of_error, failure_of_status, state_of
from pipeline.download.gateway import HostTurns
from pipeline.download.orders import first_orders, order_path, settle_rows, write_orders
from pipeline.download.settings import DownloadConfig
from pipeline.download.targets import Wall, is_public, read_target
from pipeline.errors import ConfigError
from pipeline.screen_tables import find_tables
from pipeline.url_screen import UrlScreen

PRIVATE = """
0.0.0.0
10.1.2.3 100.64.0.1 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1
198.18.0.1 203.0.113.7 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::ffff:8.8.8.8 ::ffff:127.0.0.1
::8.8.8.8 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:808:808::1 3fff::1 fc00::1 fd12::1 fe80::1
fe80::1%eth0 fec0::1 ff02::1 4000::1
"""
PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 2606:4700:4700::1111 2a00:1450:4001::1"
ADDRESSES = [(one, False) for one in PRIVATE.split()] + [(one, True) for one in PUBLIC.split()]


def failure(text: str, base: str = "") -> Failure | None:
    try:
        read_target(text, base)
    except FetchError as error:
        return error.failure
    return None


@pytest.mark.parametrize(("address", "expected"), ADDRESSES)
def test_only_addresses_of_the_public_internet_are_public(address, expected):
    assert is_public(address) is expected


def test_a_socket_is_made_for_a_checked_address_only_whatever_was_resolved_before():
    wall = Wall(["127.0.0.1:8080", "pictures.test:443"])
    wall.check("8.8.8.8", 80, "rebinding.test")  # resolves to a public address first
    for address, port in (("127.0.0.1", 80), ("10.0.0.1", 443), ("127.0.0.1", 443)):
        with pytest.raises(FetchError, match="private_address"):
            wall.make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)))
    with pytest.raises(FetchError, match="private_address"):
        wall.check("127.0.0.1", 8080, "rebinding.test")  # allowed under its own name only
    wall.check("10.0.0.1", 443, "pictures.test")
    for address, port in (("127.0.0.1", 8080), ("10.0.0.1", 443), ("8.8.8.8", 80)):
        wall.make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))).close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a.test/x", None),
        ("https://a.test:8443/x?q=ä b", None),
        ("http://8.8.8.8/", None),
        ("http://[2606:4700:4700::1111]/", None),
        *((one, Failure.BAD_URL) for one in ("", "x", "ftp://a.test/", "javascript:1", "//a.test/x", "http://", "http:///x")),
        ("http://2130706433/", Failure.BAD_URL),
        ("http://127.1/", Failure.BAD_URL),
        ("http://0x7f.0.0.1/", Failure.BAD_URL),
        ("http://0177.0.0.1/", Failure.BAD_URL),
        ("http://a.0x1/", Failure.BAD_URL),
        ("http://[::1/", Failure.BAD_URL),
        ("http://a.test:0/", Failure.BAD_URL),
        ("http://a.test:99999/", Failure.BAD_URL),
        ("http://a.test/" + "x" * 20_000, Failure.BAD_URL),
        ("http://a.test/\udc80", Failure.BAD_URL),
        ("http://u@a.test/", Failure.CREDENTIALS),
        ("http://:p@a.test/", Failure.CREDENTIALS),
    ],
)  # fmt: skip
def test_a_url_is_read_or_refused(text, expected):
    assert failure(text) is expected


def test_a_redirect_is_read_against_the_url_that_gave_it_and_sent_in_one_form():
    base = "http://a.test/b/c?d"
    assert str(read_target("../é f?x y#z", base).url) == "http://a.test/%C3%A9%20f?x%20y"
    assert read_target("//B.test:80", base).host == "b.test"
    assert str(read_target("?e", base).url) == "http://a.test/b/c?e"
    assert failure("http://[::1", base) is Failure.BAD_URL
    assert failure("file:///etc/passwd", base) is Failure.BAD_URL


def test_failures_are_told_apart_and_only_what_passes_is_retried():
    key = aiohttp.client_reqrep.ConnectionKey("h", 1, True, None, None, None, None)
    refused = OSError(111, "refused")
    assert failure_of_error(aiohttp.ClientConnectorError(key, refused)) is Failure.CONNECT
    assert failure_of_error(aiohttp.ClientConnectorDNSError(key, refused)) is Failure.DNS
    assert failure_of_error(aiohttp.ClientConnectorSSLError(key, ssl.SSLError(1, "x"))) is Failure.TLS
    assert failure_of_error(TimeoutError()) is Failure.TIMEOUT
    assert failure_of_error(aiohttp.ClientPayloadError()) is Failure.BROKEN
    statuses = {200: None, 206: None, 304: "http_other", 401: "http_4xx", 404: "http_404", 410: "http_404"}
    statuses |= {429: "http_429", 502: "http_5xx"}
    assert {status: failure_of_status(status) for status in statuses} == statuses
    assert all(state_of(one) == "failed" for one in RETRYABLE)
    assert {state_of(one) for one in Failure} == {"refused", "duplicate", "failed"}
    assert Failure.HTTP_404 not in RETRYABLE


def test_a_host_is_asked_in_turn_and_forgotten_when_nobody_asks_it():
    async def ask() -> tuple[int, list[float]]:
        turns, at_once, most, times = HostTurns(50.0, 2), 0, 0, []

        async def one(host: str) -> None:
            nonlocal at_once, most
            async with turns.turn(host):
                times.append(asyncio.get_running_loop().time())
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0.05)
                at_once -= 1

        times.append(asyncio.get_running_loop().time())
        await asyncio.gather(*(one("a.test") for _ in range(6)))
        assert most == 2
        await asyncio.sleep(0.1)
        return len(turns._hosts), times

    left, times = asyncio.run(ask())
    assert left == 0
    assert max(times) - times[0] >= 5 / 50 - 0.01  # not before its turn; a late one says nothing


def test_orders_hold_every_row_once_in_shards_of_one_table(tmp_path):
    for name, count in (("a", 25), ("b", 8)):
        urls = [f"http://{name}.test/{n % 23}" for n in range(count)]
        pq.write_table(pa.table({"url": urls, "n": range(count)}), tmp_path / f"{name}.parquet", row_group_size=4)
    pq.write_table(pa.table({"url": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    scrape = load_config(Scrape.make(tmp_path / "scrape").config)
    tables = find_tables([tmp_path / f"{name}.parquet" for name in ("a", "b", "empty")], scrape.screen)
    rows = settle_rows(tables, UrlScreen([]))
    assert rows.tables == (("a", 25), ("b", 8), ("empty", 0))
    assert np.flatnonzero(rows.first != np.arange(33)).tolist() == [23, 24]
    assert rows.first[[23, 24]].tolist() == [0, 1]
    (tmp_path / "orders").mkdir()
    for _ in range(2):  # the second time they are found alike
        assert write_orders(first_orders(tables, rows), tmp_path / "orders", 0, 10) == 4
    found = [pq.read_table(order_path(tmp_path / "orders", n)) for n in range(4)]
    assert [len(one) for one in found] == [10, 10, 3, 8]
    assert [number for one in found for number in one["number"].to_pylist()] == [*range(23), *range(25, 33)]
    assert found[3]["columns"][0].as_py() == {"n": 0}


def test_a_screen_whose_rows_are_all_refused_is_downloaded_without_a_request(tmp_path):
    scrape = Scrape.make(tmp_path, screen={"policy": "table.toml"})
    (tmp_path / "table.toml").write_text(
        'name = "t"\nrequired = ["url.usable"]\n'
        '[[rule]]\nid = "l"\nwhen = "list.csam.exact >= 1"\naction = "SEAL"\n'
    )
    pq.write_table(pa.table({"url": [None, "x", "ftp://a.test/"]}), tmp_path / "urls.parquet")
    where = ("--config", scrape.config, "--to")
    assert call("download", tmp_path / "screened", *where, tmp_path / "staged").code == 2
    done = call("screen", tmp_path / "urls.parquet", *where, tmp_path / "screened", "--workers", 1)
    assert done.code == 0, done.err
    done = call("download", tmp_path / "screened", *where, tmp_path / "staged")
    assert (done.code, done.out.split()[:8]) == (0, ["in", "0", "kept", "0", "not", "kept", "0", "faults"]), (
        done.err
    )
    done = call("download", tmp_path / "urls.parquet", *where, tmp_path / "other")
    assert (done.code, done.out.split()[:7]) == (0, ["in", "3", "kept", "0", "not", "kept", "3"]), done.err
    (tmp_path / "half").mkdir()
    assert call("download", tmp_path / "half", *where, tmp_path / "third").code == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("allow_hosts", ["127.0.0.1"]), ("allow_hosts", ["http://a.test:80"]), ("agent", "A b"), ("host_rate", 0)],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, key, value):
    scrape = Scrape.make(tmp_path)
    scrape.config.write_text(to_toml({**tomllib.loads(scrape.config.read_text()), "download": {key: value}}))
    with pytest.raises(ConfigError, match=key):
        load_config(scrape.config)


@pytest.mark.parametrize("unsafe", [False, True])
def test_headers_that_refuse_are_heeded_unless_that_is_switched_off(tmp_path, monkeypatch, unsafe):
    sent = []

    class Child:
        pid, stdin = (
            1 << 30,
            type("Pipe", (), {"write": staticmethod(sent.append), "close": staticmethod(lambda: None)}),
        )

        def wait(self) -> None:
            return None

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
    environments = []
    monkeypatch.setattr("subprocess.Popen", lambda *_, **about: environments.append(about["env"]) or Child())
    settings = DownloadConfig(unsafe_ignore_opt_out=unsafe)
    with crawling(tmp_path, tmp_path / "log", settings):
        options = json.loads(sent[0])[1]
    assert options["disallowed_header_directives"] == ([] if unsafe else None)
    assert bool(settings.unsafe()) is unsafe
    assert (options["disable_all_reencoding"], options["resize_mode"], options["retries"]) == (True, "no", 0)
    assert not [name for name in environments[0] if name.lower().endswith("_proxy") and name != "no_proxy"]
