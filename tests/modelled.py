"""Stand-in models and the shipped policy over them, for a scrape."""

from __future__ import annotations

import json

import stand_ins
from scrapes import ROOT, Scrape

from classifiers.embedders.folder import embedder_name, read_folder


def add_models(
    scrape: Scrape, *, seed: int = 3, size: str = "tiny", precision: str = "fp32", compiled: bool = False
) -> None:
    """Give a scrape an embedder, two heads, and the policy `separation` reading them."""
    root, name = scrape.root, "tiny-stand-in@1"
    sha256 = stand_ins.write_stand_in_clip(root / "model", seed=seed, size=size)
    folder = read_folder(root / "model", name=name)
    full_name = embedder_name(name, sha256, folder, precision, compiled=compiled)
    heads = []
    policy = (ROOT / "pipeline" / "policies" / "separation.toml").read_text()
    for number, (shipped, head) in enumerate(
        (("laion-nsfw-l14@1", "sexual-stand-in@1"), ("minor-zero-shot@1", "minor-stand-in@1"))
    ):
        file = f"{head}.safetensors"
        digest = stand_ins.write_stand_in_head(
            root / file, name=head, embedder_name=full_name, dims=folder.dims, seed=seed + number
        )
        heads.append({"file": file, "sha256": digest})
        assert shipped in policy
        policy = policy.replace(shipped, head)
    (root / "policy.toml").write_text(policy)
    scrape.settings |= {
        "unsafe_stand_in_models": True,
        "embedder": {"name": name, "folder": "model", "sha256": sha256, "batch": 5},
        "head": heads,
        "policy": {"file": "policy.toml"},
    }
    scrape.write()


AROUND_POLICY = """
name = "listed"
required = ["list.csam.exact"]
[[rule]]
id = "listed"
when = "list.csam.exact >= 1"
action = "SEAL"
[[rule]]
id = "other"
when = "list.other.exact >= 1"
action = "REMOVE"
[around]
near_copies = 31
neighbours = 0.999
max_neighbours = 3
"""


def members(samples: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Return the members of a tar of pictures, each with a URL."""
    return [
        member
        for key, data in samples.items()
        for member in ((f"{key}.jpg", data), (f"{key}.json", json.dumps({"url": f"u:{key}"}).encode()))
    ]
