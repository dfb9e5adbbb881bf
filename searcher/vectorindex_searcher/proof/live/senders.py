"""One sender, one voice: what live queries show is counted by who asked, never by how much one of them asked.

A sender's queries are alike (one application, one team, one script that changes a letter), so they are no independent
looks; and one sender may be hostile. A voice is the mean recall of one sender's queries; the bounds are of Student's t
over voices, whatever lies within them. The one that is answered worst is left out where a voice could do harm: then one
sender, who asks what nothing finds, neither brings a verdict about nor hides one in the spread that he makes.
See docs/adr/0032-live-queries.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NORMAL = 1.959963984540054
"""Of 95 % between both ends: of the two classes that live queries have, each is wrongly held in 2.5 % at most."""


@dataclass(frozen=True, slots=True)
class Voices:
    """The mean recall of each sender's queries. There is one at least."""

    means: npt.NDArray[np.float64]
    """Rising."""

    @classmethod
    def of(cls, recall: npt.NDArray[np.float64], senders: npt.NDArray[np.int64]) -> Voices:
        """recall [n] of queries, and who asked each."""
        _, mine = np.unique(senders, return_inverse=True)
        return cls(np.sort(np.bincount(mine, recall) / np.bincount(mine)))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def mean(self) -> float:
        return float(self.means.mean())

    @property
    def mean_without_worst(self) -> float:
        return float(self.means[1:].mean()) if len(self) > 1 else 1.0

    @property
    def low(self) -> float:
        """What they show recall to be at least."""
        return max(0.0, self.mean - _half_width(self.means))

    @property
    def high(self) -> float:
        """What they show it to be at most, also without the one that is answered worst."""
        return min(1.0, self.mean_without_worst + _half_width(self.means[1:]))


def _half_width(means: npt.NDArray[np.float64]) -> float:
    """Of the interval of 95 %; all there is, for fewer than two."""
    count = len(means)
    return _student(count - 1) * float(means.std(ddof=1)) / count**0.5 if count > 1 else 1.0


def _student(freedom: int) -> float:
    """The quantile of Student's t that 2.5 % are beyond (Cornish and Fisher's expansion; from 4 degrees of freedom on
    it is right to .001)."""
    z, v = _NORMAL, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
