"""A lower confidence bound for the mean of per-query recall. See docs/adr/0002-recall-confidence-bound.md.

Betting bound (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024): under
"the mean is at most m" the wealth of a gambler who bets on larger values has expectation at most 1, so wealth of
1/alpha rejects m at level alpha (Markov). Holds for every n and every distribution on [0, 1], also at recall near 1
where normal intervals promise too much; adapts to the variance, so it is much tighter than Clopper-Pearson or Hoeffding
on recall@k. The wealth is averaged over fixed shuffles, which keeps it valid and makes the order of queries irrelevant.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SHUFFLES = 16
LARGEST_BET = 0.9
"""Share of the stake that may be lost on one query."""
_BISECTIONS = 30


def lower_bound(values: npt.NDArray[np.float64], confidence: float = 0.95) -> float:
    """The mean of the distribution is above this with probability `confidence` at least (one-sided).

    values: float64 [n] in [0, 1], independent (the query is the unit). 0 for no values. Never above the sample mean.
    """
    if not len(values):
        return 0.0
    shuffled, bets = _bets(values, confidence)
    threshold = -np.log1p(-confidence)
    low, high = 0.0, float(values.mean())
    if _log_wealth(shuffled, bets, high) >= threshold:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _log_wealth(shuffled, bets, middle) >= threshold:
            low = middle
        else:
            high = middle
    return low


def rejects(values: npt.NDArray[np.float64], mean: float, confidence: float = 0.95) -> npt.NDArray[np.bool_]:
    """Whether `lower_bound` lies above `mean`, by one evaluation: what a gate with the floor `mean` decides.

    values: float64 [..., n], many sets of queries at once (simulations). Returns bool [...].
    """
    shuffled, bets = _bets(values, confidence)
    refuted: npt.NDArray[np.bool_] = _log_wealth(shuffled, bets, mean) >= -np.log1p(-confidence)
    return refuted


def _bets(
    values: npt.NDArray[np.float64], confidence: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shuffled values and the bets on them, both [..., SHUFFLES, n]. A bet depends only on the values before it."""
    count = values.shape[-1]
    rng = np.random.default_rng(count)  # fixed: the same values give the same bound
    shuffled = values[..., rng.permuted(np.tile(np.arange(count), (SHUFFLES, 1)), axis=1)]
    seen = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(shuffled, axis=-1)) / (seen + 1)
    variances = (0.25 + np.cumsum((shuffled - means) ** 2, axis=-1)) / (seen + 1)
    before = np.concatenate([np.full((*shuffled.shape[:-1], 1), 0.25), variances[..., :-1]], axis=-1)
    return shuffled, np.sqrt(-2 * np.log1p(-confidence) / (count * before))


def _log_wealth(
    shuffled: npt.NDArray[np.float64], bets: npt.NDArray[np.float64], mean: float
) -> npt.NDArray[np.float64]:
    """Log of the wealth against "the mean is at most `mean`", averaged over shuffles. Falls as `mean` grows."""
    capped = np.minimum(bets, LARGEST_BET / max(mean, 1e-12))
    logs = np.log1p(capped * (shuffled - mean)).sum(axis=-1)
    peak = logs.max(axis=-1, keepdims=True)
    total: npt.NDArray[np.float64] = peak[..., 0] + np.log(np.mean(np.exp(logs - peak), axis=-1))
    return total
