"""From plans and vectors to answers: what can be one call of the engine, and what is written of the result.

Knows no HTTP but the answer's body. Its functions run on the event loop or on a search thread, as the pool decides.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from ... import contract
from ...index.engine import Engine
from ...index.filters import Predicate
from ...index.selection.rowset import RowSet
from ..evidence.feedback import QueryIds
from ..evidence.live_queries import LiveQueries
from ..evidence.live_sample import LiveSample
from ..evidence.recorder import Outcome
from ..http.limits import LIGHT_CANDIDATES, MAX_VECTORS, SLICE_CANDIDATES
from ..http.messages import Deferred, Response
from ..shadow.mirror import Mirror
from .answers import PIECE_BYTES, SingleAnswers, binary_answer, json_answer, json_of, long_json_answer
from .plan import SearchPlan, check_work
from .pool import BATCH_SEARCHES, Group, SearchPool, deadline_exceeded
from .reader import Read
from .work import Work, WorkBudget

SMALL_K = 100
DEADLINE_VECTORS = 32
"""Of one call, where a deadline may end the search between two: enough for FAISS to compare them by matrices."""
Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Params = tuple[tuple[str, int], ...]
_NOTHING: Mapping[str, object] = MappingProxyType({})
_IGNORED = contract.IGNORED_PARAMS_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the vectors of a search came about, for its answer."""

    seconds: float
    """From the request to its vectors."""
    truncated: tuple[str, ...] = ()
    """Fields whose text had more tokens than the model takes."""
    most_tokens: int = 0


@dataclass(slots=True, eq=False)
class PendingSearch:
    """A search on its way. `vectors`: float32 [d] or [n, d]. Monotonic times: `began`, when its request had arrived,
    and `deadline`, after which nobody wants its answer. `encoding`: None where it came with vectors."""

    plan: SearchPlan
    vectors: Vectors
    outcome: Outcome
    began: float
    deadline: float | None
    encoding: Encoding | None = None


