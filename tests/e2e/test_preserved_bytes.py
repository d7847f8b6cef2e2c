"""`unsafe_preserve_bytes`: bytes of sealed images are in sealed files and nowhere else; without it nowhere."""

import hashlib
import json

import pytest
from in_process import call
from scrapes import Scrape, jpeg, write_list, write_tar


@pytest.mark.parametrize("preserve", [False, True])
def test_sealed_images_are_copied_only_on_demand_and_into_the_sealed_file(tmp_path, preserve):
    made = Scrape.make(tmp_path)
    images = {"listed": jpeg(1), "later": jpeg(2), "kept": jpeg(3)}
    write_tar(made.shards / "00.tar", [(f"{key}.jpg", data) for key, data in images.items()])
    made.settings["sealed"]["unsafe_preserve_bytes"] = preserve
    made.settings["release"]["shards"] = False
    made.write()
    entries = [("md5", hashlib.md5(images["listed"]).digest()), ("pdq", b"7" * 32)]
    for more in ([], [("md5", hashlib.md5(images["later"]).digest())]):  # at examine, and at a later settle
        write_list(made.root / "lists" / "known.csv", entries + more)
        done = call("run", made.config, "--workers", 1)
        assert done.code == 0, done.err
        assert ("unsafe_preserve_bytes" in done.err) == preserve
    rows = {row["key"]: row for row in made.sealed()}
    assert rows.keys() == {"listed", "later"}
    for key, row in rows.items():
        assert row.get("bytes") == (images[key] if preserve else None)
        assert ("bytes" in row) == preserve
    for path in made.collection.rglob("*"):
        if path.is_file():
            assert all(images[key][:200] not in path.read_bytes() for key in rows)
    summary = json.loads((made.collection / "releases" / "0002" / "summary.json").read_bytes())
    assert ("unsafe_preserve_bytes" in summary["stamps"]) == preserve
    assert call("verify", made.collection).code == 0
