"""When each revision was in which phase, as its status tells: what a timeline is drawn of."""

from __future__ import annotations

from dataclasses import dataclass

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.core.observation import RevisionView
from vectorindex_operator.core.phase import ENDED
from vectorindex_operator.reconcile import raw
from vectorindex_plugin.seen import Seen
from vectorindex_plugin.tones import Tone, tone

STILL = frozenset(phase.value for phase in ENDED)
"""Phases in which a revision is done with: they end where they began, unless it serves."""


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """A phase with its times. `until`: None while it goes on."""

    phase: str
    tone: Tone
    since: str
    until: str | None


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """The phases of one revision, in the order of time. A phase that came twice has its last time only."""

    revision: str
    phase: str
    spans: tuple[SpanFacts, ...]


@dataclass(frozen=True, slots=True)
class MoveFacts:
    """The traffic went from one revision to another. `what`: Switched or RolledBack."""

    at: str
    what: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class TimelineFacts:
    """Tracks, the newest revision first, and the last move of the traffic, where the Service tells of one."""

    tracks: tuple[TrackFacts, ...]
    move: MoveFacts | None

    @classmethod
    def of(cls, seen: Seen) -> TimelineFacts:
        decision = seen.obs.traffic.decision
        move = None
        if decision is not None:
            what = "Switched" if decision.kind.value == "Switch" else "RolledBack"
            move = MoveFacts(to_text(decision.at), what, decision.from_revision, decision.to_revision)
        return cls(tuple(_track(view) for view in seen.newest_first), move)


def _track(view: RevisionView) -> TrackFacts:
    status = view.status
    times = {phase: at for phase, at in status.phase_times.items() if raw.unix(at) is not None}
    in_order = sorted(times.items(), key=lambda pair: raw.unix(pair[1]) or 0.0)  # several begin at the same time
    began: list[tuple[str, str]] = [(phase, at) for phase, at in in_order if phase != status.phase]
    if status.phase in times:
        began.append((status.phase, times[status.phase]))  # whatever its time: it is what the revision is now
    spans = []
    for number, (phase, at) in enumerate(began):
        last = number == len(began) - 1
        until = None if last else began[number + 1][1]
        if last and phase in STILL and phase != "Stable":
            until = at
        spans.append(SpanFacts(phase, tone(phase), at, until))
    return TrackFacts(view.name, status.phase, tuple(spans))
