"""How one key that signs a log follows another: a statement that both have signed.

Owns its text, a signed note of one line in canonical JSON, and following it. Leaves logging it to others.
"""

from __future__ import annotations

import json

from manifests.audit.entries import decode_entry
from manifests.audit.note import NoteKey, open_note, sign_note
from manifests.audit.tiles import LogError, Tiles
from manifests.records import SCHEMA_VERSION, FilesError, canonical_json
from manifests.signers import Signer, SignerError, vkey


def rotation(old: Signer, new: Signer) -> bytes:
    """Return the statement that `new` follows `old`, a note signed by both.

    Raises:
        SignerError: it is the same key or name, or one does not sign.
    """
    if old.public_key == new.public_key or old.name != new.name:
        raise SignerError("a key is followed by another key of the same log")
    return sign_note(_text(*(vkey(one.name, one.public_key) for one in (old, new))), old, new)


def read_rotation(data: bytes) -> tuple[str, str]:
    """Return the verifier keys, old and new, of a rotation statement, once both have signed it.

    Raises:
        SignerError: it is none, or was changed.
    """
    try:
        stated = json.loads(data.partition(b"\n")[0])
        old, new = stated["old"], stated["new"]
        keys = [NoteKey.parse(old), NoteKey.parse(new)]
        text, signed = open_note(data, keys)
    except (FilesError, ValueError, TypeError, LookupError) as error:
        raise SignerError(f"not a rotation statement ({error}); `shardscrub keys rotate` writes them") from None
    if text != _text(old, new) or len(signed) != len(keys) or keys[0].name != keys[1].name:
        raise SignerError("not a rotation statement of two keys of one log that both have signed")
    return old, new


def signing_keys(log: Tiles, trusted: NoteKey) -> list[tuple[int, NoteKey]]:
    """Return the keys of a log, oldest first, each with the number of the entry from which on it signs.

    They are those that lead to the trusted key, and from it to later ones, each by a statement that both signed.

    Raises:
        LogError: an entry cannot be read, or the statements do not lead from key to key, through the trusted one.
        SignerError: a statement does not verify.
    """
    keys = [(0, trusted)]
    for number, data in enumerate(log.all_entries()):
        if b'"kind":"key-rotation"' in data:
            stated = read_rotation(decode_entry(data, number)["statement"].encode())
            old, new = map(NoteKey.parse, stated)
            keys = [*(keys if len(keys) > 1 else [(0, old)]), (number, new)]
            if keys[-2][1] != old:
                raise LogError(f"{log.folder}: entry {number} says that a key follows another than the last one")
    if trusted not in (key for _, key in keys):
        raise LogError(
            f"{log.folder}: the key that is trusted is none that signed this log, says its record of keys"
        )
    return keys


def _text(old: str, new: str) -> str:
    stated = {
        "schema": SCHEMA_VERSION,
        "kind": "key-rotation",
        "origin": old.partition("+")[0],
        "old": old,
        "new": new,
    }
    return f"{canonical_json(stated).decode()}\n"
