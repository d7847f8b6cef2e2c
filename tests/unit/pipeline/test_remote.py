"""Remote places: whole objects, one winner, retries with a bound, and errors that tell nothing secret."""

import hashlib
import io
import threading
from dataclasses import replace

import pytest
from object_store import BUCKET, KEY_ID, SECRET, Fault, serve

from pipeline.errors import ExitCode
from pipeline.remote import Remote, RemoteConfig, RemoteError, RemoteWarning, is_remote, place_of


@pytest.fixture(scope="module")
def server():
    with serve() as store:
        yield store


@pytest.fixture
def store(server):
    server.faults.clear()
    for name in server.names():
        server.drop(name)
    return server


@pytest.fixture
def remote(store):
    return Remote.connect(f"s3://{BUCKET}/x", RemoteConfig(store.endpoint, region="us-east-1", attempts=3))


@pytest.fixture(params=["s3", "memory"])
def place(request, store):
    if request.param == "memory":
        return Remote.connect(f"memory://{request.node.originalname}/x")
    return Remote.connect(f"s3://{BUCKET}/x", RemoteConfig(store.endpoint, region="us-east-1"))


def test_a_url_is_told_from_a_path():
    assert all(map(is_remote, ("s3://b/x", "gs://b", "https://h/x.tar", "memory://b", "S3://b")))
    assert not any(map(is_remote, ("shards/{0..9}.tar", "/a/b", "C:/a", "a:b", "")))
    assert place_of("https://me:pw@host/x?Signature=abc#f") == "https://host/x"


