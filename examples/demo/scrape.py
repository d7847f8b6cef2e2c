"""Downloads the mini-scrape with img2dataset: WebDataset shards of the bytes as served, with sidecar tables.

Run as `python scrape.py URLS.parquet SHARDS ROWS`. The settings are the point, for those of img2dataset by
default re-encode every picture to 256 px with a white border: no digest and hardly any PDQ survives that.
"""

from __future__ import annotations

import os
import sys

# Read when img2dataset is imported, here and in the processes it starts.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


def main(urls: str, shards: str, rows_per_shard: int) -> None:
    """Download every URL of a table with the columns `url` and `caption`; dead links fail, and are recorded."""
    from img2dataset import download  # noqa: PLC0415 - after the environment is set

    download(
        url_list=urls,
        output_folder=shards,
        input_format="parquet",
        output_format="webdataset",
        url_col="url",
        caption_col="caption",
        number_sample_per_shard=rows_per_shard,
        disable_all_reencoding=True,
        resize_mode="no",
        compute_hash="md5",
        extract_exif=False,
        processes_count=2,
        thread_count=1,  # one after the other: samples lie in the order of the table, in every run
        enable_wandb=False,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
