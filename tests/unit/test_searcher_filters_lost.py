"""Filters that the revision before took and this one refuses are counted; what nobody would have answered never is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
import pytest
from serving_pod import DIMENSION, Pod, engine, running  # noqa: F401 - engine is a fixture

from vectorindex_searcher import contract
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.index.filters import FilterColumns, FilterError, columns_of_letters, parse
from vectorindex_searcher.proof.columns import _letter
from vectorindex_searcher.serve.settings import Settings

BEFORE = {"title": "s", "price": "f", "tags": "S"}
"""Of the revision before; the index has a title only."""
QUERY = [1.0] * DIMENSION
BINARY = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def shared(engine: tuple[Engine, np.ndarray]) -> Iterator[Pod]:  # noqa: F811 - the fixture
    with running(engine[0], columns_before=BEFORE) as pod:
        yield pod


def counts(pod: Pod) -> dict[str, int]:
    """By counter: of everything so far."""
    return {name: int(sum(filter(None, column))) for name, column in pod.columns().counts.items()}


def added(pod: Pod, body: Any, path: str = "/v1/search", **more: Any) -> tuple[int, dict[str, int]]:
    """The status of an answer, and what it added to the evidence besides scores and latency."""
    before = counts(pod)
    status, _, _ = pod.request("POST", path, body, **more)
    names = {"refused", "mismatched", "requests", "zeroResults"}
    names |= {"filteredQueries", "filteredZeroResults", "filtersCompared", "filtersLost"}
    after = counts(pod)
    return status, {n: more for n in names if (more := after.get(n, 0) - before.get(n, 0))}


@pytest.mark.parametrize(
    "condition",
    [{"price": {"lt": 3}}, {"tags": "new"}, {"or": [{"title": "title 3"}, {"not": {"price": {"exists": True}}}]}],
    ids=["price", "tags", "within another"],
)
def test_a_filter_on_a_column_that_is_gone_is_lost(shared: Pod, condition: dict[str, Any]) -> None:
    lost = {"refused": 1, "filtersCompared": 1, "filtersLost": 1}
    assert added(shared, {"vector": QUERY, "filter": condition}) == (400, lost)
    assert added(shared, {"vectors": [QUERY] * 4, "filter": condition}) == (400, lost), "a request is one"
    vector, text = np.array(QUERY, "<f4").tobytes(), quote(orjson.dumps(condition))
    assert added(shared, vector, f"/v1/search?filter={text}", headers=BINARY) == (400, lost)
    assert added(shared, {"vector": QUERY, "filter": condition, "segment": "keyword"}) == (400, lost)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"vector": QUERY, "filter": {"colour": "red"}}, 400),  # never was
        ({"vector": QUERY, "filter": {"price": "cheap"}}, 400),  # never took such values
        ({"vector": QUERY, "filter": {"tags": {"gt": "a"}}}, 400),
        ({"vector": QUERY, "filter": {"or": [{"price": 3}, {"colour": "red"}]}}, 400),  # one part would have been taken
        ({"vector": QUERY, "filter": {}}, 400),
        ({"vector": QUERY, "filter": {"and": [{"price": 1}] * 65}}, 400),  # too large for any
        ({"vector": QUERY, "filter": [{"price": 1}]}, 400),
        ({"vector": QUERY, "filter": {"price": 1}, "k": 0}, 400),  # refused whatever its filter is
        ({"vector": QUERY, "filter": {"price": 1}, "embedding": {"model": "ada"}}, 422),
        ({"vector": QUERY, "params": {"nprobes": 3}}, 400),
        ({"vector": QUERY, "k": 0}, 400),
        ({"vector": [1.0]}, 422),
        (b"{", 400),
        (b'{"filter": {"price": 1}', 400),
        (b" " * 100_001, 413),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict | bytes) else "",
)
def test_what_the_revision_before_refused_too_is_no_loss(shared: Pod, body: Any, status: int) -> None:
    """So a client that always was wrong, and one that wants a good revision gone, add nothing."""
    kind = "mismatched" if status == 422 else "refused"
    assert added(shared, body) == (status, {kind: 1})


def test_answered_filters_are_a_stratum_of_their_own(shared: Pod) -> None:
    found = {"vectors": [QUERY] * 3, "filter": {"title": {"in": ["title 3", "title 4"]}}}
    assert added(shared, found) == (200, {"requests": 1, "filteredQueries": 3, "filtersCompared": 1})
    empty = {"vectors": [QUERY] * 2, "filter": {"title": "none"}}
    nothing = {"requests": 1, "zeroResults": 2, "filteredQueries": 2, "filteredZeroResults": 2, "filtersCompared": 1}
    assert added(shared, empty) == (200, nothing)
    assert added(shared, {"vector": QUERY}) == (200, {"requests": 1})
    # `minScore` empties an answer without a filter: that is no filter's doing.
    assert added(shared, {"vector": QUERY, "minScore": 2}) == (200, {"requests": 1, "zeroResults": 1})


def test_what_is_told_names_the_counters_that_may_be_believed(
    shared: Pod,
    engine: tuple[Engine, np.ndarray],  # noqa: F811 - the fixture
) -> None:
    """A searcher that does not know what the revision before took compares nothing, and says so."""
    assert shared.columns().tells == ("filteredQueries", "filtersCompared", "rerankableQueries")
    with running(engine[0]) as unaware:
        assert unaware.columns().tells == ("filteredQueries", "rerankableQueries")
        assert added(unaware, {"vector": QUERY, "filter": {"price": 1}}) == (400, {"refused": 1})
        answered = {"requests": 1, "filteredQueries": 1}
        assert added(unaware, {"vector": QUERY, "filter": {"title": "title 3"}}) == (200, answered)


def test_a_first_revision_has_nothing_to_lose_and_says_so(
    engine: tuple[Engine, np.ndarray],  # noqa: F811 - the fixture
) -> None:
    with running(engine[0], columns_before={}) as first:
        assert first.columns().tells == contract.LATER_COUNTERS
        assert added(first, {"vector": QUERY, "filter": {"price": 1}}) == (400, {"refused": 1})
        answered = {"requests": 1, "filteredQueries": 1, "filtersCompared": 1}
        assert added(first, {"vector": QUERY, "filter": {"title": "title 3"}}) == (200, answered)


class Unfilterable:
    """An engine whose index takes no filter."""

    supports_filter = False

    def __init__(self, engine: Engine) -> None:  # noqa: F811 - no fixture
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def test_an_index_that_takes_no_filter_loses_what_the_one_before_took(
    engine: tuple[Engine, np.ndarray],  # noqa: F811 - the fixture
) -> None:
    with running(Unfilterable(engine[0]), columns_before=BEFORE) as pod:
        lost = {"refused": 1, "filtersCompared": 1, "filtersLost": 1}
        assert added(pod, {"vector": QUERY, "filter": {"title": "title 3"}}) == (400, lost)
        assert added(pod, {"vector": QUERY, "filter": {"colour": "red"}}) == (400, {"refused": 1})
        assert added(pod, {"vector": QUERY}) == (200, {"requests": 1})
    with running(Unfilterable(engine[0]), columns_before={}) as pod:  # the one before took none, either
        assert added(pod, {"vector": QUERY, "filter": {"title": "title 3"}}) == (400, {"refused": 1})


TYPES = (
    pa.string(), pa.large_string(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.date32(),
    pa.timestamp("ns"), pa.timestamp("s", "UTC"), pa.null(), pa.binary(), pa.decimal128(9, 2),
)  # fmt: skip
VALUES = ("a", "2026-03-01", "2026-03-01T12:00:00Z", 3, 3.0, 3.5, 2**70, True, None, ["a"], {"a": 1})
OPERATORS = ("eq", "ne", "in", "gt", "lte", "contains", "exists", "like")


def takes(columns: FilterColumns, document: object) -> bool:
    try:
        parse(document, columns)
    except FilterError:
        return False
    return True


@pytest.mark.parametrize("arrow", [*TYPES, *map(pa.list_, TYPES)], ids=str)
def test_a_letter_says_which_filters_a_column_takes(arrow: pa.DataType) -> None:
    """Else a filter that was always refused would look lost, or one that is lost would not."""
    real, known = FilterColumns(pa.schema([("c", arrow)])), columns_of_letters({"c": _letter(arrow)})
    tried = [{"c": value} for value in VALUES]
    tried += [{"c": {name: value}} for name in OPERATORS for value in (*VALUES, list(VALUES[:3]), [3, 3.0])]
    assert [takes(real, one) for one in tried] == [takes(known, one) for one in tried]


def test_letters_of_another_release_are_of_no_use_to_filters() -> None:
    assert columns_of_letters({"c": "?", "and": "s", "title": "s"}).described == {"title": "string"}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "null"])
def test_columns_that_cannot_be_read_end_the_start(text: str) -> None:
    with pytest.raises(BadSpec) as caught:
        Settings.from_environment({contract.COLUMNS_BEFORE_ENV: text})
    assert caught.value.failure.field == contract.COLUMNS_BEFORE_ENV
    assert Settings.from_environment({contract.COLUMNS_BEFORE_ENV: '{"a": "s"}'}).columns_before == {"a": "s"}
    assert Settings.from_environment({contract.COLUMNS_BEFORE_ENV: "{}"}).columns_before == {}
    assert Settings.from_environment({}).columns_before is None
