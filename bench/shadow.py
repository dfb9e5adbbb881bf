"""Does a shadow reject a bad revision, how soon, and never a good one? (simulated)

    python bench/shadow.py [--quick] [--scale 1] [--seed 1]

Pairs of answers as core/judging/pairs.py judges them: ordinary refreshes of small real indexes; candidates exactly at
all bounds under traffic that is not independent; scores that are skewed; one burst; and how long until a fault is
seen. Some minutes on one core, any core. docs/adr/0040-pairs.md says what follows from it.

summary.json: shadow.false_rejections (the largest share of refreshes and of candidates at their bounds for which the
promise holds; budget .0025), shadow.tenth_wrong_s (a tenth of the data wrongly embedded, 50/s).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from results import add_to_summary, machine, stamp, table, write_page
from sequential_false import share, tripped
from sequential_trials import NEVER, batches, independent, sessions
from shadow_refresh import KINDS, Change, World, compared
from shadow_trials import (
    ATONCE,
    CHANGED,
    DROP,
    Answers,
    asked,
    at_bounds,
    held_up,
    looks,
    score_stakes,
    with_burst,
)

from vectorindex_searcher.contract import BUCKET_SECONDS

BUDGET = 0.0025
"""A quarter of the default `falseTripBudget`."""
BUCKETS = 120
"""Ten minutes: the default `maxDuration`."""
MIN_QUERIES = 300
RATES = (1, 5, 20, 50)
"""Mirrored queries a second; half of them are overall."""
TENTH = "10% of the data wrongly embedded"
Said = tuple[str, dict[str, float]]
INTRODUCTION = """\
Seven rules at once: unanswered (always on, 1 %), ErrorRate `max: 2%`, ZeroResultRate `max: 2%` and
`maxRiseVsStable: 10%`, TopScore `maxDropVsStable: 5%`, AnswersChanged `max: 2%`, AnswersMissed `max: 5%`; `minSamples`
200; a shadow of ten minutes with a look every five seconds; budget 0.25 % for all of it together. Rates are mirrored
queries a second; half of them are the uniform sample that is judged here. In brackets: 95 % intervals (Clopper and
Pearson)."""


@dataclass(frozen=True, slots=True)
class Size:
    shadows: int
    delays: int
    rows: int
    queries: int
    seed: int

    @classmethod
    def of(cls, scale: float, seed: int, *, quick: bool) -> Size:
        rows, queries = (3000, 300) if quick else (20_000, 4000)
        return cls(max(4, round(2000 * scale)), max(4, round(100 * scale)), rows, queries, seed)

    def rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])

    def world(self) -> World:
        return World.made(self.rng(0), self.rows, self.queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the shadows")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    size = Size.of(0.005 if options.quick else options.scale, options.seed, quick=options.quick)
    parts = ["# Judging pairs in shadow", f"{stamp()}. {machine()} (simulated: no figure depends on it).", INTRODUCTION]
    summary = {"shadow.false_rejections": 0.0}
    for part in (refreshes, bounds, scores, burst, delays):
        text, figures = part(size)
        print(f"{text}\n", flush=True)
        parts.append(text)
        most = max(summary["shadow.false_rejections"], figures.pop("shadow.false_rejections", 0.0))
        summary |= figures | {"shadow.false_rejections": most}
    if not options.quick:
        write_page("shadow", "\n\n".join(parts))
        add_to_summary(summary)


def section(title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return f"## {title}\n\n{text}\n\n{table(head, rows)}"


# ---------------------------------------------------------------- ordinary refreshes

REFRESHES = {
    "the same rows, built anew": Change(),
    "5 % new rows": Change(new=0.05),
    "25 % new rows": Change(new=0.25),
    "50 % new rows": Change(new=0.5),
    "25 % new rows, 5 % deleted": Change(new=0.25, deleted=0.05),
    "the same rows, HNSW instead of IVF": Change(factory="HNSW32,Flat"),
}


def refreshes(size: Size) -> Said:
    world, rows, most = size.world(), [], 0.0
    for at, (name, change) in enumerate(REFRESHES.items()):
        answers, kinds = compared(size.rng(1, at), world, change)
        row: list[object] = [name, *(f"{kinds[kind]:.3f}" for kind in (*KINDS, "overlap"))]
        row.append(f"{np.mean(answers.c) / np.mean(answers.s) - 1:+.2%}")
        for repeats in (1.0, 5.0):
            pairs = asked(size.rng(2, at, int(repeats)), answers, size.shadows // 4, BUCKETS, 25.0, repeats=repeats)
            found = looks(pairs, BUDGET)
            most = max(most, tripped(found))
            row.append(share(found))
        rows.append(row)
    text = (
        f"Indexes of {size.rows:,} rows, {size.queries:,} queries; stable's recall is {world.recall:.1%}. What became "
        "of stable's answers, of ten each; by how much the first score differs; shadows that were rejected at 50/s, "
        "queries one by one, and visitors who ask five times on average for what has the same answers. All of these "
        "are tuned about as well as stable: one that is not (HNSW16 at efSearch 32: 75 queries without a hit for "
        "stable's 40) may break a rule on zero results, and rightly."
    )
    head = ["", *KINDS, "overlap of ids", "first score", "rejected", "rejected, visitors"]
    return section("Ordinary refreshes", text, head, rows), {"shadow.false_rejections": most}


# ---------------------------------------------------------------- exactly at the bounds


def bounds(size: Size) -> Said:
    visitors = partial(sessions, inside=0.5)
    kinds = {
        "independent, 50/s": (independent, 25.0, True),
        "independent, 5/s": (independent, 2.5, True),
        "five an hour": (independent, 2.5 / 3600, True),
        "visitors who ask 3 times and meet it in half of the cases, 50/s": (partial(visitors, size=3), 25.0, True),
        "visitors who ask 10 times, 50/s": (partial(visitors, size=10), 25.0, False),
        "a fifth comes in batches of 16 of which all count, 50/s": (partial(batches, size=16, share=0.2), 25.0, False),
        "the same, as shadow takes them: one query of each request": (independent, 20.3, True),
        "a bot that asks one query 2/s, as shadow takes it: once": (independent, 25.0, True),
    }
    rows, most = [], 0.0
    for at, (name, (draw, per_second, promised)) in enumerate(kinds.items()):
        rng, found = size.rng(3, at), []
        for _ in range(0, size.shadows, ATONCE):
            found.append(looks(at_bounds(rng, draw, min(ATONCE, size.shadows), BUCKETS, per_second), BUDGET))
        joined = np.concatenate(found)
        rows.append([name, "yes" if promised else "no", share(joined)])
        most = max(most, tripped(joined) if promised else 0.0)
    text = (
        "Every rule exactly at its bound at once, the worst that a good candidate can be. A query wins the cube root "
        "of what a bet says, so three that come together are covered, ten are not. Bots and batches: a query counts "
        "once, and one of each request is sent."
    )
    return section("Exactly at all bounds", text, ["ten minutes", "promised", "rejected"], rows), {
        "shadow.false_rejections": most
    }


# ---------------------------------------------------------------- skewed scores


def _luck(rng: np.random.Generator, shape: tuple[int, ...], share_of: float) -> np.ndarray:
    """A share of the queries far up for the candidate, the others a little down; mean 0, deviation 1."""
    lucky = rng.random(shape, np.float32) < share_of
    return np.where(lucky, -np.sqrt((1 - share_of) / share_of), np.sqrt(share_of / (1 - share_of)))


SCORES = {
    "normal": lambda rng, shape: rng.standard_normal(shape, np.float32),
    "exponential, the candidate's luck": lambda rng, shape: 1 - rng.standard_exponential(shape, np.float32),
    "exponential, its bad luck": lambda rng, shape: rng.standard_exponential(shape, np.float32) - 1,
    "a tenth of the queries far up": lambda rng, shape: _luck(rng, shape, 0.1),
    "heavy on both sides (Student, 3 degrees of freedom)": lambda rng, shape: rng.standard_t(3, shape),
    "a fiftieth far up (beyond what is assumed)": lambda rng, shape: _luck(rng, shape, 0.02),
    "a two hundredth far up (far beyond)": lambda rng, shape: _luck(rng, shape, 0.005),
}


def scores(size: Size) -> Said:
    rows = []
    for at, (name, draw) in enumerate(SCORES.items()):
        row: list[object] = [name]
        for per_second in (0.5, 2.5, 10.0):
            rng, found = size.rng(4, at, int(10 * per_second)), []
            each = round(per_second * BUCKET_SECONDS * 4)
            for _ in range(0, size.shadows, ATONCE):
                shape = (min(ATONCE, size.shadows), BUCKETS // 4, each)
                x = np.asarray(draw(rng, shape), float)
                rich = score_stakes(x.sum(axis=2), (x**2).sum(axis=2), np.full(shape[:2], each)) >= 100
                found.append(np.where(rich.any(axis=1), rich.argmax(axis=1), NEVER))
            row.append(share(np.concatenate(found)))
        rows.append(row)
    text = (
        "TopScore alone, at a budget of 1 %: the mean difference is exactly at its bound, and its distribution is "
        "this. Ten minutes, a look every twenty seconds. What is assumed: the candidate's luck, each difference "
        "weighted by its own square, is three standard deviations at most (an exponential distribution, or a tenth of "
        "the queries, has just that)."
    )
    return section("Skewed scores", text, ["difference of scores", "1/s", "5/s", "20/s"], rows), {}


# ---------------------------------------------------------------- one burst


def burst(size: Size) -> Said:
    rows, most, shadows = [], 0.0, max(4, size.shadows // 4)
    fine = np.full(1000, 0.7)
    answers = Answers(fine, fine, np.zeros(1000), np.zeros(1000), 0.0)
    for rate in RATES:
        pairs = asked(size.rng(5, rate), answers, shadows, BUCKETS, rate / 2, unanswered=0.003)
        pairs = with_burst(size.rng(6, rate), pairs, 150)
        found = looks(pairs, BUDGET)
        held = np.where(held_up(pairs, MIN_QUERIES), 0, NEVER)
        rows.append([f"{rate}/s", share(found), share(held)])
        most = max(most, tripped(found))
    text = (
        "150 queries unanswered within five seconds, of a candidate that leaves 0.3 % unanswered otherwise. The last "
        "column: more than 1 % without the worst ten seconds, so it is not switched to (`minQueries: 300`)."
    )
    return section("One burst", text, ["", "rejected", "held up at the end"], rows), {"shadow.false_rejections": most}


# ---------------------------------------------------------------- how soon


def delays(size: Size) -> Said:
    world = size.world()
    plain, _ = compared(size.rng(7), world, Change())
    fine = replace(plain, c=plain.s)
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for at, (name, fault) in enumerate(_faults(size, world, fine).items()):
        row: list[object] = [name]
        for rate in RATES:
            rng = size.rng(9, at, rate)
            pairs = asked(rng, fault.answers, size.delays, BUCKETS, rate / 2, unanswered=fault.unanswered)
            found = looks(pairs, BUDGET, fault.changed)
            seconds = np.where(found == NEVER, np.inf, (found + 1.0) * BUCKET_SECONDS)
            row.append(_delay(seconds))
            if (name, rate) == (TENTH, 50):
                figures["shadow.tenth_wrong_s"] = float(np.median(seconds))
        rows.append(row)
    text = (
        "Median (nine of ten below) from the first pair that counts to the look that rejects; `-`: fewer than half "
        f"(nine of ten) within ten minutes. Drops of scores at `maxDropVsStable: {DROP:.0%}`: 2 % is within, 5 % at "
        "the bound. Before it come the 200 queries of each pod that warm it."
    )
    head = ["", *(f"{rate}/s" for rate in RATES)]
    return section("How soon a fault is seen", text, head, rows), figures


@dataclass(frozen=True, slots=True)
class Fault:
    answers: Answers
    unanswered: float = 0.0
    changed: float = CHANGED
    """The bound of AnswersChanged."""


def _faults(size: Size, world: World, fine: Answers) -> dict[str, Fault]:
    def wrong(at: int, change: Change) -> Answers:
        return compared(size.rng(10, at), world, change)[0]

    parts = dict(enumerate((0.01, 0.05, 0.1, 1.0)))
    found = {
        f"{part:.0%} of the data wrongly embedded": Fault(wrong(at, Change(wrong=part))) for at, part in parts.items()
    }
    found["1% of it, AnswersChanged `max: 0.5%`"] = Fault(wrong(0, Change(wrong=0.01)), changed=0.005)
    found["10% of it, whole topics"] = Fault(wrong(9, Change(wrong=0.1, by_topic=True)))
    found |= {f"{rate:.0%} unanswered": Fault(fine, rate) for rate in (0.02, 0.06, 0.2)}
    luck = size.rng(8).standard_exponential(len(fine.c))
    luck *= fine.s.sum() / (fine.s * luck).sum()  # so that the drop is exactly what it is said to be
    none = np.zeros(len(luck))
    for drop in (0.02, 0.05, 0.1):
        lower = replace(fine, c=fine.s - drop * fine.s * luck, changed=none, missed=none, least=-1.0)
        found[f"scores {drop:.0%} lower (exponential)"] = Fault(lower)
    return found


def _delay(seconds: np.ndarray) -> str:
    middle, late = (float(np.quantile(seconds, q, method="inverted_cdf")) for q in (0.5, 0.9))
    return "-" if np.isinf(middle) else f"{_time(middle)} ({_time(late)})"


def _time(seconds: float) -> str:
    return "-" if np.isinf(seconds) else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    main()
