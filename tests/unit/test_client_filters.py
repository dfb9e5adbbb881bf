"""Filters and fields of the Python client: what a program has becomes JSON, or is refused with its place."""

from __future__ import annotations

import enum
import json
import uuid
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from vectorindex_client import calls, filters

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
IDENTITY = uuid.UUID("12345678123456781234567812345678")


class Colour(enum.Enum):
    RED = "red"


TAKEN: dict[str, tuple[Any, Any]] = {
    "int64": (np.int64(2024), 2024),
    "uint8": (np.uint8(7), 7),
    "float32": (np.float32(0.5), 0.5),
    "float64": (np.float64(0.1), 0.1),
    "bool_": (np.bool_(True), True),
    "str_": (np.str_("a"), "a"),
    "an array of one number": (np.array(3), 3),
    "integers": ({"in": np.arange(3)}, {"in": [0, 1, 2]}),
    "texts": ({"in": np.array(["a", "b"])}, {"in": ["a", "b"]}),
    "objects": ({"in": np.array([1, "b"], object)}, {"in": [1, "b"]}),
    "a set": ({"in": {2024}}, {"in": [2024]}),
    "a tuple of numpy's": ({"in": (np.int32(1), 2)}, {"in": [1, 2]}),
    "the keys of a mapping": ({"in": {"a": 1}.keys()}, {"in": ["a"]}),
    "a day": ({"gte": date(2024, 1, 1)}, {"gte": "2024-01-01"}),
    "a time": ({"lt": NOON}, {"lt": "2024-05-01T12:00:00+00:00"}),
    "numpy's day": (np.datetime64("2024-05-01"), "2024-05-01"),
    "numpy's time": (np.datetime64("2024-05-01T12:00:00"), "2024-05-01T12:00:00Z"),
    "numpy's nanoseconds, whole": (np.datetime64("2024-05-01T12:00:00.000001000"), "2024-05-01T12:00:00.000001Z"),
    "numpy's days": ({"in": np.array(["2024-05-01"], "M8[D]")}, {"in": ["2024-05-01"]}),
    "a UUID": (IDENTITY, str(IDENTITY)),
    "an enumeration": (Colour.RED, "red"),
    "nothing": ({"eq": None}, {"eq": None}),
}


@pytest.mark.parametrize(("given", "sent"), TAKEN.values(), ids=TAKEN.keys())
def test_what_a_program_has_becomes_json(given: Any, sent: Any) -> None:
    assert filters.plain({"or": [{"column": given}]}) == {"or": [{"column": sent}]}
    found = filters.plain({"column": given})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"column": sent}


REFUSED: dict[str, tuple[Any, str, str]] = {
    "not a number": ({"x": {"lt": float("nan")}}, r"filter\.x\.lt: nan is no finite number", "exists"),
    "numpy's infinity": ({"x": np.float32(np.inf)}, r"filter\.x: .*inf.* is no finite number", "exists"),
    "a time without a zone": (
        {"or": [{"x": {"gt": datetime(2024, 1, 1)}}]},
        r"filter\.or\[0\]\.x\.gt: .*zone",
        "tzinfo",
    ),
    "not a time": ({"x": np.datetime64("NaT")}, r"filter\.x: .*NaT", "microseconds"),
    "nanoseconds": ({"x": np.datetime64("2024-01-01T00:00:00.000000001")}, r"filter\.x: .*finer", r"datetime64\[us\]"),
    "the year 200000": ({"x": np.datetime64(200000, "Y")}, r"filter\.x: .*years", "within"),
    "bytes": ({"x": {"in": ["a", b"secret"]}}, r"filter\.x\.in\[1\]: b'secret' is of type bytes", "write a text"),
    "numpy's bytes": ({"x": np.bytes_(b"a")}, r"filter\.x: .*bytes_", "write a text"),
    "a duration": ({"x": np.timedelta64(1, "s")}, r"filter\.x: .*timedelta64", "write a text"),
    "a complex number": ({"x": 1j}, r"filter\.x: 1j is of type complex", "write a text"),
    "an object": ({"x": object()}, r"filter\.x: .*object", "write a text"),
    "a column that is no text": ({1: 2}, "filter: 1 is the name of a column and no text", "text"),
    "a list": ([("x", 1)], r"filter: \[\('x', 1\)\] is no filter", "mapping"),
    "a text": ("x = 1", "filter: x = 1 is no filter", "mapping"),
}


@pytest.mark.parametrize(("given", "said", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_filter_can_hold_is_refused_with_place_value_and_remedy(given: Any, said: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){said}.*{remedy}"):
        filters.plain(given)


def test_a_filter_without_an_end_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["not"] = circle
    with pytest.raises(ValueError, match="levels deep"):
        filters.plain(circle)
    wide = {"x": {"in": np.zeros(filters.MAX_VALUES + 1, np.int8)}}
    with pytest.raises(ValueError, match="values in one filter"):
        filters.plain(wide)
    with pytest.raises(ValueError, match="bytes") as caught:
        filters.plain({"x": b"x" * 100_000})
    assert len(str(caught.value)) < 500


def test_the_other_fields_take_numpys_numbers_too() -> None:
    wanted = calls.fields(np.int64(3), min_score=np.float32(0.5), params={"efSearch": np.int32(9)})
    assert (wanted.k, wanted.min_score, wanted.params) == (3, 0.5, {"efSearch": 9})
    assert {type(wanted.k), type(wanted.params["efSearch"])} == {int}
    for given, place in (({"k": 3.5}, "k"), ({"k": True}, "k"), ({"params": {"nprobe": "2"}}, "params.nprobe"),
                         ({"min_score": "high"}, "min_score")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{place}: .*write"):
            calls.fields(**given)
