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
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

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
MOST_NAMES = 10_000
"""That are listed: no index has them, so somebody else put them there. Which is the newest is not known then."""
CLOCKS_DIFFER_SECONDS = 300
"""What was decided later than that from now was not."""
MOST_BYTES = 32 << 10
"""Of a document."""
MOST_PROMOTED = 2
"""What is to serve, and what it would go back to."""
MOST_REJECTED = 50
MOST_CHARACTERS = 1024
"""Of a text: what a status may hold."""
_LONG = 99_999
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
    if known is None:
        return OutcomesResult(written=written, unusable=unusable, too_many=True)
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
    return f"{_digits(at)}-{hashlib.sha256(data).hexdigest()[:16]}"


def _digits(at: str) -> str:
    return re.sub("[^0-9T]", "", at)


def _latest() -> str:
    """Names and times of what could have been decided begin with no more than this."""
    now = datetime.fromtimestamp(time.time() + CLOCKS_DIFFER_SECONDS, UTC)
    return f"{now:%Y%m%dT%H%M%S}"


@dataclass(frozen=True, slots=True)
class _Listing:
    """Keys of documents, the newest first. `future`: how many names are of a time to come. `whole`: there are no
    more."""

    keys: list[str]
    future: int
    whole: bool


def _list(store: Store, layout: Layout) -> _Listing:
    """Of what is dated in the future nothing is read and nothing removed: it must push out nothing that is true."""
    listed = list(islice(store.list(layout.outcome()), MOST_NAMES + 1))
    found = ((item.key, layout.parse(item.key)) for item in listed[:MOST_NAMES])
    names = [(owned.name, key) for key, owned in found if owned is not None and owned.kind is Kind.OUTCOME]
    latest = _latest()
    keys = [key for name, key in sorted(names, reverse=True) if name[: len(latest)] <= latest]
    return _Listing(keys, len(names) - len(keys), len(listed) <= MOST_NAMES)


def _forget_oldest(store: Store, layout: Layout) -> None:
    """What cannot be removed stays. Of a part of the names, too, all but the newest are none of the newest."""
    try:
        old = _list(store, layout).keys[MOST_KEPT:]
        kept = store.delete_many(old) if old else {}
        why = next(iter(kept.values()), "")
    except (TaskError, OSError) as error:
        why = str(error)
    if why:
        _log.warning("old outcomes stay", extra={"why": why[:300]})


def _known(store: Store, layout: Layout) -> tuple[list[Outcome] | None, int]:
    """What was said last of each revision, the newest first, and how many documents say nothing of use. None: there are
    more than are listed, and the last word may be among the others."""
    listing = _list(store, layout)
    if not listing.whole:
        _log.warning("there are too many outcomes", extra={"most": MOST_NAMES, "below": layout.outcome()})
        return None, listing.future
    said, unusable = [], listing.future
    if listing.future:
        _log.warning("outcomes of a time to come are left out", extra={"names": listing.future})
    for key in listing.keys[:MOST_KEPT]:
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
    """Raises ValueError for what is too long, no outcome, one of another index, or of a time to come."""
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
    if _digits(one.at)[: len(latest := _latest())] > latest:
        raise ValueError(f"it is of {one.at}, which is to come")
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
