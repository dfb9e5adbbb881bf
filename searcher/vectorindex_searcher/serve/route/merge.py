"""The k best of what shards answered, written as a searcher writes its own answer.

By score, higher first; where scores are equal the shard with the lower number comes first, and within a shard its own
order stays. The same parts always give the same answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import orjson

from ... import contract
from ...index.rows import RawIds
from ..evidence.feedback import QueryIds
from ..evidence.recorder import Outcome
from ..http.messages import Response
from ..search.answers import Joined, binary_answer, json_of, long_json_answer
from ..search.asked import Encoding, cut_of, warnings_of, with_filter
from ..search.plan import SearchPlan
from ..search.work import Work
from .parts import Part, Scores, Texts

_MISSING = contract.SHARDS_MISSING_HEADER.encode()
_IGNORED = contract.IGNORED_PARAMS_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Line:
    """The hits of query `number`, best first. `order`: which of the hits of all parts they are, counted from the first
    part's on. Ids and metadata are taken out of the parts when they are written: of all lines they may be large."""

    scores: Scores
    order: npt.NDArray[np.int64]
    parts: Sequence[Part]
    number: int

    def first(self, count: int) -> Line:
        """Its first hits."""
        return replace(self, scores=self.scores[:count], order=self.order[:count])

    def numbers(self) -> npt.NDArray[np.int64]:
        """Ids that are numbers."""
        each = [part.ids[start:end] for part, start, end in self._spans() if not isinstance(part.ids, Texts)]
        return np.concatenate(each)[self.order]

    def texts(self) -> list[bytes]:
        """Ids that are texts."""
        return [part.ids[at] for part, at in self._places() if isinstance(part.ids, Texts)]

    def metadata(self) -> Iterator[bytes]:
        """Where it was asked for: JSON."""
        return (part.metadata[at] for part, at in self._places() if part.metadata is not None)

    def _spans(self) -> list[tuple[Part, int, int]]:
        return [(part, part.ends[self.number], part.ends[self.number + 1]) for part in self.parts]

    def _places(self) -> Iterator[tuple[Part, int]]:
        """Of each hit its part, and its place in there."""
        spans = self._spans()
        owners = np.repeat(np.arange(len(spans)), [end - start for _, start, end in spans])[self.order]
        within = np.concatenate([np.arange(start, end) for _, start, end in spans])[self.order]
        return ((self.parts[owner], at) for owner, at in zip(owners.tolist(), within.tolist(), strict=True))


def merged(parts: Sequence[Part], number: int, k: int) -> Line:
    """The k best of query `number`."""
    scores = np.concatenate([part.scores[part.ends[number] : part.ends[number + 1]] for part in parts])
    order = np.argsort(-scores, kind="stable")[:k]
    return Line(scores[order], order, parts, number)


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
    encoding: Encoding | None = None,
    offer: Callable[[Sequence[Line]], None] | None = None,
) -> Response:
    """What the client gets, and what of it is evidence. `parts`: of the shards that answered, at least one; `missing`:
    numbers of the others; `fault`: whether one is at fault; `encoding`: None where it came with vectors; `offer`: is
    shown the hits before `minScore`. Raises Problem 400 where it becomes too long, 503."""
    text = isinstance(parts[0].ids, Texts)
    lines = [merged(parts, number, plan.k) for number in range(outcome.queries)]
    outcome.top_scores = [float(line.scores[0]) for line in lines if len(line.scores)]
    if offer is not None:
        offer(lines)
    bound = plan.min_score
    if bound is not None:
        lines = [line.first(int(np.count_nonzero(line.scores >= bound))) for line in lines]
    outcome.hits = [len(line.scores) for line in lines]
    outcome.filtered, outcome.ignored = plan.filtered, plan.ignored
    outcome.incomplete, outcome.excused = fault, bool(missing) and not fault
    how: dict[str, object] = {}
    if plan.filtered:
        how["filter"] = {"rows": sum(part.rows for part in parts), "search": parts[0].search}
    if plan.binary:
        response = with_filter(_binary(lines, work, text=text, metadata=plan.include_metadata), how)
    else:
        if missing:
            how |= {"partial": True, "shardsMissing": list(missing)}
        warnings = warnings_of(plan.ignored)
        if encoding is not None:
            how["encodeMs"] = round(encoding.seconds * 1e3, 3)
            warnings += cut_of(encoding)
        if warnings:
            how["warnings"] = warnings
        response = _json(lines, plan, outcome, work, revision, began, query_ids, how, text=text)
    if missing:
        response.headers = (*response.headers, (_MISSING, ",".join(map(str, missing)).encode()))
    if plan.ignored:
        response.headers = (*response.headers, (_IGNORED, ", ".join(plan.ignored).encode()))
    return response


def _binary(lines: Sequence[Line], work: Work, *, text: bool, metadata: bool) -> Response:
    pieces, told = [], []
    for line in lines:
        ids = _raw_texts(line.texts()) if text else RawIds(line.numbers(), b"", None)
        work.answer(ids.numbers.nbytes + len(ids.text))
        pieces.append((ids, line.scores))
        if metadata:
            told.append(Joined(line.metadata()))
            work.answer(len(told[-1].data) + told[-1].lengths.nbytes)
    return binary_answer(pieces, told if metadata else None)


def _raw_texts(texts: Sequence[bytes]) -> RawIds:
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
    *,
    text: bool,
) -> Response:
    names = None
    if plan.track:
        bucket, names = query_ids.ids(plan.segment, plan.k, len(lines))
        outcome.tracked = (bucket, plan.k)
    results = []
    for number, line in enumerate(lines):
        ids = [one.decode() for one in line.texts()] if text else line.numbers()
        result: dict[str, object] = {"ids": ids, "scores": line.scores}
        if names is not None:
            result["queryId"] = names[number]
        if plan.include_metadata:
            result["metadata"] = [orjson.Fragment(one) for one in line.metadata()]
        told = json_of(result)
        work.answer(len(told))
        results.append(b"," + told if number else told)
    before = {"revision": revision, "k": plan.k}
    after: dict[str, object] = {
        "zeroResults": outcome.hits.count(0),
        "tookMs": round((time.monotonic() - began) * 1e3, 3),
        **how,
    }
    return long_json_answer(before, results, after)
