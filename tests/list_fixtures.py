"""Makers of small lists in the formats of records: NCMEC, VICS, StopNCII and Tech Against Terrorism.

All hashes are random. Each maker goes round the kinds of record that its format has, over two files, and states
what must come of them. The makers of the formats of lines and tables are in `list_fixtures_plain`.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from list_fixture import Fixture

from classifiers.blocklists.importers.protocol import ReadOptions

WIDTHS = {"md5": 16, "sha1": 20, "sha256": 32, "pdq": 32}
VICS_2 = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/Default/$metadata#Media"
NCMEC_NAMESPACE = "https://hashsharing.ncmec.org/hashsharing/v2"


class Tally:
    """Random values, and what must come of those that are given away."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.taken = 0
        self.fates: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()

    def lost(self, algorithm: str) -> str:
        """Return a value, in lower-case digits, that must not become a row."""
        return self.random.randbytes(WIDTHS[algorithm]).hex()

    def kept(self, algorithm: str) -> str:
        """Return a value that must become one."""
        self.rows[algorithm] += 1
        return self.lost(algorithm)

    def fixture(self, *paths: Path) -> Fixture:
        """Return what was written."""
        return Fixture(paths, ReadOptions(), self.taken, dict(self.fates), dict(self.rows))


def ncmec_record(
    tag: str, number: int, time: str, fingerprints: Iterable[tuple[str, str]] = (), classification: str = "A1"
) -> str:
    """Return one record of an answer of NCMEC."""
    lines = "".join(f"<{name}>{value}</{name}>\n" for name, value in fingerprints)
    return (
        f'<{tag}><member id="42">Example Member</member><timestamp>{time}</timestamp><id>{number}</id>\n'
        + (f"<classification>{classification}</classification>\n" if classification else "")
        + (f"<fingerprints>{lines}</fingerprints>" if lines else "")
        + f"</{tag}>\n"
    )


def ncmec_page(images: Iterable[str] = (), videos: Iterable[str] = ()) -> str:
    """Return an answer of NCMEC."""
    images, videos = list(images), list(videos)
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        f'<queryResult xmlns="{NCMEC_NAMESPACE}">\n'
        f'<images count="{len(images)}" maxTimestamp="2021-01-09T00:00:00Z">\n{"".join(images)}</images>\n'
        f'<videos count="{len(videos)}" maxTimestamp="2021-01-09T00:00:00Z">\n{"".join(videos)}</videos>\n'
        "</queryResult>"
    )


def write_ncmec(folder: Path, seed: int, records: int) -> Fixture:
    """Write two pages: entries, fingerprints that are not matched, videos, deletions and newer versions."""
    tally = Tally(seed)
    images: tuple[list[str], list[str]] = ([], [])
    videos = []
    old, new = "2021-01-01T09:00:00Z", "2021-01-01T10:30:00.5+01:00"
    for number in range(records):
        here, there = images[number % 2], images[1 - number % 2]
        match number % 7:
            case 0:
                values = [("md5", tally.kept("md5")), ("sha1", tally.kept("sha1").upper()), ("pdna", "cGRuYQ==")]
                here.append(ncmec_record("image", number, old, values))
                tally.taken += 1
            case 1:
                here.append(ncmec_record("image", number, old, [("pdq", tally.kept("pdq"))], classification=""))
                tally.taken += 1
            case 2:
                here.append(ncmec_record("image", number, old, [("netclean", tally.lost("sha1"))]))
                tally.fates["skipped"] += 1
            case 3:
                videos.append(ncmec_record("video", number, old, [("md5", tally.lost("md5"))]))
                tally.fates["skipped"] += 1
            case 4:
                there.append(ncmec_record("deletedImage", number, new))
                here.append(ncmec_record("image", number, old, [("md5", tally.lost("md5"))]))
                tally.fates["withdrawn"] += 2
            case 5:
                there.append(ncmec_record("image", number, new, [("sha1", tally.kept("sha1"))], "B2"))
                here.append(ncmec_record("image", number, old, [("sha1", tally.lost("sha1"))]))
                tally.taken += 1
                tally.fates["superseded"] += 1
            case _:
                there.append(ncmec_record("deletedImage", number, old))
                here.append(ncmec_record("image", number, new, [("md5", tally.kept("md5"))]))
                tally.taken += 1
                tally.fates["superseded"] += 1
    paths = folder / "page-1.xml", folder / "page-2.xml"
    paths[0].write_text(ncmec_page(images[0], videos))
    paths[1].write_text(ncmec_page(images[1]))
    return tally.fixture(*paths)


