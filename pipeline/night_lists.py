"""What arrived for a night: files that patterns match, and lists among them that are not in the store yet.

- A delivery is known by its bytes, whatever its name: by the versions in the store and the notes of nights.
"""

from __future__ import annotations

import glob
from pathlib import Path

from classifiers.blocklists.algorithms import ListError
from classifiers.blocklists.importers.registry import files_of
from pipeline.config import Config
from pipeline.errors import ConfigError, InputError
from pipeline.lists.imports import delivery_of, import_list
from pipeline.lists.store import ListStore
from pipeline.night_state import NightState
from pipeline.nightly_config import NightlyListConfig


def arrived(base: Path, pattern: str, what: str) -> list[Path]:
    """Return what a pattern matches, by name; `what` names it in errors.

    Raises:
        InputError: the folder that it begins with is not there, as where a disk is not mounted.
    """
    whole = base / pattern
    folder = next(one for one in whole.parents if not glob.has_magic(str(one)))
    if not folder.is_dir():
        raise InputError(f"{what}: the folder {folder} is not there; make or mount it")
    return [Path(name) for name in sorted(glob.glob(str(whole)))]


def import_arrived(base: Path, config: Config, state: NightState) -> int:
    """Import the deliveries of lists that were not imported before, and return how many there were.

    Raises:
        ConfigError, InputError: as `import_list`; those before the one that fails are imported.
    """
    assert config.lists.store is not None  # `load_config` refuses lists without a store
    store = ListStore(config.lists.store, config.lists.key, config.lists.unsafe_plain_lists)
    try:
        return sum(_import(base, item, store, state) for item in config.nightly.lists)
    except ListError as error:
        raise ConfigError(str(error)) from None


def _import(base: Path, item: NightlyListConfig, store: ListStore, state: NightState) -> int:
    noted = state.notes.imported.setdefault(item.id, [])
    stored = {store.manifest(item.id, number).delivery for number in store.versions(item.id)}
    count = 0
    for path in arrived(base, item.files, f"[[nightly.lists]] {item.id}"):
        delivery = delivery_of(map(state.digest, files_of([path])))
        if delivery not in {*noted, *stored}:
            import_list(
                store, item.id, [path], item.about(), format_name=item.format, algorithm=item.algorithm,
                category_map=item.categories, effect=item.effect, tolerance=item.tolerance,
            )  # fmt: skip
            count += 1
        if delivery not in noted:
            noted.append(delivery)
            state.keep()
    return count
