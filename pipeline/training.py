"""Train a head on the stored embeddings of a collection and a file of labels, and write it with its model card.

Owns joining labels to embeddings, the order of the steps, the card's record. Leaves the fits to
`classifiers.heads.train`, what is measured to `classifiers.heads.evaluate`, the words to `pipeline.model_card`.

- Withheld samples have no embedding here, so they are never read: their labels count as without embedding.
- One picture counts once, however many samples hold its bytes.
- Nothing is written unless everything converged; the head last, so that a card of another head shows by its digest.
- No message and no output holds a key, URL, caption or time: messages name lines of the file instead.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from classifiers.heads.evaluate import SPLITS, Record, group_rates, rates, reliability, split_rows
from classifiers.heads.mlp import Layer, MlpHead, encode_head
from classifiers.heads.train import TrainingError, calibrate, train
from classifiers.signals import Scores
from classifiers.weights import WeightsError, check_name
from manifests import durable, schema
from manifests.collection import Collection
from manifests.commits import ExamineCommit
from manifests.features import ShardFeatures, decode_features
from manifests.records import SCHEMA_VERSION, digest_json, readable_json
from pipeline.errors import ConfigError
from pipeline.model_card import LIMITS, card_text
from pipeline.plan import read_recorded

KINDS = ("logistic", "mlp")
MIN_ROWS_PER_CLASS = 10
MAX_GROUPS = 100
_HEADERS = ("key,label", "key,label,group", "key,label,source", "key,label,group,source")
_GROUP = re.compile(r"(?:\w[\w .+-]{0,63})?")

Label = dict[str, str]  # one line of the file: `line`, `key`, `label`, and `group`, `source` where it has them


@dataclass(frozen=True, slots=True, repr=False)
class LabelledRows:
    """The pictures that have a label and an embedding, each once: embeddings float16 N x D, the others N.

    parts: 0, 1, 2 for fit, calibrate, test. labelled: how many labels found an embedding.
    """

    embeddings: NDArray[np.float16]
    truths: NDArray[np.bool_]
    groups: NDArray[np.str_]
    parts: NDArray[np.int64]
    labelled: int

    def counts(self, group: str = "") -> list[Record]:
        """Return how many pictures of each label every part has, of one group or (`""`) of all."""
        found = []
        for part, name in enumerate(SPLITS):
            of = self.truths[(self.parts == part) & (self.groups == group if group else True)]
            found.append({"group": group, "part": name, "label_0": int((~of).sum()), "label_1": int(of.sum())})
        return found


def train_head(
    collection: Collection, file: Path, *, name: str, out: Path, kind: str, hidden: int, l2: float, seed: int
) -> Record:
    """Train a head on the labels in `file`, write it and `OUT.card.json`, `OUT.card.md`; return the card.

    Raises:
        ConfigError: the labels are not usable or too few, or the fit does not converge.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind: expected {' or '.join(KINDS)}, found {kind!r}")
    plan = read_recorded(collection.examine_plan) or {}
    if not plan["embedder"]:
        raise ConfigError(f"{collection.root}: was examined without an embedder; there is nothing to learn from")
    labels, labels_sha256 = read_labels(file)
    rows = _join(collection, plan, labels, file, seed)
    fit, held, test = (rows.parts == part for part in range(3))
    stand_in, width = bool(plan["stamps"]), hidden if kind == "mlp" else 0
    try:
        check_name(name, stand_in=stand_in)
        plain = train(rows.embeddings[fit], rows.truths[fit], l2=l2, hidden=width, seed=seed)
        layers, scale, bias = calibrate(plain, rows.embeddings[held], rows.truths[held])
    except (WeightsError, TrainingError) as error:
        raise ConfigError(f"no head can be made of {file}: {error}") from None
    data = encode_head(layers, name=name, embedder_name=plan["embedder"], stand_in=stand_in)
    sha256 = hashlib.sha256(data).hexdigest()

    def score(layers: tuple[Layer, ...]) -> Scores:
        return MlpHead(name, sha256, plan["embedder"], layers, stand_in).score(rows.embeddings[test])

    scores, truths, groups = score(layers), rows.truths[test], rows.groups[test]
    wrong = (scores >= 0.5) != truths
    card = {
        **{"schema": SCHEMA_VERSION, "stamps": plan["stamps"]},
        "head": {"name": name, "file": out.name, "sha256": sha256, "stand_in": stand_in},
        "data": {
            **{"examine_plan": digest_json(plan), "embedder": plan["embedder"], "labels_sha256": labels_sha256},
            **{"labels": len(labels), "without_embedding": len(labels) - rows.labelled},
            **{"pictures": len(rows.truths), "rows": rows.counts()},
            "groups": [row for group in sorted({*rows.groups.tolist()} - {""}) for row in rows.counts(group)],
        },
        "method": {
            **{"kind": kind, "hidden": width, "l2": l2, "seed": seed, "class_weights": "equal"},
            "software": [f"numpy=={np.__version__}", f"scipy=={scipy.__version__}"],
        },
        "calibration": {
            **{"kind": "platt", "scale": scale, "bias": bias},
            **{"before": reliability(score(plain), truths), "after": reliability(scores, truths)},
        },
        "test": {"rates": rates(scores, truths), "groups": group_rates(scores, truths, groups)},
        "known_errors_at_0.5": {"missed": int(wrong[truths].sum()), "false_positives": int(wrong[~truths].sum())},
        "limits": LIMITS,
    }
    durable.make_folder(out.parent)
    for suffix, content in (
        (".card.json", readable_json(card)),
        (".card.md", card_text(card).encode()),
        ("", data),
    ):
        durable.write(out.with_name(out.name + suffix), content, replace=True)
    return card


