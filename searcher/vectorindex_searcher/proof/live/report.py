"""What a report says of live queries: how they were drawn, and the recall of what stable's users ask."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...contract import FEWEST_LIVE_SENDERS, LIVE_QUERIES, Model, SegmentRecall


class LiveReport(Model):
    """Live queries, where spec.gate.queries.live asks for them. No query is in it."""

    queries: int = 0
    """Different ones that stable's pods had, all together."""
    pods: int = 0
    """Pods that told theirs; 0 also when an earlier try of this Job had asked them."""
    senders: int = 0
    """Tokens or addresses that they came from."""
    largest_share: float = 0.0
    """Of one of these."""
    hours: int = 0
    """Of the last 24 in which they were asked."""
    searches: int | None = None
    """All searches in these hours, each as often as it was asked. None: the pods do not count them, or an earlier try
    of this Job had asked them."""
    filtered: int | None = None
    """Of all searches those with a filter, which are not among the live queries."""
    own_params: int | None = None
    """Of all searches those with search parameters of their own: likewise."""
    given: int = 0
    """Of them, those that ask what a given query does: they are asked as given ones, and not here."""
    deeper: int = 0
    """Of them, those that asked for more answers than the gate's k; they are judged at k."""
    judged: bool = False
    """False: too few, too few senders, or none, for `reason`; then they tuned nothing either."""
    reason: str = ""
    tuning: int = 0
    """Those that tuned, and so do not judge."""
    recall: SegmentRecall | None = None
    """Of those that judge: the mean over senders, each of whom is one voice, and between which bounds these put it."""
    same_as_a_row: SegmentRecall | None = None
    """Of those that equal a row: a class of their own."""
    at_own_k: SegmentRecall | None = None
    """Of those that judge and asked for more answers than the gate's k, some at what they asked for: for people."""
    segments: tuple[SegmentRecall, ...] = ()
    """Of those that judge, by segment: for people."""
    problems: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Why pods' queries were not taken."""

    @property
    def rows(self) -> tuple[SegmentRecall, ...]:
        """What the gate is to judge: classes that enough senders asked."""
        rows = (self.recall, self.same_as_a_row) if self.judged else ()
        return tuple(row for row in rows if row is not None and (row.senders or 0) >= FEWEST_LIVE_SENDERS)

    @property
    def shown(self) -> tuple[SegmentRecall, ...]:
        """Every row of figures, named as a reader needs it."""
        named = [row.model_copy(update={"segment": f"{LIVE_QUERIES} of {row.segment}"}) for row in self.segments]
        return tuple(row for row in (self.recall, self.at_own_k, *named, self.same_as_a_row) if row is not None)

    @property
    def note(self) -> str:
        """In a sentence: how many, of how many senders, or why they are not judged; and what is not among them."""
        if not self.judged:
            return f"{self.reason}{self._left_out}"
        return f"{self.queries} live queries of {self.senders} senders, {self.tuning} of them tuned{self._left_out}"

    @property
    def _left_out(self) -> str:
        left = ((self.filtered, "with a filter"), (self.own_params, "with parameters of their own"))
        parts = [f"{count} {what}" for count, what in left if count]
        return f"; left out: of {self.searches} searches {' and '.join(parts)}" if parts else ""
