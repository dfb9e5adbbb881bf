"""For shadow.py: what becomes of stable's answers when data is refreshed, or embedded wrongly. Small real indexes.

Clustered vectors of unit length, inner product, ten answers. Stable and each candidate are built from seeds of their
own; what they answer is what FAISS answers, scores and kinds of answers are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np
from shadow_trials import Answers

from vectorindex_searcher.contract import SHADOW_CHANGED

KINDS = ("kept", "gone", "changed", "displaced", "missed")
K = 10


@dataclass(frozen=True, slots=True)
class World:
    """Vectors by id, more of them than stable has, and queries that are none of them."""

    vectors: np.ndarray
    queries: np.ndarray
    stable: np.ndarray
    """Its answers, ids [queries, K]."""
    rows: int
    """Ids below this are stable's."""
    clusters: np.ndarray
    recall: float
    """Stable's."""

    @classmethod
    def made(cls, rng: np.random.Generator, rows: int, queries: int, dimension: int = 32) -> World:
        """Topics of very different sizes; queries come from them as often as rows do, some from between."""
        topics = rng.standard_normal((100, dimension))
        weights = 1 / np.arange(1, 101) ** 0.7

        def some(count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
            topic = rng.choice(100, count, p=weights / weights.sum())
            return unit(topics[topic] + spread * rng.standard_normal((count, dimension))), topic

        vectors, clusters = some(rows + rows // 2, 0.6)
        asked, _ = some(queries, 0.7)
        stable = searched(vectors[:rows], asked, f"IVF{max(1, rows // 150)},Flat")
        exact = searched(vectors[:rows], asked, "Flat")
        recall = float((exact[:, :, None] == stable[:, None, :]).any(axis=2).mean())
        return cls(vectors, asked, stable, rows, clusters, recall)


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def searched(vectors: np.ndarray, queries: np.ndarray, factory: str) -> np.ndarray:
    """Positions of the answers, [queries, K]."""
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    if factory.startswith("IVF"):
        index.nprobe = 6  # a recall of some .98
    elif factory.startswith("HNSW"):
        index.hnsw.efSearch = 64
    return np.asarray(index.search(queries, K)[1])


@dataclass(frozen=True, slots=True)
class Change:
    """What the candidate is made of, beside stable's rows. Shares of stable's rows."""

    new: float = 0.0
    deleted: float = 0.0
    wrong: float = 0.0
    """Embedded by another model."""
    by_topic: bool = False
    """The wrong ones are whole topics, not rows at random."""
    factory: str = ""
    """Other than stable's."""


def compared(rng: np.random.Generator, world: World, change: Change) -> tuple[Answers, Mapping[str, float]]:
    """The answers of both, and of all of stable's the share of each kind, and `overlap`: of ids that both answer."""
    ids = np.arange(world.rows + round(world.rows * change.new))
    ids = ids[(rng.random(len(ids)) >= change.deleted) | (ids >= world.rows)]
    vectors = world.vectors.copy()
    wrong = _wrong(rng, world, change)
    turn, _ = np.linalg.qr(rng.standard_normal((vectors.shape[1],) * 2))
    vectors[wrong] = vectors[wrong] @ turn.astype(np.float32)
    order = rng.permutation(ids)  # so that another seed makes another index
    answers = order[searched(vectors[order], world.queries, change.factory or f"IVF{max(1, len(ids) // 150)},Flat")]
    before = _scores(world.vectors, world.queries, world.stable)
    after, own = _scores(vectors, world.queries, world.stable), _scores(vectors, world.queries, answers)
    there = np.isin(world.stable, ids)
    same = (world.stable[:, :, None] == answers[:, None, :]).any(axis=2)
    moved = np.abs(after - before) > SHADOW_CHANGED * np.abs(before)
    above = after > own[:, -1:] + 1e-6
    kinds = np.select([~there, moved, same | (np.abs(after - own[:, -1:]) <= 1e-6), above], [1, 2, 0, 4], 3)
    shares = {name: float(np.mean(kinds == number)) for number, name in enumerate(KINDS)}
    found = Answers(
        c=own[:, 0], s=before[:, 0], changed=np.mean(kinds == 2, axis=1), missed=np.mean(kinds == 4, axis=1),
        least=float(np.quantile(before[:, 0], 0.01)),
    )  # fmt: skip
    return found, shares | {"overlap": float(same.mean())}


def _wrong(rng: np.random.Generator, world: World, change: Change) -> np.ndarray:
    """Ids of stable's rows that are embedded wrongly now."""
    if not change.by_topic:
        return np.flatnonzero(rng.random(world.rows) < change.wrong)
    sizes = np.bincount(world.clusters[: world.rows], minlength=100)
    order = rng.permutation(100)
    taken = order[np.cumsum(sizes[order]) <= change.wrong * world.rows]
    return np.flatnonzero(np.isin(world.clusters[: world.rows], taken))


def _scores(vectors: np.ndarray, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("qd,qkd->qk", queries, vectors[ids]), float)
