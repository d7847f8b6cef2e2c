"""The index of a tar: every member, or a word about what is wrong."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manifests.records import FaultKind
from manifests.tars import index_tar, read_member

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = st.text("abz09._-/é", min_size=1, max_size=12).filter(
    lambda name: not name.startswith("/") and not name.endswith("/") and ".." not in name and "//" not in name
)
LONG_NAMES = st.builds(lambda stem, times: f"{stem * times}.jpg", st.text("abcé", min_size=1), st.integers(40, 90))
MEMBERS = st.lists(st.tuples(NAMES | LONG_NAMES, st.binary(max_size=1500)), min_size=1, max_size=6)
LAW = settings(max_examples=150, deadline=None)


def archive(members, kind: int = tarfile.GNU_FORMAT, records: int = 1024) -> bytes:
    """The bytes of a tar, ending after two zero blocks."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        size = tar.offset
    return out.getvalue()[: size + records]


def read_all(path) -> list[tuple[str, bytes]]:
    with path.open("rb") as file:
        return [(member.name, read_member(file, member)) for member in index_tar(path).members]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tars") / "a.tar"


@LAW
@given(members=MEMBERS, kind=st.sampled_from(sorted(FORMATS)))
def test_a_whole_tar_gives_every_member_and_its_bytes_in_order(place, members, kind):
    assume(kind != "ustar" or all(len(name.encode()) < 100 for name, _ in members))
    place.write_bytes(archive(members, FORMATS[kind]))
    index = index_tar(place)
    assert index.damage is None
    assert [member.fault for member in index.members] == [None] * len(members)
    assert read_all(place) == members


@LAW
@given(members=MEMBERS, kind=st.sampled_from(["gnu", "pax"]), share=st.floats(0, 1, exclude_max=True))
def test_of_a_tar_cut_anywhere_what_is_whole_is_found_and_what_is_not_is_told(place, members, kind, share):
    data = archive(members, FORMATS[kind])
    place.write_bytes(data[: int(len(data) * share)])
    index = index_tar(place)
    whole = [member for member in index.members if member.fault is None]
    found = read_all(place)[: len(whole)]
    assert [member.fault for member in index.members[len(whole) :]] in ([], [FaultKind.CUT_SHORT])
    assert found == members[: len(found)]
    assert index.damage is not None or found == members


@LAW
@given(members=MEMBERS, place_in=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), data=st.data())
def test_a_changed_byte_of_a_header_is_damage_or_changes_nothing(place, members, place_in, flip, data):
    good = bytearray(archive(members))
    place.write_bytes(good)
    starts = [member.offset - 512 for member in index_tar(place).members]
    at = data.draw(st.sampled_from(starts)) + int(512 * place_in)
    good[at] ^= flip
    place.write_bytes(good)
    index = index_tar(place)
    assert index.damage is not None or read_all(place) == members


@settings(max_examples=300, deadline=None)
@given(members=MEMBERS, junk=st.binary(min_size=1, max_size=700), share=st.floats(0, 1))
def test_no_bytes_make_it_raise_or_run_for_ever(place, members, junk, share):
    data = archive(members)
    at = int(len(data) * share)
    place.write_bytes(data[:at] + junk + data[at + len(junk) :])
    index_tar(place)


def header(name: str, size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header whose size field says anything, with a good checksum."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def negative(size: int) -> bytes:
    return size.to_bytes(12, "big", signed=True)


@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.SYMTYPE, b"Z", tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE]
)
@pytest.mark.parametrize("size", [-1, -512, -1024, -(1 << 40)])
@pytest.mark.parametrize("first", [True, False])
def test_a_negative_size_is_damage_and_no_endless_loop(place, kind, size, first):
    good = b"" if first else archive([("a.jpg", b"x")], records=0)
    place.write_bytes(good + header("b.jpg", negative(size), kind) + bytes(1024))
    index = index_tar(place)
    assert index.damage is not None
    assert [member.name for member in index.members if member.fault is None] == ([] if first else ["a.jpg"])


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [512, 1 << 62, (1 << 88) - 1])
@pytest.mark.parametrize("first", [True, False])
def test_a_long_name_that_is_not_all_there_is_damage(place, kind, size, first):
    good = b"" if first else archive([("a.jpg", b"x")], records=0)
    place.write_bytes(good + header("b.jpg", b"\x80" + size.to_bytes(11, "big"), kind) + b"x" * 100)
    index = index_tar(place)
    assert index.damage is not None
    assert [member.name for member in index.members] == ([] if first else ["a.jpg"])


