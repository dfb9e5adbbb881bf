"""Polls of the source by stable's searchers: what they are told to list, what one is asked, and what it said.

Values and texts only; when a searcher is asked and what follows from its answer is progress/poll.py, and for the
artifact that is asked for with it progress/way_back.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vectorindex_operator.api.v1alpha1 import Live, Place, RevisionSpec, VectorIndexSpec
from vectorindex_operator.core import identity
from vectorindex_searcher.contract import Found, Identity, Location, ResolveTask, SourceLook

SLACK_SECONDS = 5.0
"""By which a listing may be older than what was asked for: answers take their time."""


def told_text(owner: Identity, frozen: RevisionSpec, live: Live) -> str:
    """contract.SOURCE_ENV of a revision's searchers; empty: they are told of no source.

    Where the data is was frozen, how to reach it is live. Rendered into pods: for the same revision and access this
    text must never change, or an upgrade of the operator restarts searchers.
    """
    if frozen.source_poll is None:
        return ""
    queries = frozen.source_poll.queries
    return _text(
        owner,
        frozen.source.reached_by(live.source),
        frozen.artifacts.reached_by(live.artifacts),
        frozen.tombstones.reached_by(live.source).location() if frozen.tombstones else None,
        queries.location() if queries else None,
    )


def wanted_text(owner: Identity, spec: VectorIndexSpec) -> str:
    """The text of searchers that list what the spec says today."""
    deleted = spec.source.deleted()
    tombstones = deleted.location() if deleted else None
    return _text(owner, spec.source.place, spec.artifacts.place, tombstones, identity.queries_below(spec))


def _text(
    owner: Identity, source: Place, artifacts: Place, tombstones: Location | None, queries: Location | None
) -> str:
    task = ResolveTask(
        identity=owner,
        source=source.location(),
        artifacts=artifacts.location(),
        tombstones=tombstones,
        queries=queries,
    )
    return task.task_text(first_release=False)


@dataclass(frozen=True, slots=True)
class SourceQuestion:
    """Ask one searcher whether the source is as it was."""

    revision: str
    pod: str
    address: str
    source: str
    """contract.source_id of what the pod must have been told to list."""
    known: str
    """Fingerprint of the last listing by a Job."""
    after: str
    """Name of that Job, or empty where it is gone: what was heard before another one is of no interest any more."""
    max_age: float
    """Seconds; an older listing is made anew."""
    asks: int = 1
    """Since the source was last heard of, this one included."""
    artifact: str = ""
    """Digest of the artifact that a rollback needs, which is asked for as well; empty: none is."""
    gone: bool = False
    """Whether the status says that it is gone."""


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """What came of a question. `problem`: why nothing did; `unable`: the pod lists no source."""

    look: SourceLook | None = None
    problem: str = ""
    unable: bool = False


class Said(StrEnum):
    """What an answer means."""

    SAME = "Same"
    """The source is as the last Job listed it."""
    CHANGED = "Changed"
    """It is not."""
    UNDER_WAY = "UnderWay"
    """The pod is listing."""
    FAILED = "Failed"
    """It could not list."""
    MISTOLD = "Mistold"
    """It was told to list something else, or is a pod of another revision."""
    UNABLE = "Unable"
    """It lists no source: its image does not know how, or cannot read what it was told."""
    SILENT = "Silent"
    """It gave no answer, or none that makes sense."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer to a question that was asked at unix time `asked_at`. `since`: when the listing it tells of began.

    `able`: whether its image can be asked for an artifact. `found`: what became of the one that was asked for; None:
    none was.
    """

    question: SourceQuestion
    asked_at: float
    said: Said
    since: float
    words: str = ""
    able: bool = False
    found: Found | None = None

    @property
    def news(self) -> bool:
        """Whether something follows from it now."""
        changed = self.found is (Found.PRESENT if self.question.gone else Found.ABSENT)
        return self.said is not Said.SAME or changed


def hear(question: SourceQuestion, asked_at: float, answer: SourceAnswer, now: float) -> Heard:
    """What the answer that came at unix time `now` means. A pod is believed only about what it was told to list."""
    said, words = _meaning(question, answer)
    look = answer.look if said is not Said.MISTOLD else None
    age = answer.look.age_seconds if answer.look is not None else 0.0
    found, why = _found(question, look)
    return Heard(
        question=question,
        asked_at=asked_at,
        said=said,
        since=min(asked_at, now - age),
        words=" ".join(filter(None, (words, why))),
        able=look is not None and look.artifacts,
        found=found,
    )


def _found(question: SourceQuestion, look: SourceLook | None) -> tuple[Found | None, str]:
    """What became of the artifact, and why that is not known. Whatever is not said outright is not known: it never
    means that it is gone."""
    if not question.artifact:
        return None, ""
    said = look.artifact if look is not None else None
    if said is None or said.digest != question.artifact:
        return Found.UNKNOWN, "it does not tell of the artifact"
    if said.found in (Found.PRESENT, Found.ABSENT):
        return Found(said.found), ""
    return Found.UNKNOWN, f"the artifact of {said.digest[:12]}: {said.reason}: {said.message}"


def _meaning(question: SourceQuestion, answer: SourceAnswer) -> tuple[Said, str]:
    look = answer.look
    if look is None:
        return (Said.UNABLE if answer.unable else Said.SILENT), answer.problem
    if (look.revision, look.source) != (question.revision, question.source):
        return Said.MISTOLD, f"it lists {look.source!r} for {look.revision!r}"
    if look.fingerprint and look.age_seconds <= question.max_age + SLACK_SECONDS:
        return (Said.SAME if look.fingerprint == question.known else Said.CHANGED), ""
    if look.under_way:
        return Said.UNDER_WAY, ""
    if look.reason:
        return Said.FAILED, f"{look.reason}: {look.message}"
    return Said.SILENT, "it tells of an old listing only"
