"""The input of a collection, hashed again: is it still what was examined?

Owns that comparison. Finds the files by the configuration that the journal notes.
"""

from __future__ import annotations

from pathlib import Path

from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.verify_release import Report
from pipeline.config import load_config
from pipeline.ingest.shards import find_sources
from pipeline.status import noted_config


def compare_input(root: Path, report: Report) -> None:
    """Compare every shard of the input, and its sidecar, with the digests in its record.

    Raises:
        ConfigError: the noted configuration is not usable, or an input is not there.
    """
    collection = Collection(root)
    path = noted_config(collection)
    sources = {source.name: source for source in find_sources(load_config(path), base=path.absolute().parent)}
    count = 0
    for shard in collection.committed_shards():
        commit = ExamineCommit.read(collection.commit(shard))
        source = sources.get(shard)
        found = (None, None) if source is None else source.opened().digests()
        for digest, recorded in zip(found, (commit.input_sha256, commit.sidecar_sha256), strict=True):
            count += recorded is not None
            if recorded is not None and digest != recorded:
                report.problems.append(f"shard {shard}: its input is missing, or not what was examined")
    report.checked.append(f"{count} files of the input, hashed again")