def test_a_size_beyond_the_file_is_a_cut_member(place):
    place.write_bytes(header("a.jpg", b"77777777777\0") + b"x" * 512)
    index = index_tar(place)
    assert [(member.name, member.size, member.fault) for member in index.members] == [
        ("a.jpg", 512, FaultKind.CUT_SHORT)
    ]
    assert index.damage == "the archive ends inside its last member"


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"x" * 600, "not a tar archive (compressed archives must be unpacked first)"),
        (b"x", "not a tar archive (compressed archives must be unpacked first)"),
        (bytes(100), "not a tar archive (compressed archives must be unpacked first)"),
        (bytes(1024), None),
        (bytes(10240), None),
        (archive([("a.jpg", b"x")], records=0), "the archive has no end mark; members may be missing"),
        (archive([("a.jpg", b"x")], records=512), None),
        (archive([("a.jpg", b"x")]) + bytes(100_000), None),
    ],
)
def test_what_is_no_archive_and_what_ends_early_is_told(place, data, damage):
    place.write_bytes(data)
    assert index_tar(place).damage == damage


def test_a_second_archive_behind_the_first_is_damage(place):
    first = archive([("a.jpg", b"x")])
    place.write_bytes(first + archive([("b.jpg", b"y")]))
    index = index_tar(place)
    assert [member.name for member in index.members] == ["a.jpg"]
    assert index.damage == "unreadable bytes after byte 1024; members may be missing"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../a.jpg", FaultKind.UNSAFE_NAME),
        ("a/../../b.jpg", FaultKind.UNSAFE_NAME),
        ("/a.jpg", FaultKind.UNSAFE_NAME),
        ("//a.jpg", FaultKind.UNSAFE_NAME),
        ("..", FaultKind.UNSAFE_NAME),
        ("..\\..\\a.jpg", FaultKind.UNSAFE_NAME),
        ("a\udcff.jpg", FaultKind.BAD_NAME),
        ("../a\udcff.jpg", FaultKind.UNSAFE_NAME),
        ("./a.jpg", None),
        ("a..b.jpg", None),
        ("...jpg", None),
        ("dir.with.dots/a.jpg", None),
    ],
)
@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_names_that_climb_or_are_not_utf8_are_faults_and_never_raise(place, name, fault, kind):
    place.write_bytes(archive([(name, b"x"), ("z.jpg", b"y")], FORMATS[kind]))
    index = index_tar(place)
    assert (index.members[0].fault, index.members[1].fault, index.damage) == (fault, None, None)
    index.members[0].name.encode("utf-8")
    index.members[0].key.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("000.jpg", "000", "jpg"),
        ("a/b.c/000.tar.gz", "a/b.c/000", "tar.gz"),
        ("000.JPG", "000", "jpg"),
        ("noextension", "noextension", ""),
        (".hidden", ".hidden", ""),
        ("./000.jpg", "./000", "jpg"),
        ("a b\nc.jpg", "a b\nc", "jpg"),
    ],
)
def test_key_and_extension_part_at_the_first_dot_of_the_base_name(place, name, key, extension):
    place.write_bytes(archive([(name, b"x")]))
    (member,) = index_tar(place).members
    assert (member.key, member.extension, member.name) == (key, extension, name)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_what_is_no_file_is_a_fault_without_bytes(place, kind):
    place.write_bytes(header("a.jpg", b"00000000000\0", kind) + archive([("b.jpg", b"y")]))
    index = index_tar(place)
    assert [(member.fault, member.size) for member in index.members] == [(FaultKind.LINK_MEMBER, 0), (None, 1)]


def test_a_folder_is_no_member(place):
    place.write_bytes(header("folder/", b"00000000000\0", tarfile.DIRTYPE) + archive([("folder/b.jpg", b"y")]))
    assert [member.name for member in index_tar(place).members] == ["folder/b.jpg"]


def test_a_sparse_member_is_a_fault(place):
    body = header("a.jpg", b"00000001000\0", tarfile.GNUTYPE_SPARSE)
    place.write_bytes(body + bytes(512) + archive([("b.jpg", b"y")]))
    index = index_tar(place)
    assert [(member.name, member.fault) for member in index.members] == [
        ("a.jpg", FaultKind.LINK_MEMBER),
        ("b.jpg", None),
    ]


def test_a_file_that_cannot_be_read_is_an_error_and_no_empty_archive(tmp_path):
    with pytest.raises(FileNotFoundError):
        index_tar(tmp_path / "none.tar")
