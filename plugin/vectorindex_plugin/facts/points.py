"""Recall against its price: the operating points of each revision, and what the gate proved of them.

A status holds the points that searchers use (default, conservative) and the gate's own measurement, not the whole
search for parameters: that is in the report in the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vectorindex_operator.core.observation import RevisionView
from vectorindex_plugin.seen import Seen
from vectorindex_searcher.contract import OperatingPoint


@dataclass(frozen=True, slots=True)
class PointFacts:
    """`kind`: Default or Conservative, of the rows that the build tuned with; Proven, of the gate's queries. `cost_us`:
    CPU time of a query on one thread, microseconds."""

    revision: str
    kind: str
    recall: float
    low: float
    cost_us: float
    params: str
    used: bool
    """Whether its searchers answer at it now."""


@dataclass(frozen=True, slots=True)
class FrontierFacts:
    """Points of the newest revisions, and the floor of the gate that stands in the spec (None: no readable spec)."""

    points: tuple[PointFacts, ...]
    floor: float | None

    @classmethod
    def of(cls, seen: Seen) -> FrontierFacts:
        spec = seen.obs.index.spec
        floor = spec.gate.recall.min if spec is not None else None
        return cls(tuple(point for view in seen.newest_first for point in _points(view)), floor)


def _points(view: RevisionView) -> Iterator[PointFacts]:
    build, report, point = view.status.build, view.status.report, view.status.point
    if build is None:
        return
    now = point.point if point is not None else "Default"
    for kind, one in (("Default", build.default_point), ("Conservative", build.conservative_point)):
        if one is not None:
            yield PointFacts(
                view.name, kind, one.recall, one.recall_low, one.latency_us, _params(one), used=kind == now
            )
    if report is not None:
        cost = report.cost_us if report.cost_us is not None else build.default_point.latency_us
        overall = report.overall
        yield PointFacts(view.name, "Proven", overall.recall, overall.recall_low, cost, "", used=False)


def _params(point: OperatingPoint) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.params.items())