def test_what_is_put_is_found_and_fetched(place, tmp_path):
    (tmp_path / "big").write_bytes(bytes(range(256)) * 10)
    assert place.put("a/one.tar", tmp_path / "big", if_absent=False)
    assert place.put("a/two.tar", b"2", if_absent=True)
    assert place.put("a/b/three.tar", b"3", if_absent=True)
    assert place.find("a/*.tar") == ["a/one.tar", "a/two.tar"]
    assert place.find() == ["a/b/three.tar", "a/one.tar", "a/two.tar"]
    assert place.state("a/one.tar")[0] == 2560
    assert place.state("a") is None
    assert place.state("a/none") is None
    assert place.read("a/two.tar") == b"2"
    assert place.read("a/none") is None
    digest = place.fetch("a/one.tar", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    place.remove("a/two.tar")
    place.remove("a/two.tar")
    assert place.find("a/*.tar") == ["a/one.tar"]


def test_put_if_absent_has_one_winner_and_the_same_bytes_are_no_loss(place):
    assert place.put("n", b"first", if_absent=True)
    assert place.put("n", b"first", if_absent=True)
    assert not place.put("n", b"other", if_absent=True)
    assert place.read("n") == b"first"


def test_a_swap_needs_the_state_that_was_seen(place):
    place.put("current", b"1", if_absent=True)
    seen = place.state("current")[1]
    assert place.put("current", b"2", if_absent=False, expected=seen)
    assert not place.put("current", b"3", if_absent=False, expected=seen)
    assert place.read("current") == b"2"


def test_of_many_writers_at_one_moment_one_wins(remote):
    barrier, won = threading.Barrier(6), []

    def write(number):
        barrier.wait()
        if remote.put("n", str(number).encode(), if_absent=True):
            won.append(str(number).encode())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert won == [remote.read("n")]


def test_a_store_without_put_if_absent_is_read_back_and_warned_of_once(store):
    config = RemoteConfig(store.endpoint, region="us-east-1", put_if_absent=False)
    remote = Remote.connect(f"s3://{BUCKET}/y", config)
    with pytest.warns(RemoteWarning, match="no put-if-absent"):
        assert remote.put("n", b"first", if_absent=True)
    assert remote.put("m", b"first", if_absent=True)  # a second warning would be an error
    assert not remote.put("n", b"other", if_absent=True)
    assert remote.read("n") == b"first"


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
def test_throttling_and_server_errors_are_tried_again(remote, store, status, code, tmp_path):
    store.faults += [Fault("PUT", "/n", status, code, 2), Fault("GET", "/n", status, code, 2)]
    assert remote.put("n", b"data", if_absent=True)
    remote.fetch("n", tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == b"data"


def test_a_try_of_ours_that_was_carried_out_and_answered_with_an_error_is_no_loss(remote, store):
    store.faults.append(Fault("PUT", "/n", 500, "InternalError", after=True))
    assert remote.put("n", b"data", if_absent=True)
    store.faults.append(Fault("PUT", "/n", 500, "InternalError", after=True))
    assert not remote.put("n", b"other", if_absent=True)


def test_a_broken_read_goes_on_where_it_broke(remote, store, tmp_path):
    data = bytes(range(256)) * (20 << 12)  # 20 MiB: two ranges
    remote.put("n", data, if_absent=True)
    store.requests.clear()
    store.faults.append(Fault("GET", "/n", keep=1000, skip=1))
    remote.fetch("n", tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == data
    assert len([one for one in store.requests if one[0] == "GET"]) == 3


def test_a_multipart_upload_that_breaks_leaves_nothing_to_see(remote, store, tmp_path):
    (tmp_path / "big").write_bytes(bytes(33 << 20))
    store.faults.append(Fault("PUT", "partNumber=2", 500, "InternalError", 99))
    with pytest.raises(RemoteError, match="no answer"):
        remote.put("big", tmp_path / "big", if_absent=True)
    assert store.names() == []
    assert store.uploads() == 0
    store.faults.clear()
    assert remote.put("big", tmp_path / "big", if_absent=True)
    assert not remote.put("big", b"other", if_absent=True)
    assert remote.state("big")[0] == 33 << 20


def test_uploads_of_killed_writers_are_aborted_once_they_are_old(remote, store):
    remote._files.call_s3("create_multipart_upload", Bucket=BUCKET, Key="x/left")
    remote._files.call_s3("create_multipart_upload", Bucket=BUCKET, Key="elsewhere/left")
    assert remote.abort_uploads(older_than_s=1e9) == 0  # the server says 2010 of all
    assert remote.abort_uploads(older_than_s=0) == 1
    assert store.uploads() == 1


@pytest.mark.parametrize(
    ("method", "status", "code", "says", "exit_code"),
    [
        ("GET", 400, "ExpiredToken", "expired; renew", ExitCode.FAILED),
        ("HEAD", 400, "", "expired; renew", ExitCode.FAILED),
        ("GET", 403, "AccessDenied", "may not do this; grant", ExitCode.USAGE),
        ("GET", 403, "InvalidAccessKeyId", "does not know these credentials", ExitCode.USAGE),
        ("GET", 403, "SignatureDoesNotMatch", "does not know these credentials", ExitCode.USAGE),
        (
            "GET",
            503,
            "SlowDown",
            "no answer at http://127.0.0.1:.* in 3 attempts, the last one: SlowDown",
            ExitCode.FAILED,
        ),
    ],
)
def test_a_refusal_says_what_to_do_and_nothing_secret(
    remote, store, method, status, code, says, exit_code, tmp_path
):
    remote.put("n", b"data", if_absent=True)
    store.faults.append(Fault(method, "/n", status, code, 99))
    if method == "HEAD":
        store.faults.append(Fault("GET", "/n", 400, "ExpiredToken", 99))
    with pytest.raises(RemoteError, match=says) as caught:
        remote.fetch("n", tmp_path / "n")
    text = f"{caught.value} {caught.value!r} {remote!r} {caught.value.__cause__} {caught.value.__context__!r}"
    assert caught.value.exit_code == exit_code
    assert f"s3://{BUCKET}/x/n" in str(caught.value)
    assert not any(word in text for word in (SECRET, KEY_ID, "Signature="))
    assert list(tmp_path.iterdir()) == []


def test_no_bucket_no_server_no_credentials_and_no_such_object_are_clear(remote, store, tmp_path, monkeypatch):
    gone = Remote.connect("s3://no-such-bucket/x", remote.config)
    for call in (lambda: gone.find("*"), lambda: gone.read("n"), lambda: gone.put("n", b"", if_absent=True)):
        with pytest.raises(RemoteError, match="there is no such bucket; make it") as caught:
            call()
        assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(RemoteError, match="no such object") as caught:
        remote.fetch("n", tmp_path / "n")
    assert caught.value.exit_code == ExitCode.INPUT
    nowhere = Remote.connect(
        f"s3://{BUCKET}/x", replace(remote.config, endpoint_url="http://127.0.0.1:9", attempts=1)
    )
    with pytest.raises(RemoteError, match=r"no answer at http://127\.0\.0\.1:9 in 1 attempts") as caught:
        nowhere.find("*")
    assert caught.value.exit_code == ExitCode.FAILED
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    nobody = Remote.connect(f"s3://{BUCKET}/x", replace(remote.config, region="eu-west-1"))
    with pytest.raises(RemoteError, match="no credentials were found"):
        nobody.read("n")


@pytest.mark.parametrize("url", [f"s3://{KEY_ID}:{SECRET}@{BUCKET}/x", "https://h/x.tar?X-Amz-Signature=abcdef"])
def test_a_url_with_credentials_is_refused_and_not_repeated(url):
    with pytest.raises(RemoteError, match="leave it out") as caught:
        Remote.connect(url)
    assert not any(word in str(caught.value) for word in (SECRET, KEY_ID, "abcdef"))
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_scheme_that_nothing_speaks_is_refused():
    with pytest.raises(RemoteError, match="nothing here speaks nosuch://"):
        Remote.connect("nosuch://b/x")


def test_bytes_survive_the_way(place, tmp_path):
    data = io.BytesIO(bytes(range(256))).getvalue()
    place.put("n", data, if_absent=False)
    assert place.fetch("n", tmp_path / "n") == hashlib.sha256(data).hexdigest()
