"""Folders of images: img2dataset's `files` layout, and any folder with subfolders.

Owns what a file's name says: its key is its path in the folder without the extension, which begins at the last
dot. Files with one key are one sample, so a caption or JSON beside an image is its own.

- Every file counts, whatever it is. A link or device is a member that could not be read, and is not followed.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pipeline.ingest.input_files import is_plain, names_below
from pipeline.ingest.sample_tar import SampleTar, name_key
from pipeline.input_config import ColumnsConfig


def read_folder(path: Path, columns: ColumnsConfig, tar: SampleTar) -> None:
    """Write every file below a folder into `tar`, in order of names.

    Raises:
        OSError: a file cannot be read, or becomes shorter meanwhile.
    """
    for name in names_below(path):
        extension = PurePosixPath(name).suffix
        key = name_key(name.removesuffix(extension))
        if not is_plain(path / name):
            tar.add_link(key, extension[1:])
            continue
        with (path / name).open("rb") as file:
            tar.add(key, extension[1:], os.fstat(file.fileno()).st_size, file)
