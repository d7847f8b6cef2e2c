"""The table `[release]`. Owns its keys, and the name of what happens to images; leaves doing it to `resize.py`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConfigError

# Counts up whenever our own code would make other bytes of the same pixels; the examine plan names the codecs.
_RECIPE = 1


@dataclass(frozen=True, slots=True)
class ReleaseConfig:
    """What a release holds, and when there is none.

    resize: the most pixels of an image's shorter side in tars, 0 for images as they came. quality: of these JPEGs.
    """

    shards: bool = True
    resize: int = 0
    quality: int = 95
    max_fault_share_shard: float = 0.10
    max_fault_share_run: float = 0.02
    accept_damaged: tuple[str, ...] = ()

    @property
    def encoding(self) -> str:
        """The full name of what images in tars are encoded as; "" where they stay as they came.

        Raises:
            ConfigError: there are no tars.
        """
        if self.resize and not self.shards:
            raise ConfigError("[release] resize is about the images in tars: it needs shards = true, or 0")
        return f"shorter-{self.resize}:jpeg-{self.quality}@{_RECIPE}" if self.resize else ""
