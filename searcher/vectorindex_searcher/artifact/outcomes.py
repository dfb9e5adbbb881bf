"""`outcomes`: what was decided about an index's revisions, kept beside their artifacts.

A document is written once, under a name made of its time and its bytes: two clusters that write beside each other never
meet, and a Job that is run again writes nothing. What holds of a revision is what was said of it last. Whoever writes
removes the oldest.

Who may write to the bucket may write here, as he may write a manifest. So what is read is bounded, is of the index that
its prefix names, and of what was promoted only that is answered whose manifest and report are there, byte for byte as
they were then. What a revision is, the operator derives from it anew: its digest must come out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from ..contract import (
    PROMOTED,
    REJECTED,
    RESULT_LIMIT_BYTES,
    Outcome,
    OutcomesResult,
    OutcomesTask,
    pack,
)
from ..errors import ChecksumMismatch, TaskError
from ..storage.store import Role, Store, open_store
from .document import read_document
from .layout import Kind, Layout
from .users import mark_used

MOST_KEPT = 200
MOST_BYTES = 32 << 10
"""Of a document."""
MOST_PROMOTED = 2
"""What is to serve, and what it would go back to."""
MOST_REJECTED = 50
MOST_CHARACTERS = 1024
"""Of a text: what a status may hold."""
_LONG = 999
"""A count that is as long as any."""
_log = logging.getLogger(__name__)


def outcomes(task: OutcomesTask) -> OutcomesResult:
    """Write what the task says, answer what it asks for. Raises TaskError: StoreUnavailable."""
    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity)
    written = _write(store, layout, task.write)
    if not task.restore:
        return OutcomesResult(written=written)
    known, unusable = _known(store, layout)
    return _fitting(restorable(store, layout, task.cluster, known), written, unusable)


def _write(store: Store, layout: Layout, said: Iterable[Outcome]) -> int:
    """How many were not there yet."""
    documents = [(one.at, json.dumps(one.wire(), sort_keys=True).encode()) for one in said]
    written = sum(store.put(layout.outcome(_name(at, data)), data, exclusive=True) for at, data in documents)
    if written:
        _forget_oldest(store, layout)
    return written


def _name(at: str, data: bytes) -> str:
    """Names sort by the time of what was decided."""
    return f"{re.sub('[^0-9T]', '', at)}-{hashlib.sha256(data).hexdigest()[:16]}"


def _forget_oldest(store: Store, layout: Layout) -> None:
    """What cannot be removed stays."""
    try:
        for key in _keys(store, layout)[MOST_KEPT:]:
            store.delete(key)
    except (TaskError, OSError) as error:
        _log.warning("old outcomes stay", extra={"why": str(error)[:300]})


def _keys(store: Store, layout: Layout) -> list[str]:
    """Of the documents, the newest first."""
    found = ((item.key, layout.parse(item.key)) for item in store.list(layout.outcome()))
    return sorted((key for key, owned in found if owned is not None and owned.kind is Kind.OUTCOME), reverse=True)


def _known(store: Store, layout: Layout) -> tuple[list[Outcome], int]:
    """What was said last of each revision, the newest first, and how many documents say nothing of use."""
    said, unusable = [], 0
    for key in _keys(store, layout)[:MOST_KEPT]:
        try:
            said.append(_parse(store.read(key, length=MOST_BYTES + 1), layout))
        except FileNotFoundError:
            continue
        except (ValueError, RecursionError) as error:
            unusable += 1
            _log.warning("an outcome cannot be used", extra={"object": store.describe(key), "why": str(error)[:300]})
    said.sort(key=lambda one: one.at, reverse=True)
    last: dict[str, Outcome] = {}
    for one in said:
        last.setdefault(one.revision, one)
    return list(last.values()), unusable


def _parse(data: bytes, layout: Layout) -> Outcome:
    """Raises ValueError for what is too long, no outcome, or one of another index."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES} bytes")
    try:
        said = json.loads(data)
        if not _can_be_told(said):
            raise ValueError("it holds what no status can: a long text, or a number that is none")
        one = Outcome.read(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    mine = layout.identity
    if (one.identity.namespace, one.identity.name) != (mine.namespace, mine.name):
        raise ValueError(f"it is of {one.identity.namespace}/{one.identity.name}")
    return one


def _can_be_told(said: object) -> bool:
    """Whether the operator can put it into an object: else it would take the whole result for unreadable."""
    if isinstance(said, Mapping):
        return all(_can_be_told(value) for value in said.values())
    if isinstance(said, list):
        return all(_can_be_told(value) for value in said)
    if isinstance(said, str):
        return len(said) <= MOST_CHARACTERS
    return math.isfinite(said) and abs(said) < 2**63 if isinstance(said, int | float) else True


def restorable(store: Store, layout: Layout, cluster: str, known: Sequence[Outcome]) -> list[Outcome]:
    """What an index begins with, in the order of its worth. `known`: the last word on each revision, newest first."""
    good: list[Outcome] = []
    for one in known:
        if one.outcome == PROMOTED and len(good) < MOST_PROMOTED and (sound := _sound(store, layout, cluster, one)):
            good.append(sound)
    return good + [one for one in known if one.outcome == REJECTED][:MOST_REJECTED]


def _sound(store: Store, layout: Layout, cluster: str, one: Outcome) -> Outcome | None:
    """What was promoted, where its artifact is still the one that was; without its report where that is another. None:
    there is no such artifact. Its files are checked by the searchers that load it."""
    if one.build is None:
        return None
    mark_used(store, layout, one.digest, cluster)  # before the manifest is read
    if not _is_there(store, layout.manifest(one.digest), one.build.manifest_sha256):
        _log.warning("the artifact of a promoted revision is gone", extra={"digest": one.digest})
        return None
    report = one.report
    if report is None or not _is_name(report.gate_hash):
        return one.model_copy(update={"report": None})
    there = _is_there(store, layout.report(one.digest, report.gate_hash), report.report_sha256)
    return one if there else one.model_copy(update={"report": None})


def _is_name(text: str) -> bool:
    """Whether it may be a part of a key."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", text) is not None


def _is_there(store: Store, key: str, sha256: str) -> bool:
    """Whether these very bytes lie under the key."""
    if not sha256:
        return False
    try:
        return read_document(store, key, sha256) is not None
    except ChecksumMismatch:
        return False


def _fitting(wanted: Sequence[Outcome], written: int, unusable: int) -> OutcomesResult:
    """The result with as many as a termination message can hold, packed. The first may lose its report, which is then
    read again by the gate's Job."""
    taken: list[Outcome] = []
    for one in wanted:
        bare = one.model_copy(update={"report": None})
        fits = next((form for form in ((one, bare) if not taken else (one,)) if _fits([*taken, form])), None)
        if fits is not None:
            taken.append(fits)
    left_out = len(wanted) - len(taken)
    return OutcomesResult(written=written, found=tuple(taken), left_out=left_out, unusable=unusable)


def _fits(found: Sequence[Outcome]) -> bool:
    result = OutcomesResult(written=_LONG, found=tuple(found), left_out=_LONG, unusable=_LONG)
    return len(pack(json.dumps(result.wire()).encode())) <= RESULT_LIMIT_BYTES
