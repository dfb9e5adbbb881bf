"""The figures of a run: from the load generator's counts and the decisions on the Service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import words
from demo.printer import Printer
from harness.traffic import Snapshot
from harness.vix import Decision

EXPECTED = ("Stable", "Rejected", "ShadowRejected", "RolledBack", "Stable")
"""ShadowRejected: Rejected by live queries that it answered unseen, not by the gate."""
UNSEEN = frozenset({"Rejected", "ShadowRejected"})
LEAST_FOUND = 0.8
"""Of the questions in words: of ten, nine have a right document; by the vectors of another model hardly one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one revision ended."""

    name: str
    outcome: str
    reason: str


@dataclass(slots=True)
class Summary:
    """Filled as the run goes on.

    first_bad_to_trip_s: from the first answer of the bad revision to the decision (`at` of the Service's annotation).
    trip_to_switch_s: from the decision to the first answer of the revision it went back to.
    trip_to_last_bad_answer_s: from the decision to the last answer of the bad revision; 0 when none came after it.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    rollback: Decision | None = None
    traffic: Snapshot = field(default_factory=Snapshot)
    words: Snapshot | None = None
    """Questions in words; None: no encoder could be had."""
    duration: float = 0.0

    def add(self, name: str, status: dict[str, Any]) -> str:
        """Notes how a revision ended; the outcome."""
        rejected, outcome = status.get("rejected") or {}, str(status.get("phase", ""))
        reason = rejected.get("reason") or str(status.get("message", "")).partition(":")[0]
        if outcome == "Rejected" and rejected.get("stage") == "Shadow":
            outcome = "ShadowRejected"
        self.outcomes.append(Outcome(name, outcome, reason))
        return outcome

    def bad_answers(self, one: Outcome) -> int:
        """Answers that users got of a revision that was no good, right or wrong."""
        answers = self.traffic.revisions.get(one.name)
        return 0 if answers is None or one.outcome == "Stable" else answers.answers

    @property
    def as_expected(self) -> bool:
        seen = sum(self.bad_answers(one) for one in self.outcomes if one.outcome in UNSEEN)
        outcomes = tuple(one.outcome for one in self.outcomes)
        return outcomes == EXPECTED and not self.traffic.failed and not seen and self._words_as_expected

    @property
    def _words_as_expected(self) -> bool:
        return self.words is None or (not self.words.failed and words.share_found(self.words) >= LEAST_FOUND)

    def document(self) -> dict[str, Any]:
        """What build/demo/summary.json holds."""
        figures: dict[str, float | None] = dict.fromkeys(
            ("first_bad_to_trip_s", "trip_to_switch_s", "trip_to_last_bad_answer_s")
        )
        move, revisions = self.rollback, self.traffic.revisions
        if move is not None and move.from_revision in revisions and move.to_revision in revisions:
            bad = revisions[move.from_revision]
            back = revisions[move.to_revision].first_after(move.at)
            figures["first_bad_to_trip_s"] = round(move.at - bad.first_at, 2)
            figures["trip_to_switch_s"] = None if back is None else round(back - move.at, 3)
            figures["trip_to_last_bad_answer_s"] = round(max(0.0, bad.last_at - move.at), 3)
        return {
            "queries": self.traffic.queries,
            "failed": self.traffic.failed,
            "outcomes": [one.outcome for one in self.outcomes],
            "revisions": [
                {"name": one.name, "outcome": one.outcome, "reason": one.reason, "bad_answers": self.bad_answers(one)}
                for one in self.outcomes
            ],
            **figures,
            "words": self._words_document(),
            "duration_s": round(self.duration, 1),
        }

    def _words_document(self) -> dict[str, float] | None:
        if (seen := self.words) is None:
            return None
        return {
            "asked": seen.queries,
            "answered": seen.queries - seen.failed,
            "expected_in_first_10": round(words.share_found(seen), 3),
            "p50_ms": round(seen.p50_ms, 1),
            "p95_ms": round(seen.p95_ms, 1),
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=2) + "\n")

    def show(self, printer: Printer) -> None:
        """The table at the end."""
        document, seen = self.document(), self.traffic
        printer.title("Summary")
        for number, one in enumerate(self.outcomes, 1):
            answers = seen.revisions.get(one.name)
            served = (
                f"{answers.answers:,} answers, mean first hit {answers.top_score:.3f}" if answers else "never served"
            )
            right = one.outcome == EXPECTED[number - 1]
            row = f"  revision {number}  {one.name:<18} {one.outcome:<14} {one.reason:<16} {served}"
            printer.plain(printer.paint(row, "" if right else "bad"))
        printer.plain()
        rows = [
            ("queries", f"{seen.queries:,} ({seen.queries / seen.seconds if seen.seconds else 0:.0f}/s)"),
            ("failed", str(seen.failed)),
            ("latency", f"p50 {seen.p50_ms:.1f} ms, p95 {seen.p95_ms:.1f} ms, p99 {seen.p99_ms:.1f} ms"),
            ("first bad answer to trip", _seconds(document["first_bad_to_trip_s"])),
            ("trip to first good answer", _seconds(document["trip_to_switch_s"])),
            ("trip to last bad answer", _seconds(document["trip_to_last_bad_answer_s"])),
            ("questions in words", "none: no encoder could be had" if self.words is None else words.told(self.words)),
            ("duration", _seconds(self.duration)),
        ]
        for name, value in rows:
            printer.plain(f"  {name:<26} {value}")
        for load in (seen, self.words):
            if load is not None and load.failed:
                printer.plain(printer.paint(f"  {load.describe_failures()}", "bad"))


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} s"
