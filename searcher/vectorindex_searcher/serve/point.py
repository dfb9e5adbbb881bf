"""At which operating point a pod answers: what its latest order says, for as long as it lives. See contract/points.py.

Evidence is of one point: with the change of it counting begins anew. Confined to the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from .. import contract
from ..contract import ServingPoint
from ..index.engine import Engine
from .evidence.ring import EvidenceRing
from .http.messages import Problem

Use = Callable[[ServingPoint], Awaitable[None]]
"""Has every search process of the pod answer at a point; returns once they do. Raises Problem 503."""


class PodPoint:
    """`use` is not called before `open`."""

    def __init__(self, ring: EvidenceRing, use: Use) -> None:
        self._ring, self._use = ring, use
        self._order = contract.PointOrder(point=ServingPoint.DEFAULT, decided_at=0.0)
        self._point: ServingPoint | None = ServingPoint.DEFAULT
        """None: some process may answer at another one."""
        self._changing = asyncio.Lock()
        self.points: tuple[ServingPoint, ...] = ()
        """Those of the index; none before it is loaded."""

    @property
    def point(self) -> str:
        """What is answered at; empty while that changes, and before the index is loaded."""
        return self._point.value if self._point is not None and self.points else ""

    async def open(self, points: tuple[ServingPoint, ...]) -> None:
        """The index is loaded: do what was ordered meanwhile, before there are users."""
        self.points = points
        await self._obey()

    async def take(self, order: contract.PointOrder) -> None:
        """Keep to an order. Raises Problem 409 for one that was decided before the one that is kept to, and 503 where a
        search process does not answer: it is kept all the same, and tried again with the next one."""
        held = self._order
        late = order.decided_at < held.decided_at
        if late or (order.decided_at == held.decided_at and order.point is not held.point):
            what = f"a later decision is known: {held.point}, of {held.decided_at:.3f}"
            raise Problem(409, "OldDecision", what, field="decidedAt", value=order.decided_at)
        self._order = order
        await self._obey()

    async def _obey(self) -> None:
        async with self._changing:  # one after the other: the last one is what stays
            wanted = self._order.point
            if wanted is self._point or wanted not in self.points:
                return
            self._point = None
            await self._use(wanted)
            self._ring.begin_anew()
            self._point = wanted


def serving_points(
    engine: Engine, own: Mapping[str, Mapping[str, int]], segments: Collection[str]
) -> dict[ServingPoint, Mapping[str, Mapping[str, int]]]:
    """Where this artifact can be served, and the parameters there of segments that have others than the default point.
    `own`: those that the gate found."""
    found: dict[ServingPoint, Mapping[str, Mapping[str, int]]] = {ServingPoint.DEFAULT: own}
    conservative = conservative_params(engine, own, segments)
    if conservative is not None:
        found[ServingPoint.CONSERVATIVE] = conservative
    return found


def conservative_params(
    engine: Engine, own: Mapping[str, Mapping[str, int]], segments: Collection[str]
) -> dict[str, dict[str, int]] | None:
    """Search parameters of every segment (and `other`) at the conservative point: of each the larger of that point's
    and of what the segment is served with otherwise, so that nothing is searched with less. None: there is no such
    point, or it is no wider anywhere.

    `own`: parameters of the segments that have their own, over the default point's.
    """
    point = engine.manifest.conservative_point
    if point is None:
        return None
    found, wider = {}, False
    for segment in {*segments, contract.OTHER_SEGMENT}:
        usual = {**engine.default_params, **own.get(segment, {})}
        found[segment] = dict(usual)
        for name, value in point.params.items():
            least, greatest = engine.param_limits.get(name, (1, 0))
            if least <= value <= greatest:  # else it is not of this index
                found[segment][name] = max(value, usual.get(name, value))
        wider = wider or found[segment] != usual
    return found if wider else None
