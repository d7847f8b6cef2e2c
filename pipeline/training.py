"""Fit a head on the stored embeddings of a collection and a file of labels.

Owns joining labels to embeddings. Leaves the fit to `classifiers.heads.train` and the file format to
`classifiers.heads.mlp`. Withheld samples have no embedding here, so they are never read.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.heads.mlp import encode_head
from classifiers.heads.train import LinearHead, train_logistic
from manifests import durable, schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.features import decode_features
from pipeline.errors import ConfigError

_TRUTHS = {"0": False, "1": True}


@dataclass(frozen=True, slots=True)
class HeadFile:
    """A head that was written: its path, its pin, what the fit measured, labels without an embedding, stamps."""

    path: Path
    sha256: str
    trained: LinearHead
    labels: int
    without_embedding: int
    stamps: tuple[str, ...]


def train_head(collection: Collection, labels_file: Path, *, name: str, out: Path, l2: float) -> HeadFile:
    """Fit a logistic head and write it.

    Raises:
        ConfigError: the labels are not usable, or no labelled sample has an embedding.
    """
    record = json.loads(collection.examine_plan.read_bytes())
    if not record["embedder"]:
        raise ConfigError(f"{collection.root}: was examined without an embedder; there is nothing to learn from")
    labels = read_labels(labels_file)
    embeddings, truths = _join(collection, labels)
    if not len(truths):
        raise ConfigError(f"{labels_file}: none of its {len(labels)} keys has an embedding in {collection.root}")
    stand_in = bool(record["stamps"])
    try:
        trained = train_logistic(embeddings, truths, l2=l2)
        data = encode_head((trained.layer,), name=name, embedder_name=record["embedder"], stand_in=stand_in)
    except ValueError as error:
        raise ConfigError(f"{labels_file}: {error}") from None
    durable.make_folder(out.parent)
    durable.write(out, data, replace=True)
    return HeadFile(
        out,
        hashlib.sha256(data).hexdigest(),
        trained,
        len(truths),
        len(labels) - len(truths),
        tuple(record["stamps"]),
    )


def read_labels(path: Path) -> dict[str, bool]:
    """Read a CSV with the header `key,label`; keys are `shard/key`, labels 0 or 1.

    Raises:
        ConfigError: naming file and line.
    """
    labels: dict[str, bool] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != ["key", "label"]:
                raise ConfigError(f"{path}: line 1: expected the header key,label")
            for row in reader:
                if len(row) != 2 or row[1] not in _TRUTHS:
                    raise ConfigError(f"{path}: line {reader.line_num}: expected a key and a label 0 or 1")
                if row[0] in labels:
                    raise ConfigError(f"{path}: line {reader.line_num}: this key is labelled twice")
                labels[row[0]] = _TRUTHS[row[1]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    return labels


def _join(collection: Collection, labels: dict[str, bool]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    parts, truths = [], []
    for shard in collection.committed_shards():
        commit = ExamineCommit.read(collection.commit(shard))
        features = decode_features(
            schema.read(collection.examined / commit.features.name, sha256=commit.features.sha256)
        )
        keys = [f"{shard}/{key}" for key in features.table["key"].to_pylist()]
        rows = [row for row, key in enumerate(keys) if key in labels and features.embedded[row]]
        parts.append(features.embedding[rows])
        truths += [labels[keys[row]] for row in rows]
    embeddings = np.concatenate(parts) if parts else np.zeros((0, 0), np.float16)
    return embeddings, np.array(truths, np.bool_)
