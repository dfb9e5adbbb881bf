"""Beyond doubt at any moment: a rule's evidence since the switch, judged by what a bet against it has won.

Beside the windows, for rules whose `window` and `consecutive` nobody chose: a window must end before it can fail, and
two must, so that nothing is seen for two minutes, however bad it is. docs/adr/0038-sequential-tests.md. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectorindex_operator.core.judging import eprocess
from vectorindex_operator.core.judging.blocks import BLOCK, Block

if TYPE_CHECKING:
    from vectorindex_operator.core.judging.evidence import Counts, RevisionEvidence
    from vectorindex_operator.core.judging.rules import Rule

START_SECONDS = 60.0
"""A change is looked for from the switch on, and from each of these on."""


Count = Callable[["Counts"], tuple[float, float]]
"""Hits and trials of a cell; a hit is what there should be less of, or hits are a sum of values in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Bet:
    """How a metric's evidence is bet on. `sign`: of the bounds that it is for. `against`: from such a bound, absolute,
    the highest rate of hits that it allows, and how they are counted."""

    sign: int
    against: Callable[[float], tuple[float, Count]]
    one_by_one: bool = False
    """Trials are queries, and those of one request have much to do with each other: three that come together are
    allowed for, a batch of a hundred is not. So what happened in buckets with such a request is not bet on."""


@dataclass(frozen=True, slots=True)
class Stake:
    """The evidence of one segment that is bet on, from bucket `first` on; the others as in Bet. `enough`: samples
    before a start counts; `horizon_seconds`: for how long the stake must last."""

    rate: float
    count: Count
    one_by_one: bool
    merged: RevisionEvidence
    segment: str
    first: int
    enough: int
    horizon_seconds: float

    def proven_since(self, level: float) -> int | None:
        """The bucket since when the revision is outside beyond doubt, if it is: were it at its bound, this would ever
        say so with a probability of `level` at most, however often it is asked."""
        if not self._may_have_won():
            return None
        held = dict(
            eprocess.holdings(
                eprocess.of_rate(self._cells(), self.rate),
                first=self.first,
                stop=self._stop,
                oldest=self.merged.oldest,
                starts=math.ceil(self.horizon_seconds / START_SECONDS),
                enough=self.enough,
            )
        )
        return max(held, key=lambda begin: held[begin]) if math.fsum(held.values()) >= 1.0 / level else None

    @property
    def _oldest(self) -> int:
        return max(self.first, self.merged.oldest)

    @property
    def _stop(self) -> int:
        """The bucket that is still open counts as well, where it is complete as far as it goes."""
        return self.merged.complete_before + (self.merged.lag == 0)

    def _may_have_won(self) -> bool:
        """Whether from any start on there are more hits than the bound allows: where there are not, no bet has won
        anything. What is well is nearly always told by the sums of minutes alone."""
        hits = trials = 0.0
        for number in range((self._stop - 1) // BLOCK, self._oldest // BLOCK - 1, -1):
            block = self.merged.blocks.get(number)
            if block is None:
                continue
            for cell in self._minute(block):
                more = self._of(cell)
                hits, trials = hits + more[0], trials + more[1]
            if trials >= self.enough and hits > self.rate * trials:
                return True
        return False

    def _minute(self, block: Block) -> list[Counts]:
        """The sum of the block, or its cells where some of them are not bet on."""
        if self._oldest <= block.first and block.first + BLOCK <= self._stop:
            whole = block.sums().get(self.segment)
            if whole is None or not self.one_by_one or whole.queries == whole.requests:
                return [] if whole is None else [whole]
        return [cell for _, cell in block.between(self.segment, self._oldest, self._stop)]

    def _cells(self) -> dict[int, tuple[float, float]]:
        numbers = range(self._oldest // BLOCK, (self._stop - 1) // BLOCK + 1)
        blocks = [block for number in numbers if (block := self.merged.blocks.get(number)) is not None]
        cells = (cell for block in blocks for cell in block.between(self.segment, self._oldest, self._stop))
        return {bucket: self._of(cell) for bucket, cell in cells}

    def _of(self, cell: Counts) -> tuple[float, float]:
        if self.one_by_one and cell.queries != cell.requests:
            return 0.0, 0.0
        return self.count(cell)


def stake_on(bet: Bet | None, rule: Rule, merged: RevisionEvidence, first: int, horizon_seconds: float) -> Stake | None:
    """`bet`: of the rule's metric. None: its windows were chosen, or its metric or bound is none that can be bet on."""
    bound = rule.bound
    if not rule.sequential or bet is None or bound.absolute is None or bound.sign != bet.sign:
        return None
    rate, count = bet.against(bound.absolute)
    if not 0.0 <= rate <= 1.0:
        return None
    return Stake(rate, count, bet.one_by_one, merged, rule.segment, first, rule.min_samples, horizon_seconds)
