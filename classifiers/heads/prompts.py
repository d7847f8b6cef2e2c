"""Prompt files: which words a zero-shot head compares pictures with, from what cosine on.

Owns the files' form and the way from one to a head. Leaves vectors, scores and the head's file to `zero_shot`.

- A file is a name@version with either [[prompt]] tables of text and threshold, or `harmless` and `harmful`, a pair.
- The files beside this one hold general dictionary words alone; where each threshold is from stands in them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from classifiers.embedders.folder import embedder_name, read_folder
from classifiers.heads.zero_shot import encode_zero_shot, make_prompt_vectors
from classifiers.weights import WeightsError

_SHIPPED = {path.stem: path for path in sorted(Path(__file__).with_name("prompts").glob("*.toml"))}
_FORM = "`name` with [[prompt]] tables of `text` and `threshold`, or with the texts `harmless` and `harmful`"


def find_prompts(name: str) -> Path:
    """Return the file that comes with the distribution under a name, else the path of that name.

    Raises:
        WeightsError: there is neither.
    """
    path = _SHIPPED.get(name, Path(name))
    if not path.is_file():
        raise WeightsError(f"{name}: expected a file, or one of {', '.join(_SHIPPED)}; found neither")
    return path


def read_prompts(path: Path) -> tuple[str, tuple[str, ...], tuple[float, ...] | None]:
    """Return the name of a set of prompts, the texts, and the threshold of each, None for a pair.

    Raises:
        WeightsError: it is no such file.
    """
    try:
        file = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not valid TOML: {error}") from None
    match file:
        case {"name": str(name), "harmless": str(harmless), "harmful": str(harmful), **rest} if not rest:
            return name, (harmless, harmful), None
        case {"name": str(name), "prompt": [*tables], **rest} if tables and not rest:
            bars: dict[str, float] = {}
            for number, one in enumerate(tables, 1):
                match one:
                    case {"text": str(t), "threshold": float(b)} if len(one) == 2 and t not in bars and abs(b) <= 1:
                        bars[t] = b
                    case _:
                        raise WeightsError(f"{path}: prompt {number}: expected a new `text`, a cosine `threshold`")
            return name, tuple(bars), tuple(bars.values())
    raise WeightsError(f"{path}: expected {_FORM}; found the keys {', '.join(file)}")


def make_prompt_head(prompts: Path, folder: Path, *, name: str, sha256: str) -> bytes:
    """Return the bytes of a zero-shot head: a file of prompts, read by the text tower of a pinned model folder.

    Args:
        prompts: the file of prompts, which names the head.
        folder: as for `OpenClipEmbedder`.
        name: the model's `name@version`, as the configuration has it.
        sha256: the pin of the folder.

    Raises:
        WeightsError: the prompts or the folder are not usable, or not the pinned ones.
        ValueError: a prompt is too long for the tower.
    """
    head, texts, thresholds = read_prompts(prompts)
    vectors = make_prompt_vectors(folder, texts, name=name, sha256=sha256)
    clip = read_folder(folder, name=name)
    made_for = embedder_name(name, sha256, clip, "fp32")
    return encode_zero_shot(vectors, thresholds, name=head, embedder_name=made_for, stand_in=clip.stand_in)
