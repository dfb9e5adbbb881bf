"""Values out of raw objects, typed and bounded. Whatever stands there, these answer: they never raise.

Built-in kinds are typed by the API server, but annotations, labels, messages and termination messages are whatever
somebody wrote, and one index's nonsense must not end the pass that a rollback waits for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vectorindex_operator.api.timestamps import MOST_UNIX, to_unix

NAME = 253
"""Characters of a name of Kubernetes."""
MESSAGE = 1024
"""Characters of a message that are kept: what an Event may hold."""
ROWS = 1000
"""Items of a list that are looked at."""
COUNT = 2**31 - 1
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")


def table(value: object) -> Mapping[str, Any]:
    """An object; empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def part(value: object, *path: str) -> Mapping[str, Any]:
    """The object at `path` below `value`; empty where there is none."""
    for name in path:
        value = table(value).get(name)
    return table(value)


def rows(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [row for row in value[:ROWS] if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def text(value: object, most: int = MESSAGE) -> str:
    """A text of at most `most` characters; empty where there is none."""
    return value[:most] if isinstance(value, str) else ""


def count(value: object) -> int:
    """A whole number from 0 to COUNT, also where it stands as text (annotations do); 0 where there is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(value, 0), COUNT)


def unix(value: object) -> float | None:
    """Unix seconds of an RFC 3339 time; None where there is none."""
    try:
        seconds = to_unix(value) if isinstance(value, str) and len(value) < 64 else -1.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < MOST_UNIX else None


def reason(value: object, otherwise: str) -> str:
    """A reason as conditions have it, one word of letters and digits, at most 63 of them; else `otherwise`."""
    return value if isinstance(value, str) and _REASON.fullmatch(value) else otherwise


# ---------------------------------------------------------------- metadata


def name(raw: object) -> str:
    return text(part(raw, "metadata").get("name"), NAME)


def label(raw: object, key: str) -> str:
    return text(part(raw, "metadata", "labels").get(key), NAME)


def annotation(raw: object, key: str, most: int = MESSAGE) -> str:
    return text(part(raw, "metadata", "annotations").get(key), most)


def controller(raw: object) -> Mapping[str, Any]:
    """The owner that manages an object. Whoever only wants to be deleted along with ours is not it."""
    owners = rows(part(raw, "metadata").get("ownerReferences"))
    return next((owner for owner in owners if owner.get("controller") is True), {})


def is_owned(raw: object, uid: str) -> bool:
    """Whether what has this uid manages the object. By uid: an earlier object of the same name is somebody else."""
    return bool(uid) and controller(raw).get("uid") == uid


def is_deleting(raw: object) -> bool:
    return bool(part(raw, "metadata").get("deletionTimestamp"))
