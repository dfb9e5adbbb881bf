"""At which operating point each searcher process answers, and what that makes of live recall."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.clock import Clock
from simulator.truth import Quality

from vectorindex_searcher.contract import BUCKET_SECONDS, EvidenceBucket, PointOrder, ServingPoint

SAMPLED = 0.2
"""Share of the queries that are answered again exactly."""
Process = tuple[str, int]


class Points:
    """By process of a pod: a new one answers at the default point until it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._orders: dict[Process, PointOrder] = {}
        self._since: dict[Process, float] = {}

    def order(self, process: Process, order: PointOrder) -> None:
        """POST /v1/point: what was decided before the last one is refused."""
        before = self._orders.get(process)
        if before is not None and order.decided_at < before.decided_at:
            return
        if self.of(process) is not order.point:
            self._since[process] = self.clock.now
        self._orders[process] = order

    def of(self, process: Process) -> ServingPoint:
        """Where it answers."""
        order = self._orders.get(process)
        return order.point if order is not None else ServingPoint.DEFAULT

    def counted(
        self, process: Process, rows: Iterable[EvidenceBucket], quality: Quality, ahead: float
    ) -> list[EvidenceBucket]:
        """The rows since it answers there, with the live recall there. `ahead`: of its clock."""
        assert quality.live is not None
        recall = quality.live[self.of(process) is ServingPoint.CONSERVATIVE]
        first = int((self._since.get(process, 0.0) + ahead) // BUCKET_SECONDS) + 1
        return [_with_recall(row, recall) for row in rows if row.bucket >= first]


def _with_recall(row: EvidenceBucket, recall: float) -> EvidenceBucket:
    sampled = int(row.queries * SAMPLED)
    found = {"live_queries": sampled, "live_recall_sum": sampled * recall}
    overall = {"live_overall_queries": sampled, "live_overall_recall_sum": sampled * recall}
    return row.model_copy(update=found | overall)