def vics_record(number: int, **fields: object) -> dict[str, object]:
    """Return a record with the fields that Project VIC's files have; 2.0."""
    common = {"MediaSize": 48_213, "MimeType": "image/jpeg", "DateUpdated": "2021-03-04T05:06:07Z", "Series": None}
    flags = {
        "VictimIdentified": False,
        "OffenderIdentified": False,
        "IsDistributed": True,
        "IsPrecategorized": "false",
    }
    return {"MediaID": number, **common, **flags, "Tags": None, "MediaFiles": [], "Exifs": [], **fields}


def photo_dna(random_: random.Random) -> str:
    """Return 144 random bytes as such files write them."""
    return base64.b64encode(random_.randbytes(144)).decode()


def write_vics(folder: Path, seed: int, records: int) -> Fixture:
    """Write a file of 2.0 and one of cases of 1.3: entries, videos, PhotoDNA alone, and values that are none."""
    tally = Tally(seed)
    files: tuple[list[object], list[object]] = ([], [])
    for number in range(records):
        here = files[number % 2]
        match number % 6:
            case 0 | 1:
                values = {"MD5": tally.kept("md5").upper(), "SHA1": tally.kept("sha1").upper()}
                here.append(vics_record(number, Category=number % 3, **values, PhotoDNA=photo_dna(tally.random)))
                tally.taken += 1
            case 2:
                here.append(vics_record(number, SHA1=tally.kept("sha1"), MD5=None))
                tally.taken += 1
            case 3:
                fields = {"MD5": tally.lost("md5"), "MimeType": "video/mp4", "Category": 1}
                here.append(vics_record(number, **fields))
                tally.fates["skipped"] += 1
            case 4:
                others = [{"HashName": "PhotoDNA", "HashValue": photo_dna(tally.random)}]
                here.append(vics_record(number, Category=2, AlternativeHashes=others))
                tally.fates["skipped"] += 1
            case _:
                here.append(vics_record(number, Category=2, MD5=tally.lost("md5")[1:], SHA1=17))
                tally.fates["rejected"] += 1
    paths = folder / "media.json", folder / "cases.json"
    paths[0].write_text(json.dumps({"@odata.context": VICS_2, "value": files[0]}))
    model = "http://github.com/ICMEC/ProjectVic/DataModels/1.3.xml#Cases"
    case = {"CaseID": "7", "Media": files[1]}
    paths[1].write_text(json.dumps({"odata.metadata": model, "value": [case]}))
    return tally.fixture(*paths)


def stopncii_record(kind: str, value: object, status: str, time_s: float) -> dict[str, object]:
    """Return a record of an answer of StopNCII."""
    return {
        "lastModtimestamp": time_s,
        "hashValue": value,
        "hashStatus": status,
        "caseNumbers": {"case": status},
        "signalType": kind,
    }


def stopncii_page(records: Iterable[object]) -> dict[str, object]:
    """Return an answer of StopNCII."""
    records = list(records)
    return {
        "count": len(records),
        "nextSetTimestamp": 1_625_175_071,
        "hasMoreRecords": False,
        "hashRecords": records,
    }