class SearchService:
    """Runs the searches of one revision. `own`: parameters that it has proven itself, besides the default point's."""

    def __init__(
        self,
        engine: Engine,
        pool: SearchPool,
        revision: str,
        own: Iterable[Mapping[str, int]],
        live: LiveSample | None,
        feedback: QueryIds,
        queries: LiveQueries | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._revision = revision
        self._own = [{}, *map(dict, own)]
        self._live = live
        self._feedback = feedback
        self._queries = queries
        self._samples = live is not None or queries is not None
        self._mirror = mirror or Mirror()
        self._budget = WorkBudget()
        self._groups: WeakValueDictionary[tuple[int, Params, bool, Predicate | None], Group] = WeakValueDictionary()
        """Those of the plans that are there."""

    def group(self, k: int, params: Params, metadata: bool, candidates: int, policy: Predicate | None = None) -> Group:
        """The group of all searches for one vector with this k and these parameters, by tokens that may see the same
        rows (`policy`; None: all)."""
        key = (k, params, metadata, policy)
        group = self._groups.get(key)
        if group is None:
            run = functools.partial(self._run_group, k, dict(params), policy)
            # Parameters of the revision's own are known to be quick; those that users name may be anything, and so may
            # a search of some rows, which looks farther where it found too few.
            small = k <= SMALL_K and not metadata and policy is None and dict(params) in self._own
            # One at a time with metadata: its size is known only when its rows are.
            most = 1 if metadata else max(1, min(BATCH_SEARCHES, LIGHT_CANDIDATES // candidates))
            group = self._groups.setdefault(key, Group(run, small=small, most=most))
        return group

    def ask(
        self,
        plan: SearchPlan,
        vectors: Vectors,
        outcome: Outcome,
        began: float,
        seconds: float | None,
        encoding: Encoding | None = None,
    ) -> Deferred:
        """Search `vectors`, float32 [d] or [n, d], checked. `seconds`: what the client allows, from `began` on.

        Fills `outcome` when it is answered. Raises Problem 503 or 504.
        """
        deadline = None if seconds is None else began + seconds
        asked = PendingSearch(plan, vectors, outcome, began, deadline, encoding)
        # A filter may have to read whole columns, and hardly two are the same rows. A policy is one that comes again.
        at_hand = plan.filter is None or (not plan.filtered and self._engine.keeps_matching(plan.filter))
        if vectors.ndim == 2 or not at_hand or plan.candidates > LIGHT_CANDIDATES:
            return self._pool.submit(functools.partial(self._run_alone, asked), outcome.queries, deadline)
        return self._pool.submit_one(plan.group, asked, deadline)

    def ask_unread(
        self, read: Callable[[], Read], size: int, outcome: Outcome, began: float, seconds: float | None
    ) -> Deferred:
        """As `ask`, for a request of `size` bytes that is read on the search thread, and may be refused there."""
        deadline = None if seconds is None else began + seconds

        def job() -> Response:
            with Work(self._budget) as work:
                work.read(size)
                plan, vectors = read()
            return self._run_alone(PendingSearch(plan, vectors, outcome, began, deadline))

        # A number and its comma are two bytes at least.
        most = min(MAX_VECTORS, 1 + size // (2 * self._engine.dimension))
        return self._pool.submit(job, most, deadline)

    def find(self, plan: SearchPlan, vector: Vectors, deadline: float) -> tuple[Scores, Rows, RowSet | None, int]:
        """What a request for one vector, float32 [d], finds: scores and rows [k], the rows that its filter allows, and
        how many are hits. No answer is written, and nothing counted; on a search thread. Raises Problem 503, and 504
        once the monotonic time `deadline` has passed."""
        check_work(plan, 1)
        with Work(self._budget) as work:
            work.search(plan, 1)
            allowed = None if plan.filter is None else self._matching(plan.filter, work, deadline)
            scores, rows, _ = self._searched(plan, vector.reshape(1, -1), allowed, deadline)
        return scores[0], rows[0], allowed, _hits(scores, rows, plan.min_score)[0]

    # ------------------------------------------------------------ where the pool says

    def _run_group(
        self, k: int, params: Mapping[str, int], policy: Predicate | None, asked: Sequence[PendingSearch]
    ) -> list[Response]:
        """Answer searches for one vector each by one call of the engine."""
        parts = [one.vectors for one in asked]
        vectors = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=None)).reshape(len(parts), -1)
        if policy is None:
            scores, rows = self._engine.search(vectors, k, params)
        else:
            scores, rows = self._engine.search(vectors, k, params, allowed_rows=self._engine.matching(policy))
        if self._samples:
            for number, one in enumerate(asked):
                self._offer(one, vectors[number : number + 1], rows[number : number + 1])
        if self._mirror.lease is not None:
            self._mirror.offer(asked, vectors, rows, scores)
        if asked[0].plan.include_metadata or np.count_nonzero(rows < 0):
            return [self._answered(one, scores[n : n + 1], rows[n : n + 1]) for n, one in enumerate(asked)]
        # The usual case: what all answers need is looked up once for all.
        firsts, now, flat = scores[:, 0].tolist(), time.monotonic(), rows.ravel()
        binaries = sum([one.plan.binary for one in asked])
        binary = SingleAnswers(self._engine.raw_ids(flat), scores) if binaries else None
        ids = self._engine.ids(flat) if binaries < len(asked) else None
        answers = []
        for number, one in enumerate(asked):
            bound = one.plan.min_score
            count = k if bound is None else int(np.count_nonzero(scores[number] >= bound))
            one.outcome.top_scores, one.outcome.hits = (firsts[number],), (count,)
            if one.plan.binary and binary is not None:
                answers.append(_told(one, binary.of(number, count)))
            elif ids is not None:
                start = number * k
                result: dict[str, object] = {"ids": ids[start : start + count], "scores": scores[number, :count]}
                if one.plan.track:
                    result["queryId"] = self._query_ids(one, 1)[0]
                answers.append(self._document(one, [result], now))
        return answers

    def _run_alone(self, asked: PendingSearch) -> Response:
        """Answer a search for any number of vectors, with or without a filter."""
        asked.outcome.filtered = asked.plan.filtered
        with Work(self._budget) as work:
            work.search(asked.plan, asked.outcome.queries)
            return self._run(asked, work)

    def _run(self, asked: PendingSearch, work: Work) -> Response:
        plan, vectors = asked.plan, asked.vectors.reshape(asked.outcome.queries, -1)
        allowed = None if plan.filter is None else self._matching(plan.filter, work, asked.deadline)
        scores, rows, strategy = self._searched(plan, vectors, allowed, asked.deadline)
        if self._mirror.lease is not None:
            self._mirror.offer_one(asked, vectors, rows, scores)
        if not plan.filtered or allowed is None:
            self._offer(asked, vectors, rows)
            return self._answer(asked, scores, rows, work)
        if self._queries is not None:
            self._queries.leave_out(len(vectors), filtered=True)
        return self._answer(asked, scores, rows, work, {"filter": {"rows": allowed.matching, "search": strategy}})

    def _matching(self, predicate: Predicate, work: Work, deadline: float | None) -> RowSet:
        """The rows of a filter. Raises Problem 503, and 504 when they are not there in time."""
        if not self._engine.keeps_matching(predicate):
            work.filter(self._engine.count)
        try:
            return self._engine.matching(predicate, math.inf if deadline is None else deadline)
        except TimeoutError:
            raise deadline_exceeded() from None

    def _searched(
        self, plan: SearchPlan, vectors: Vectors, allowed: RowSet | None, deadline: float | None
    ) -> tuple[Scores, Rows, str]:
        """Search all vectors, slice by slice. Raises Problem 504 when nobody waits for the next one any more: FAISS
        itself ends no search of one thread and goes on with those of others."""
        step = max(1, SLICE_CANDIDATES // plan.candidates)
        if deadline is not None:
            step = min(step, DEADLINE_VECTORS)
        parts = []
        for at in range(0, len(vectors), step):
            if deadline is not None and time.monotonic() >= deadline:
                raise deadline_exceeded()
            parts.append(self._slice(plan, vectors[at : at + step], allowed, deadline))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _slice(
        self, plan: SearchPlan, vectors: Vectors, allowed: RowSet | None, deadline: float | None
    ) -> tuple[Scores, Rows, str]:
        """Search so many vectors as fit into one call. Raises Problem 504 where a filter needs another, wider one and
        nobody waits for that."""
        if allowed is None:
            return *self._engine.search(vectors, plan.k, dict(plan.params)), ""
        until = math.inf if deadline is None else deadline
        try:
            scores, rows, strategy = self._engine.search_with_strategy(
                vectors, plan.k, dict(plan.params), allowed, until
            )
        except TimeoutError:
            raise deadline_exceeded() from None
        return scores, rows, strategy.value

    def _offer(self, asked: PendingSearch, vectors: Vectors, rows: Rows) -> None:
        """To the samples: of what was answered, and of what was asked."""
        plan = asked.plan
        if not plan.own:
            if self._queries is not None:
                self._queries.leave_out(len(vectors), filtered=False)
            return
        # Among all rows: where a policy leaves some out, what was found says nothing of that.
        if self._live is not None and plan.filter is None:
            self._live.offer(plan.segment, vectors, plan.k, rows)
        if self._queries is not None:
            self._queries.offer(plan.segment, asked.outcome.sender, plan.k, vectors)

    # ------------------------------------------------------------ answers

    def _answered(self, asked: PendingSearch, scores: Scores, rows: Rows) -> Response:
        with Work(self._budget) as work:
            return self._answer(asked, scores, rows, work)

    def _answer(
        self, asked: PendingSearch, scores: Scores, rows: Rows, work: Work, how: Mapping[str, object] = _NOTHING
    ) -> Response:
        """Write down what was found, and what of it is evidence."""
        plan, outcome = asked.plan, asked.outcome
        firsts = zip(rows[:, 0].tolist(), scores[:, 0].tolist(), strict=True)
        outcome.top_scores = [score for row, score in firsts if row >= 0]
        outcome.hits = hits = _hits(scores, rows, plan.min_score)
        if plan.binary:
            return _told(asked, self._binary(rows, scores, hits, work))
        query_ids = self._query_ids(asked, len(hits)) if plan.track else None
        results: list[bytes] = []
        for number, count in enumerate(hits):
            some = rows[number, :count]
            result: dict[str, object] = {"ids": self._engine.ids(some), "scores": scores[number, :count]}
            if query_ids is not None:
                result["queryId"] = query_ids[number]
            # As text at once: as Python objects many hits take ten times the memory.
            text = json_of(result)
            work.answer(len(text))
            results.append(b"," + text if number else text)
            if plan.include_metadata:
                results[-1] = results[-1][:-1]
                results += [b',"metadata":[', *self._metadata(some, work), b"]}"]
        before, after = self._around(asked, time.monotonic(), how)
        return _told(asked, long_json_answer(before, results, after))

    def _metadata(self, rows: Rows, work: Work) -> Iterator[bytes]:
        """The metadata of the rows as JSON, some of them at a time."""
        size = self._engine.metadata_bytes(rows)
        work.answer(size)
        step = max(1, len(rows) * PIECE_BYTES // max(1, size))
        for at in range(0, len(rows), step):
            text = json_of(self._engine.metadata(rows[at : at + step]))
            size -= len(text)
            yield b"," + text[1:-1] if at else text[1:-1]
        if size < 0:
            work.answer(-size)

    def _binary(self, rows: Rows, scores: Scores, hits: Sequence[int], work: Work) -> Response:
        pieces = []
        for number, count in enumerate(hits):
            ids = self._engine.raw_ids(rows[number, :count])
            work.answer(ids.numbers.nbytes + len(ids.text))
            pieces.append((ids, scores[number, :count]))
        return binary_answer(pieces)

    def _query_ids(self, asked: PendingSearch, count: int) -> list[str]:
        """One for each query, for clicks."""
        bucket, ids = self._feedback.ids(asked.plan.segment, asked.plan.k, count)
        asked.outcome.tracked = (bucket, asked.plan.k)
        return ids

    def _document(self, asked: PendingSearch, results: Sequence[Mapping[str, object]], now: float) -> Response:
        before, after = self._around(asked, now)
        return _told(asked, json_answer({**before, "results": results, **after}))

    def _around(
        self, asked: PendingSearch, now: float, how: Mapping[str, object] = _NOTHING
    ) -> tuple[dict[str, object], dict[str, object]]:
        """The fields before and after the results."""
        after: dict[str, object] = {
            "zeroResults": asked.outcome.hits.count(0),
            "tookMs": round((now - asked.began) * 1e3, 3),
        }
        warnings = _warnings(asked.plan.ignored)
        if (encoding := asked.encoding) is not None:
            after["encodeMs"] = round(encoding.seconds * 1e3, 3)
            warnings += _cut(encoding)
        if warnings:
            after["warnings"] = warnings
        return {"revision": self._revision, "k": asked.plan.k}, {**after, **how}


def _warnings(ignored: Sequence[str]) -> list[dict[str, str]]:
    detail = "this kind of index has no such search parameter; it was searched without"
    return [{"kind": "IgnoredParam", "field": f"params.{name}", "detail": detail} for name in ignored]


def _cut(encoding: Encoding) -> list[dict[str, str]]:
    detail = f"only its first {encoding.most_tokens} tokens were encoded: no more are taken"
    return [{"kind": "TextTruncated", "field": place, "detail": detail} for place in encoding.truncated]


def _told(asked: PendingSearch, response: Response) -> Response:
    """The answer, whose header says which parameters were ignored: a binary one has no other place for it."""
    if asked.plan.ignored:
        asked.outcome.ignored = asked.plan.ignored
        response.headers = (*response.headers, (_IGNORED, ", ".join(asked.plan.ignored).encode()))
    return response


def _joined(parts: Sequence[tuple[Scores, Rows, str]]) -> tuple[Scores, Rows, str]:
    """Slices of one search as one. How the first was searched stands for all."""
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), parts[0][2]


def _hits(scores: Scores, rows: Rows, min_score: float | None) -> list[int]:
    """How many of each query's best-first answers [n, k] are hits: those with a row, and a score of at least the bound.

    Hits are the first ones of a line, so a count says which they are.
    """
    found = rows >= 0
    if min_score is not None:
        found &= scores >= min_score
    counts: list[int] = np.count_nonzero(found, axis=1).tolist()
    return counts
