from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from pipeline.starting import write_starter

SMALLEST = 'collection = "c"\n[[input]]\nshards = "a.tar"\n[policy]\nprofile = "lists-only"\n'
LOG = '[log]\norigin = "a"\ncheckpoint_store = "state"\n'


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "scrub.toml"
    path.write_text(text)
    return load_config(path)


def test_paths_are_relative_to_the_file(tmp_path):
    assert load(tmp_path, SMALLEST).collection == tmp_path / "c"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('colection = "x"\n' + SMALLEST, "colection: unknown key; did you mean 'collection'"),
        (SMALLEST + "[decode]\nmax_pixel = 3\n", "decode.max_pixel: unknown key; did you mean 'max_pixels'"),
        (SMALLEST + "[decode]\nmax_pixels = 0\n", "decode.max_pixels: expected 1 to"),
        (SMALLEST + '[decode]\ncpu_s = "ten"\n', "decode.cpu_s: expected int, found text"),
        (SMALLEST + "[decode]\ncpu_s = true\n", "decode.cpu_s: expected int, found true/false"),
        (SMALLEST + '[decode]\nanimated = "all"\n', "decode.animated: expected 'quarantine' | 'first-frame'"),
        (SMALLEST + "[sealed]\nrecipients = 'age1'\n", "sealed.recipients: expected a list, found text"),
        (SMALLEST + '[[list]]\nid = "a"\n', "[[list]] needs [lists] store"),
        (SMALLEST + "[[list]]\nversion = 1\n", "list[0].id: missing"),
        (SMALLEST + "[release]\nmax_fault_share_run = nan\n", "max_fault_share_run: expected 0 to 1"),
        (SMALLEST + "[release]\nresize = -1\n", "release.resize: expected 0 to 65500"),
        (SMALLEST + "[release]\nresize = 512.5\n", "release.resize: expected int, found a number"),
        (SMALLEST + "[release]\nquality = 101\n", "release.quality: expected 1 to 100"),
        ("collection = 'c'\n[policy]\nprofile = 'x'\n", "input: missing"),
        (SMALLEST.replace("lists-only", ""), "[policy] needs either"),
        (SMALLEST + "[members]\ncopied = ['json']\n", "names the extension 'json' twice"),
        (SMALLEST + LOG, "log: needs either `key`, or `signer` and the `public_key`"),
        (SMALLEST + LOG + 'key = "k"\npublic_key = "x"\n', "log: needs either `key`, or `signer` and"),
        (SMALLEST + LOG + 'key = "c/k"\n', "lies in the collection"),
        (SMALLEST + LOG.replace('"a"', '"a b"') + 'key = "k"\n', "log: 'a b': the name of a log"),
        (SMALLEST + LOG + 'signer = ["s"]\npublic_key = "x"\n', "log: 'x': not a verifier key"),
        (
            SMALLEST + LOG + 'key = "k"\n[[log.anchors]]\nkind = "witness"\nurl = "x"\n',
            "needs url, vkey and nothing",
        ),
        (
            SMALLEST + LOG + 'key = "k"\n[[log.anchors]]\nkind = "rfc3161"\nroots = "r"\nurl = "f:"\n',
            "expected http",
        ),
        (
            SMALLEST + LOG + 'key = "k"\n[[log.anchors]]\nkind = "auditor-copy"\nfolder = "c/d"\n',
            "in the collection",
        ),
        (
            SMALLEST + "[dataset]\nname = ''\ndescription = 'd'\nurl = 'u'\nlicense = 'l'\ncreator = 'c'\n",
            "dataset: name:",
        ),
        ("collection = ", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_names_file_key_and_remedy(tmp_path, extra, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load(tmp_path, extra)
    assert "scrub.toml" in str(caught.value)


def test_a_missing_file_points_at_init(tmp_path):
    with pytest.raises(ConfigError, match="shardscrub init"):
        load_config(tmp_path / "none.toml")


def test_every_key_stands_in_the_starter_and_in_the_manual(tmp_path):
    starter = write_starter(tmp_path)[0].read_text()
    manual = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
    for name in key_names(Config):
        assert re.search(rf"\b{name}\b", starter), name
        assert re.search(rf"\b{name}\b", manual), name


def test_the_starter_is_a_configuration(tmp_path):
    assert load_config(write_starter(tmp_path)[0]).policy.file == tmp_path / "policy.toml"
    with pytest.raises(ConfigError, match="nothing is written over"):
        write_starter(tmp_path)


def key_names(kind: type) -> set[str]:
    names = set()
    for item in fields(kind):
        names.add(item.name)
        hint = get_type_hints(kind)[item.name]
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                names |= key_names(inner)
    return names
