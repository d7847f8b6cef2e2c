"""Whom cases wait for: that there is somebody, what tells them of a settle, and that no key of theirs lies here.

Owns the guards and the notice. Leaves sealing to `sealing.py` and `manifests.cases`.

- The notice is written at every close of a policy that can seal: that it is there says nothing.
- A run that can read a recipient's key can read what it seals: it says so loudly, and stamps its outputs.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from manifests import durable
from manifests.cases import recipients_of
from manifests.collection import RESTRICTED_FILE_MODE, Collection
from manifests.records import Action
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.policy import Policy
from pipeline.resolve import READABLE_STAMP, UnsafeWarning

NOTICE = "notice-for-case-owner.txt"
_KEY_NAMES = ("*.key", "*.age-key", "key*.txt")
_MAX_KEY_BYTES = 1 << 16


def _can_seal(policy: Policy) -> bool:
    return any(rule.action == Action.SEAL for rule in policy.rules)


def check_owner(config: Config, policy: Policy) -> None:
    """Refuse a policy that can make cases without a person who takes them.

    Raises:
        ConfigError: role or contact is not said.
    """
    owner = config.sealed
    if _can_seal(policy) and not (owner.case_owner_role.strip() and owner.case_owner_contact.strip()):
        raise ConfigError(
            f"policy {policy.name!r} can make cases (SEAL), and nobody is named to take them; set [sealed] "
            "case_owner_role and case_owner_contact"
        )


def reads_a_recipient(config: Config, folder: Path) -> bool:
    """Look for a recipient's key where `[sealed] identities_at` says, in `folder` and beside the collection.

    What cannot be read holds nothing that this run could read. Warns of the first one found.
    """
    recipients = set(config.sealed.recipients)
    for place in (folder, config.collection.parent, *config.sealed.identities_at):
        for path in (place, *(path for pattern in _KEY_NAMES for path in sorted(place.glob(pattern)))):
            if path.is_file() and os.access(path, os.R_OK):
                with path.open("rb") as file:
                    found = recipients_of(file.read(_MAX_KEY_BYTES).decode(errors="replace"))
                if found & recipients:
                    text = f"{path} opens what this run seals; keep the keys of case owners elsewhere"
                    warnings.warn(f"{READABLE_STAMP}: {text}", UnsafeWarning, stacklevel=2)
                    return True
    return False


def write_notice(collection: Collection, config: Config, policy: Policy, number: int) -> None:
    """Leave word for the case owner that a settle is closed, without a count or a key."""
    if not _can_seal(policy):
        return
    text = (
        f"To the case owner: {config.sealed.case_owner_role}, {config.sealed.case_owner_contact}\n\n"
        f"Settle {number:04d} is closed. This notice stands here after every settle; it does not say whether\n"
        "there is a case. Open its sealed files where your key is:\n\n"
        f"shardscrub cases open sealed/*.{number:04d}.age --identity KEY --out FILE --by NAME --why TEXT "
        "--access-record PATH\n"
    ).encode()
    path = collection.journal / NOTICE
    if not (path.is_file() and path.read_bytes() == text):
        durable.write(path, text, replace=True, mode=RESTRICTED_FILE_MODE)