def write_stopncii(folder: Path, seed: int, records: int) -> Fixture:
    """Write a page and a list of a page: both states that count, hashes taken back, a video's, newer versions."""
    tally = Tally(seed)
    pages: tuple[list[object], list[object]] = ([], [])
    old, new = 1_625_167_804, 1_625_175_071
    for number in range(records):
        here, there = pages[number % 2], pages[1 - number % 2]
        match number % 6:
            case 0 | 1:
                status = ("Active", "Received")[number % 2]
                here.append(stopncii_record("ImagePDQ", tally.kept("pdq"), status, old))
                tally.taken += 1
            case 2:
                here.append(stopncii_record("ImageMD5", tally.kept("md5").upper(), "Active", old))
                tally.taken += 1
            case 3:
                here.append(stopncii_record("VideoMD5", tally.lost("md5"), "Active", old))
                tally.fates["skipped"] += 1
            case 4:
                value = tally.lost("pdq")
                there.append(stopncii_record("ImagePDQ", value, ("Withdrawn", "Deleted")[number % 2], new))
                here.append(stopncii_record("ImagePDQ", value, "Active", old))
                tally.fates["withdrawn"] += 2
            case _:
                value = tally.kept("pdq")
                there.append(stopncii_record("ImagePDQ", value.upper(), "Active", new))
                here.append(stopncii_record("ImagePDQ", value, "Withdrawn", old))
                tally.taken += 1
                tally.fates["superseded"] += 1
    paths = folder / "page.json", folder / "pages.json"
    paths[0].write_text(json.dumps(stopncii_page(pages[0])))
    paths[1].write_text(json.dumps([stopncii_page(pages[1])]))
    return tally.fixture(*paths)


def tat_record(number: int, algorithm: object, value: object, time_s: float, **fields: object) -> dict[str, object]:
    """Return a record of the list of Tech Against Terrorism."""
    common = {"ideology": "islamist", "file_type": "jpg", "deleted": False, "created_on": "2025-03-03 23:05:22,587"}
    return {"hash_digest": value, "algorithm": algorithm, **common, "updated_on": time_s, "id": number, **fields}


def write_tat(folder: Path, seed: int, records: int) -> Fixture:
    """Write a page and a list of records: entries, SHA-512, videos, deletions and newer versions."""
    tally = Tally(seed)
    files: tuple[list[object], list[object]] = ([], [])
    old, new = 1_704_901_040.222779, 1_704_901_040.24492
    for number in range(records):
        here, there = files[number % 2], files[1 - number % 2]
        match number % 6:
            case 0 | 1:
                algorithm = ("pdq", "md5")[number % 2]
                here.append(tat_record(number, algorithm.upper(), tally.kept(algorithm), old))
                tally.taken += 1
            case 2:
                here.append(tat_record(number, "SHA256", tally.kept("sha256"), old, ideology="far-right"))
                tally.taken += 1
            case 3:
                kind = {"algorithm": "SHA512"} if number % 4 == 3 else {"file_type": "mp4"}
                here.append(
                    tat_record(number, **{"algorithm": "MD5", "value": tally.lost("md5"), "time_s": old, **kind})
                )
                tally.fates["skipped"] += 1
            case 4:
                value = tally.lost("md5")
                there.append(tat_record(number, "MD5", value, new, deleted=True))
                here.append(tat_record(number, "MD5", value, old))
                tally.fates["withdrawn"] += 2
            case _:
                there.append(tat_record(number, "PDQ", tally.kept("pdq"), new, ideology=None))
                here.append(tat_record(number, "PDQ", tally.lost("pdq"), old))
                tally.taken += 1
                tally.fates["superseded"] += 1
    paths = folder / "results.json", folder / "list.json"
    page = {"count": 100, "next": None, "previous": None, "checkpoint": "1704901040.2,7", "results": files[0]}
    paths[0].write_text(json.dumps(page))
    paths[1].write_text(json.dumps(files[1]))
    return tally.fixture(*paths)
