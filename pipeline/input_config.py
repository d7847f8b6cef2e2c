"""The `[[input]]` tables of a configuration: where shards lie, of which kind they are, and how columns are named.

Owns the keys. Leaves to `ingest/` what they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["auto", "tar", "table", "parquet", "files", "folder"]


@dataclass(frozen=True, slots=True)
class ColumnsConfig:
    """Columns of a table that holds images, where they have names of their own; "" is: by the usual names."""

    image: str = ""
    url: str = ""
    caption: str = ""
    key: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class InputConfig:
    """Where shards lie: one tar, table or folder, a glob or a `{000..127}` range, or a list of these.

    optional: a glob may match nothing, as one of a folder that downloads are staged in.
    """

    shards: str | tuple[str, ...]
    prefix: str = ""
    sidecar: Literal["auto", "none"] = "auto"
    kind: Kind = "auto"
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    optional: bool = False
