"""Live recall at a router: of a sample of what users asked each shard scans its own rows, and the merged answers that
users got are compared with the nearest rows of all shards.

Rounds, as in a searcher of a whole index: a sample is collected while the one before is scanned for, by one pod of
every shard, each within its own budget of CPU. Fewer queries are sent where a shard says that they would cost more. A
round that any shard does not answer is lost: evidence of some shards would be too kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ... import contract
from ..evidence.judged import Judged, tallies
from ..evidence.live_sample import DEPTH, FEWEST_QUERIES, ROUND_SECONDS, LiveSample, Sampled, smaller
from ..evidence.ring import EvidenceRing
from .admin_ports import AdminPorts
from .link import BrokenError, NoRoomError
from .merge import Line
from .pods import Shard
from .sent import Sent

ANSWER_BYTES = 16 << 20
"""Of NEAREST_QUERIES queries with NEAREST_DEPTH rows and as many hits each, as JSON."""
ANSWER_SECONDS = 1800.0
"""Of a scan that takes all it may (LONGEST_SCAN_SECONDS), behind some of other routers."""
MOST_ROWS = 1 << 20
"""That all shards tell of in a round: some 70 MB while it is judged."""
_HEAD_BYTES = 3 << 20
"""Left for ids in a request."""
_log = logging.getLogger(__name__)


def offer(sample: LiveSample, what: Sent, lines: Sequence[Line]) -> None:
    """The answers to a request, as they were before `minScore`. What parameters, a filter or a policy changed says
    nothing about the index."""
    plan = what.plan
    if not plan.own or plan.filter is not None:
        return
    vectors = np.frombuffer(what.body, "<f4").reshape(len(lines), -1)

    def ids(number: int) -> npt.NDArray[np.object_]:
        line = lines[number].first(DEPTH)
        found: list[int] | list[str]
        found = [one.decode() for one in line.texts()] if what.question.text else line.numbers().tolist()
        answer = np.full(min(plan.k, DEPTH), None, object)
        answer[: len(found)] = found
        return answer

    sample.offer_each(plan.segment, vectors, ids)


class MergedRecall:
    """Judges round after round, for ever. For one event loop."""

    def __init__(
        self,
        shards: Sequence[Shard],
        ports: AdminPorts,
        sample: LiveSample,
        ring: EvidenceRing,
        executor: Executor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`executor`: where requests are written and answers are judged; `clock`: unix seconds, that of the sample."""
        self._shards, self._ports, self._sample, self._ring = shards, ports, sample, ring
        self._executor, self._clock = executor, clock
        self._share = 1.0
        """Of a full sample: what the shards could afford the last time."""
        ring.live_before = int(sample.started) // contract.BUCKET_SECONDS

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                await self._round()
            except Exception:
                _log.exception("a round of live recall failed")

    async def _round(self) -> None:
        sample, next_bucket = self._sample.take()
        loop, began = asyncio.get_running_loop(), time.monotonic()
        judged: list[Judged] = []
        if sample:
            some = self._affordable(sample)
            requests = await loop.run_in_executor(self._executor, questions, some, len(self._shards))
            ages = self._clock() - np.array([item.bucket * contract.BUCKET_SECONDS for item in some], np.float64)
            found = await self._ask(requests)
            if found is not None:
                judged = await loop.run_in_executor(self._executor, judge, some, ages, found)
        for tally in tallies(judged):
            self._ring.record_live(tally)
        self._ring.live_before = next_bucket
        recall = round(sum(one.recall for one in judged) / len(judged), 4) if judged else None
        facts = {"sampled": len(sample), "judged": len(judged), "recall": recall}
        _log.info("live recall", extra={**facts, "seconds": round(time.monotonic() - began, 3)})

    def _affordable(self, sample: Sequence[Sampled]) -> list[Sampled]:
        """A uniform part of the sample that shards can afford, and that is no longer than a request may be."""
        room = (contract.NEAREST_BYTES - _HEAD_BYTES) // (4 * len(sample[0].vector))
        depth = max(len(item.rows) for item in sample)
        most = max(1, min(room, contract.NEAREST_QUERIES, MOST_ROWS // (depth * len(self._shards))))
        # A little more than last time, in case shards are quicker now.
        share = min(1.0, 1.5 * self._share, most / len(sample))
        some = smaller(sample, share) if share < 1.0 else list(sample)
        return sorted(some, key=lambda item: item.draw)[:most]

    async def _ask(self, requests: Sequence[bytes]) -> list[contract.NearestRows] | None:
        """What all shards found; None where one did not."""
        pairs = zip(self._shards, requests, strict=True)
        found = await asyncio.gather(*(self._nearest(shard, body) for shard, body in pairs))
        told = [one for one in found if one is not None]
        if len(told) < len(found):
            return None
        times = max(one.times for one in told)
        if times > 0:
            fewer = self._share / (1.1 * max(1.0, times))
            self._share = max(fewer, FEWEST_QUERIES / contract.NEAREST_QUERIES)
            _log.warning("scans cost more than they may; fewer queries are sent", extra={"times": round(times, 2)})
            return None
        self._share = min(1.0, 1.5 * self._share)
        return told

    async def _nearest(self, shard: Shard, body: bytes) -> contract.NearestRows | None:
        request = contract.InternalRequest("POST", contract.NEAREST_PATH, body)
        try:
            text = await self._ports.ask(shard, request, ANSWER_BYTES, ANSWER_SECONDS)
            return await asyncio.get_running_loop().run_in_executor(self._executor, contract.NearestRows.of_peer, text)
        except (OSError, BrokenError, NoRoomError, ValueError) as error:
            problem = "it tells no nearest rows" if isinstance(error, ValidationError) else str(error)[:200]
            _log.warning("a shard did not scan: the round is lost", extra={"shard": shard.number, "problem": problem})
            return None


def questions(sample: Sequence[Sampled], shards: int) -> list[bytes]:
    """The request for each shard: with the ids that are its own."""
    depths = tuple(len(item.rows) for item in sample)
    ids: list[list[list[int | str]]] = [[[] for _ in sample] for _ in range(shards)]
    for number, item in enumerate(sample):
        for one in item.rows.tolist():
            if one is not None:
                ids[contract.shard_of(one, shards) if shards > 1 else 0][number].append(one)
    vectors = np.stack([item.vector for item in sample]).astype("<f4", copy=False).tobytes()
    asked = (contract.NearestQuestion(depths=depths, ids=tuple(map(tuple, mine))) for mine in ids)
    return [one.model_dump_json(by_alias=True).encode() + b"\n" + vectors for one in asked]


def judge(
    sample: Sequence[Sampled], ages: npt.NDArray[np.float64], found: Sequence[contract.NearestRows]
) -> list[Judged]:
    """The recall of each query of the sample whose answer can be judged: none of its ids was deleted since, and the
    rows that may be answered are the same as then. `ages`: seconds, when the shards were asked. Raises ValueError where
    a shard tells of other queries."""
    if any(len(one.scores) != len(sample) for one in found):
        raise ValueError("a shard tells of another number of queries")
    steady = min(one.steady_seconds for one in found)
    judged = []
    for number, item in enumerate(sample):
        hits = [score for one in found for score in one.hits[number]]
        if ages[number] > steady or None in hits:
            continue
        near, widths = [one.scores[number] for one in found], [one.widths[number] for one in found]
        recall = _recall(len(item.rows), near, widths, [score for score in hits if score is not None])
        judged.append(Judged(item.bucket, item.segment, recall, item.overall, wide=False))
    return judged


def _recall(k: int, near: Sequence[Sequence[float]], widths: Sequence[Sequence[float]], hits: Sequence[float]) -> float:
    """Of one query; as near as the k-th neighbour is as good as it."""
    scores, ties = np.concatenate([*map(np.asarray, near)]), np.concatenate([*map(np.asarray, widths)])
    available = min(k, len(scores))
    if not available:
        return 1.0
    last = np.argsort(-scores, kind="stable")[available - 1]
    right = int(np.count_nonzero(np.array(hits) >= scores[last] - ties[last]))
    return min(right, available) / available
