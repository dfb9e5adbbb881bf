"""Reads the master keys of internal requests from the folder where the kubelet mounts their Secret."""

from __future__ import annotations

from pathlib import Path

from vectorindex_operator.core.internal_keys import InternalKeys
from vectorindex_searcher.contract import MASTER_KEY_CHARACTERS

CURRENT, PREVIOUS = "key", "previous"
_READ_CHARACTERS = 4096


def read_keys(folder: str) -> InternalKeys:
    """The keys in `folder`; none for an empty name. Raises ValueError naming file and remedy, never a value.

    A folder that was named and has no key is refused: the operator would quietly go on without signing.
    """
    if not folder:
        return InternalKeys()
    current = _read(Path(folder) / CURRENT)
    previous = Path(folder) / PREVIOUS
    return InternalKeys(current, _read(previous) if previous.exists() else "")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            key = file.read(_READ_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--internal-key-dir: {path} cannot be read ({type(error).__name__}): give the Secret the key "
            f"{path.name!r} with one line of text, for example from `openssl rand -hex 32`"
        ) from None
    if len(key) < MASTER_KEY_CHARACTERS:
        raise ValueError(
            f"--internal-key-dir: {path} has {len(key)} characters: at least {MASTER_KEY_CHARACTERS} are needed, "
            "for example from `openssl rand -hex 32`"
        )
    return key