def read_labels(path: Path) -> tuple[dict[str, Label], str]:
    """Read a CSV with the header `key,label`, then `group` or `source`: keys are `shard/key`, labels 0 or 1.

    Returns:
        The labels by key, and the SHA-256 of the file.

    Raises:
        ConfigError: naming file and line.
    """
    labels: dict[str, Label] = {}
    try:
        data = path.read_bytes()
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restkey="", restval=None)
        header = ",".join(reader.fieldnames or ())
        if header not in _HEADERS:
            raise ConfigError(f"{path}: line 1: expected one of the headers {'; '.join(_HEADERS)}")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if "" in row or None in row.values() or row["label"] not in ("0", "1"):
                raise ConfigError(f"{where}: expected {header}, with a label of 0 or 1")
            if not _GROUP.fullmatch(row.get("group", "")):
                raise ConfigError(f"{where}: a group is a short name of letters, digits, spaces and . + - _")
            row["line"] = str(reader.line_num)
            if (first := labels.setdefault(row["key"], row)) is not row:
                raise ConfigError(f"{where}: this key is labelled twice; line {first['line']} has it too")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    if len({label.get("group") for label in labels.values()}) > MAX_GROUPS:
        raise ConfigError(f"{path}: holds more than {MAX_GROUPS} groups; what belongs together is a source")
    return labels, hashlib.sha256(data).hexdigest()


def _join(
    collection: Collection, plan: dict[str, Any], labels: dict[str, Label], file: Path, seed: int
) -> LabelledRows:
    """Return one row for each picture with a label, dealt to fit, calibrate and test.

    Raises:
        ConfigError: features of another plan or width, a picture with both labels, too few pictures of a label.
    """
    parts, keys, digests = [np.zeros((0, plan["dims"]), np.float16)], [], []
    for shard in sorted({*collection.committed_shards()} & {key.partition("/")[0] for key in labels}):
        features = _read_features(collection, plan, shard)
        usable = features.embedded & np.isfinite(features.embedding).all(axis=1)
        names = [f"{shard}/{key}" for key in features.strings("key")]
        rows = [row for row, key in enumerate(names) if key in labels and usable[row]]
        parts.append(features.embedding[rows])
        keys += [names[row] for row in rows]
        digests += [features.digests["sha256"][row].tobytes().hex() for row in rows]
    found = [labels[key] for key in keys]
    truths = np.array([label["label"] == "1" for label in found], np.bool_)
    _, first, same = np.unique(np.array(digests, np.str_), return_index=True, return_inverse=True)
    for row in np.flatnonzero(truths != truths[first][same]):
        lines = f"lines {found[first[same[row]]]['line']} and {found[row]['line']}"
        raise ConfigError(f"{file}: {lines}: the same picture has different labels; settle which is right")
    sources = [label.get("source") or key for key, label in zip(keys, found, strict=True)]
    sides = split_rows(digests, (keys, sources), seed=seed)
    groups = np.array([label.get("group", "") for label in found], np.str_)
    joined = LabelledRows(np.concatenate(parts)[first], truths[first], groups[first], sides[first], len({*keys}))
    short = [row for row in joined.counts() if min(row["label_0"], row["label_1"]) < MIN_ROWS_PER_CLASS]
    if short:
        text = "; ".join(
            f"{row['part']}: {row['label_0']} of label 0, {row['label_1']} of label 1" for row in short
        )
        raise ConfigError(
            f"{file}: expected {MIN_ROWS_PER_CLASS} pictures of each label in each part, found {text}. "
            f"{joined.labelled} of {len(labels)} labels have an embedding (a key is shard/key); label more pictures"
        )
    return joined


def _read_features(collection: Collection, plan: dict[str, Any], shard: str) -> ShardFeatures:
    commit = ExamineCommit.read(collection.commit(shard))
    path = collection.examined / commit.features.name
    table = schema.read(path, sha256=commit.features.sha256, without=("url", "caption", "metadata"))
    features = decode_features(table)
    if (commit.plan, features.embedding.shape[1]) != (digest_json(plan), plan["dims"]):
        raise ConfigError(
            f"{path}: holds embeddings of another plan or width than {collection.examine_plan.name} names "
            f"({plan['dims']}); restore the collection"
        )
    return features
