"""What the dashboard says: a row for each index, and all there is about one. It puts together what other verbs say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.observation import IndexView, RevisionView
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import raw
from vectorindex_operator.reconcile.views import index_view
from vectorindex_plugin.exits import EndedError
from vectorindex_plugin.facts import charts, decisions, jobs
from vectorindex_plugin.facts.charts import ChartFacts, ShadowFacts
from vectorindex_plugin.facts.command_lines import LineFacts
from vectorindex_plugin.facts.decisions import DecisionFacts
from vectorindex_plugin.facts.index import IndexFacts, RowFacts
from vectorindex_plugin.facts.jobs import EventFacts, JobFacts
from vectorindex_plugin.facts.points import FrontierFacts
from vectorindex_plugin.facts.proof import ProofFacts
from vectorindex_plugin.facts.revision import RevisionFacts
from vectorindex_plugin.facts.timeline import TimelineFacts
from vectorindex_plugin.seen import Seen
from vectorindex_plugin.tones import Tone, tone

MOST_DOTS = 12
"""Revisions in the sparkline of a row."""


@dataclass(frozen=True, slots=True)
class DotFacts:
    """One revision in a sparkline. `recall`: None where it was not measured."""

    revision: str
    phase: str
    tone: Tone
    recall: float | None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A row of the board: that of `list`, with why it stands there, and its revisions from the oldest to the newest."""

    row: RowFacts
    tone: Tone
    why: str
    waits: str
    since: str
    dots: tuple[DotFacts, ...]

    @classmethod
    def of(cls, view: IndexView, dots: Iterable[DotFacts]) -> BoardRow:
        status = view.status
        rolled_out = next((one for one in status.conditions if one.type == "RolledOut"), None)
        stalled = next((one for one in status.conditions if one.type == "Stalled" and one.status == "True"), None)
        said = stalled or rolled_out
        phase = "Stalled" if stalled is not None else status.phase
        return cls(
            row=RowFacts.of(view),
            tone=tone(phase),
            why=said.message if said is not None else view.spec_error,
            waits=", ".join(f"{one.rule} {one.subject}".strip() for one in status.blocked_by),
            since=rolled_out.last_transition_time if rolled_out is not None else to_text(view.created_at),
            dots=tuple(dots)[-MOST_DOTS:],
        )


Dots = Mapping[tuple[str, str], tuple[DotFacts, ...]]
"""By namespace and name of the index."""


def dots(revisions: Iterable[Mapping[str, Any]]) -> Dots:
    """Of raw revisions. Whatever stands in them, this never raises."""
    found: dict[tuple[str, str], list[tuple[float, DotFacts]]] = {}
    for one in revisions:
        meta, status = raw.part(one, "metadata"), raw.part(one, "status")
        key = raw.text(meta.get("namespace"), raw.NAME), raw.label(one, labels.INDEX)
        measured = raw.part(status, "report", "overall").get("recall")
        recall = float(measured) if isinstance(measured, int | float) and 0 <= measured <= 1 else None
        phase = raw.text(status.get("phase"), 63) or "Pending"
        made = raw.unix(meta.get("creationTimestamp")) or 0.0
        found.setdefault(key, []).append((made, DotFacts(raw.name(one), phase, tone(phase), recall)))
    return {key: tuple(dot for _, dot in sorted(rows, key=lambda row: row[0])) for key, rows in found.items()}


def board(indexes: Iterable[Mapping[str, Any]], of_revisions: Dots) -> tuple[BoardRow, ...]:
    """Of raw VectorIndexes, by namespace and name."""
    views = (index_view(one) for one in indexes)
    found = [BoardRow.of(view, of_revisions.get((view.namespace, view.name), ())) for view in views]
    return tuple(sorted(found, key=lambda one: (one.row.namespace, one.row.name)))


@dataclass(frozen=True, slots=True)
class RevisionBoard:
    """A revision with what other verbs say of it: `history`, `report`, and its guardrails as numbers."""

    said: RevisionFacts
    tone: Tone
    proof: ProofFacts | None
    charts: tuple[ChartFacts, ...]
    shadow: ShadowFacts | None
    budget: str
    """How often a rollout may be stopped by chance."""

    @classmethod
    def of(cls, seen: Seen, view: RevisionView) -> RevisionBoard:
        said, rollout = RevisionFacts.of(seen, view), view.status.rollout
        try:
            proof = ProofFacts.of(seen.obs.index.namespace, view)
        except EndedError:  # it was not measured
            proof = None
        budget = str(rollout.guardrails.false_trip_budget) if rollout is not None else ""
        return cls(said, tone(said.phase), proof, charts.charts(view), ShadowFacts.of(view), budget)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The last listing that differed from the one before."""

    objects: int
    bytes: int
    at: str
    dimension: int | None


@dataclass(frozen=True, slots=True)
class IndexBoard:
    """All about one index. `now`: when it was looked at. Decisions: the newest first."""

    now: str
    index: IndexFacts
    tone: Tone
    source: SourceFacts | None
    revisions: tuple[RevisionBoard, ...]
    timeline: TimelineFacts
    frontier: FrontierFacts
    decisions: tuple[DecisionFacts, ...]
    jobs: tuple[JobFacts, ...]
    events: tuple[EventFacts, ...]
    lines: tuple[LineFacts, ...]

    @classmethod
    def of(
        cls,
        seen: Seen,
        found: Iterable[Mapping[str, Any]],
        words: Callable[[str], str],
        lines: Callable[[IndexFacts], tuple[LineFacts, ...]],
    ) -> IndexBoard:
        """`found`: its Events. `words`: of a pod of a Job. `lines`: what one types about it."""
        index, listed = IndexFacts.of(seen), seen.status.source
        stalled = any(one.type_ == "Stalled" and one.status == "True" for one in index.conditions)
        return cls(
            now=to_text(seen.now),
            index=index,
            tone=Tone.BAD if stalled else tone(index.phase),
            source=SourceFacts(listed.objects, listed.bytes, listed.at, listed.dimension) if listed else None,
            revisions=tuple(RevisionBoard.of(seen, view) for view in seen.newest_first),
            timeline=TimelineFacts.of(seen),
            frontier=FrontierFacts.of(seen),
            decisions=tuple(sorted(decisions.decisions(seen), key=lambda one: one.at, reverse=True)),
            jobs=jobs.jobs(seen.obs, words),
            events=jobs.events(found),
            lines=lines(index),
        )
