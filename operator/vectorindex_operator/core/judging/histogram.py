"""Reading the searchers' latency histogram (contract.LATENCY_BIN_RATIO). Pure; bins go in, seconds come out.

A bin is 5 % wide, so a duration is known to 5 %: what decides a verdict takes the edge that speaks for the revision.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vectorindex_searcher.contract import LATENCY_BIN_RATIO

_CODES = (("B", 2**8), ("H", 2**16), ("I", 2**32))


class Bins(Mapping[int, int]):
    """A histogram that is kept: a tenth of the memory of a dict. `bins` in rising order, each with its count."""

    __slots__ = ("_bins", "_counts")

    def __init__(self, bins: Sequence[int], counts: Sequence[int]) -> None:
        self._bins, self._counts = array("H", bins), array(_code(counts), counts)

    @classmethod
    def of(cls, latency: Mapping[int, int]) -> Bins:
        """OverflowError where there are bins or counts that no searcher has."""
        bins = sorted(latency)
        return cls(bins, [latency[number] for number in bins])

    def raw(self) -> tuple[bytes, str, bytes]:
        """What `of_raw` makes the same of."""
        return self._bins.tobytes(), self._counts.typecode, self._counts.tobytes()

    @classmethod
    def of_raw(cls, bins: bytes, code: str, counts: bytes) -> Bins:
        made = cls.__new__(cls)
        made._bins, made._counts = array("H", bins), array(code, counts)
        return made

    def __len__(self) -> int:
        return len(self._bins)

    def __iter__(self) -> Iterator[int]:
        return iter(self._bins)

    def __getitem__(self, number: int) -> int:
        try:
            return self._counts[self._bins.index(number)]
        except ValueError:
            raise KeyError(number) from None

    def items(self) -> Any:
        """Pairs of bin and count, without a look-up each."""
        return zip(self._bins, self._counts, strict=True)

    def values(self) -> Any:
        return self._counts


def _code(counts: Sequence[int]) -> str:
    """Of the narrowest array that holds these counts."""
    most = max(counts, default=0)
    return next((code for code, limit in _CODES if most < limit), "Q")


def bin_floor(index: int) -> float:
    """Shortest duration of a histogram bin, seconds."""
    return LATENCY_BIN_RATIO**index / 1e6 if index > 0 else 0.0


def surely_slower(latency: Mapping[int, int], bound: float) -> int:
    """Queries that took longer than `bound` seconds whatever their place in their bin.

    The bin that holds the bound counts as fast: a rule must not trip because of where a bin ends.
    """
    return sum(count for index, count in latency.items() if bin_floor(index) > bound)


def slowest(latency: Mapping[int, int], rank: int) -> int:
    """Bin of the `rank`-th slowest query (1: the slowest)."""
    left = rank
    for index in sorted(latency, reverse=True):
        left -= latency[index]
        if left <= 0:
            return index
    raise ValueError(f"rank {rank} is beyond the {sum(latency.values())} queries of the histogram")


def quantile(latency: Mapping[int, int], slower: float) -> float:
    """Duration in seconds that a share `slower` of the queries exceeds, by log-linear interpolation in its bin."""
    above = slower * sum(latency.values())
    for index in sorted(latency, reverse=True):
        count = latency[index]
        if above < count:
            return float(LATENCY_BIN_RATIO ** (index + 1 - above / count) / 1e6)
        above -= count
    return 0.0
