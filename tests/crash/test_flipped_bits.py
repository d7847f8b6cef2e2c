"""Bits flipped, files cut or exchanged anywhere in a finished collection with a log: `verify` always names a file.

Not in what only a key can open (sealed files), nor in the journal, which no record binds.
"""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path
from random import Random

import pytest
from in_process import call
from scrapes import Scrape, write_plain_shards

from manifests.commits import RecordError
from manifests.verify import verify

pytestmark = pytest.mark.crash


def test_every_changed_file_is_refused_by_name(tmp_path: Path, crash_rounds: int) -> None:
    scrape = Scrape.make(tmp_path / "scrape")
    write_plain_shards(scrape.shards, 3, 4)
    outside = scrape.root / "outside"
    vkey = call("keys", "new", outside / "key", "--origin", "example.org/log").out.split()[-1]
    about = {"origin": "example.org/log", "key": "outside/key", "checkpoint_store": "outside/checkpoint"}
    scrape.settings["log"] = about
    scrape.write()
    done = call("run", scrape.config, "--workers", 1)
    assert done.code == 0, done.err
    home, random, missed = scrape.collection, Random(7), []
    assert verify(home, public_key=vkey, since=outside / "checkpoint").problems == []
    every = [path for path in sorted(home.rglob("*")) if path.is_file()]
    paths = [path for path in every if path.relative_to(home).parts[0] not in ("sealed", "journal")]
    for turn in range(40 * crash_rounds):
        path = paths[turn % len(paths)]
        good = path.read_bytes()
        bit = random.randrange(len(good) * 8)
        changed = [good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :]]
        changed.append(good[: random.randrange(len(good))])
        other = paths[(turn + 1 + random.randrange(len(paths) - 1)) % len(paths)]
        changed.append(other.read_bytes())
        for data in changed:
            if data != good:
                path.write_bytes(data)
                try:
                    found = verify(home, public_key=vkey, since=outside / "checkpoint").problems
                except RecordError as error:  # the file by which a folder is known for a collection
                    found = [str(error)]
                except Exception as error:  # noqa: BLE001 - a traceback is what must never be
                    missed.append(f"{path.relative_to(home)}: {traceback.format_exception(error)[-2:]}")
                    continue
                if not any(str(home) in text for text in found):
                    missed.append(f"{path.relative_to(home)}: bit {bit}")
        path.write_bytes(good)
    assert missed == []
    assert verify(home, public_key=vkey).problems == []
    shutil.rmtree(home)
