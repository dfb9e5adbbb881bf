"""The k best of what shards answered, written as a searcher writes its own answer.

By score, higher first; where scores are equal the shard with the lower number comes first, and within a shard its own
order stays. The same parts always give the same answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import contract
from ...index.rows import RawIds
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome
from ..http.messages import Response
from ..search.answers import binary_answer, json_of, long_json_answer
from ..search.asked import warnings_of
from ..search.plan import SearchPlan
from ..search.work import Work
from .parts import Ids, Part, Scores

_MISSING = contract.SHARDS_MISSING_HEADER.encode()
_IGNORED = contract.IGNORED_PARAMS_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Line:
    """The hits of one query, best first."""

    scores: Scores
    ids: Ids
    metadata: list[dict[str, Any]] | None

    def first(self, count: int) -> Line:
        """Its first hits."""
        return Line(self.scores[:count], self.ids[:count], None if self.metadata is None else self.metadata[:count])


def merged(parts: Sequence[Part], number: int, k: int) -> Line:
    """The k best of query `number`."""
    spans = [(part, part.ends[number], part.ends[number + 1]) for part in parts]
    scores = np.concatenate([part.scores[start:end] for part, start, end in spans])
    order = np.argsort(-scores, kind="stable")[:k]
    ids: Ids
    if isinstance(parts[0].ids, list):
        texts = [text for part, start, end in spans for text in part.ids[start:end]]
        ids = [texts[place] for place in order.tolist()]
    else:
        ids = np.concatenate([part.ids[start:end] for part, start, end in spans])[order]
    metadata = None
    if parts[0].metadata is not None:
        told = [one for part, start, end in spans for one in (part.metadata or ())[start:end]]
        metadata = [told[place] for place in order.tolist()]
    return Line(scores[order], ids, metadata)


def answer(
    parts: Sequence[Part],
    plan: SearchPlan,
    outcome: Outcome,
    work: Work,
    *,
    revision: str,
    began: float,
    query_ids: QueryIds,
    missing: Sequence[int] = (),
    fault: bool = False,
) -> Response:
    """What the client gets, and what of it is evidence. `parts`: of the shards that answered, at least one; `missing`:
    numbers of the others; `fault`: whether one is at fault. Raises Problem 400 where it becomes too long, 503."""
    lines = [merged(parts, number, plan.k) for number in range(outcome.queries)]
    outcome.top_scores = [float(line.scores[0]) for line in lines if len(line.scores)]
    bound = plan.min_score
    if bound is not None:
        lines = [line.first(int(np.count_nonzero(line.scores >= bound))) for line in lines]
    outcome.hits = [len(line.scores) for line in lines]
    outcome.filtered, outcome.ignored = plan.filtered, plan.ignored
    outcome.incomplete, outcome.excused = fault, bool(missing) and not fault
    if plan.binary:
        response = _binary(lines, work)
    else:
        how: dict[str, object] = {}
        if plan.filtered:
            how["filter"] = {"rows": sum(part.rows for part in parts), "search": parts[0].search}
        if missing:
            how |= {"partial": True, "shardsMissing": list(missing)}
        response = _json(lines, plan, outcome, work, revision, began, query_ids, how)
    if missing:
        response.headers = (*response.headers, (_MISSING, ",".join(map(str, missing)).encode()))
    if plan.ignored:
        response.headers = (*response.headers, (_IGNORED, ", ".join(plan.ignored).encode()))
    return response


def _binary(lines: Sequence[Line], work: Work) -> Response:
    pieces = []
    for line in lines:
        ids = _raw(line.ids)
        work.answer(ids.numbers.nbytes + len(ids.text))
        pieces.append((ids, line.scores))
    return binary_answer(pieces)


def _raw(ids: Ids) -> RawIds:
    if not isinstance(ids, list):
        return RawIds(ids, b"", None)
    texts = [text.encode() for text in ids]
    return RawIds(np.array([len(text) for text in texts], np.uint32), b"".join(texts), [])


def _json(
    lines: Sequence[Line],
    plan: SearchPlan,
    outcome: Outcome,
    work: Work,
    revision: str,
    began: float,
    query_ids: QueryIds,
    how: Mapping[str, object],
) -> Response:
    names = None
    if plan.track:
        bucket, names = query_ids.ids(plan.segment, plan.k, len(lines))
        outcome.tracked = (bucket, plan.k)
    results = []
    for number, line in enumerate(lines):
        result: dict[str, object] = {"ids": line.ids, "scores": line.scores}
        if names is not None:
            result["queryId"] = names[number]
        if line.metadata is not None:
            result["metadata"] = line.metadata
        text = json_of(result)
        work.answer(len(text))
        results.append(b"," + text if number else text)
    before = {"revision": revision, "k": plan.k}
    after: dict[str, object] = {
        "zeroResults": outcome.hits.count(0),
        "tookMs": round((time.monotonic() - began) * 1e3, 3),
        **how,
    }
    if warnings := warnings_of(plan.ignored):
        after["warnings"] = warnings
    return long_json_answer(before, results, after)
