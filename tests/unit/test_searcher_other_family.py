"""A search parameter of another kind of index is no error after a switch: searchers of each kind, and the client."""

from __future__ import annotations

import asyncio
import http.client
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from searcher_process import started
from waiting import until

import vectorindex_client as vic
from vectorindex_searcher.build import task as build_module
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import (
    IGNORED_PARAMS_HEADER,
    SEARCH_PARAMS,
    BuildTask,
    Identity,
    IndexSpec,
    Location,
    ServeTask,
)

COUNT, DIMENSION, K = 600, 8, 5
DATA = np.random.default_rng(11).standard_normal((COUNT, DIMENSION)).astype(np.float32)
OWN = {"HNSW16": {"efSearch": 600}, "IVF8,Flat": {"nprobe": 8}, "Flat": {}}
"""Parameters that find everything, so that what is answered says whether they were obeyed."""
ANYTHING = dict.fromkeys(SEARCH_PARAMS, 7)


@dataclass(frozen=True)
class Family:
    """A searcher in a process of its own."""

    own: dict[str, int]
    users: int
    admin: int
    sent: Counter[str] = field(default_factory=Counter)
    """How many requests that were answered named each parameter of another kind."""

    @property
    def asked(self) -> dict[str, int]:
        """Its own parameters, and those of every other kind."""
        return ANYTHING | self.own

    @property
    def foreign(self) -> tuple[str, ...]:
        return tuple(sorted(ANYTHING.keys() - self.own.keys()))

    def request(self, port: int, method: str, path: str, body: object = None) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def counts(self) -> None:
        """The metrics come to say what was sent, and no more: they are a second old at most."""
        until(lambda: self._ignored() == dict(self.sent), 30)

    def _ignored(self) -> dict[str, float]:
        text = self.request(self.admin, "GET", "/metrics")[2].decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return {one.labels["param"]: one.value for one in samples if one.name == "vectorindex_ignored_params_total"}


@pytest.fixture(scope="module", params=OWN)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    root = tmp_path_factory.mktemp("family")
    (root / "in").mkdir()
    np.save(root / "in" / "rows.npy", DATA)
    places = {"identity": Identity(name="n"), "digest": "d1", "artifacts": Location(folder=str(root / "out"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "HELD_OUT", 20)
        source, index = Location(folder=str(root / "in")), IndexSpec(factory=request.param)
        built = build(BuildTask(**places, source=source, index=index))
    task = ServeTask(
        **places, revision="n-d1", manifest_sha256=built.manifest_sha256, cache_dir=str(root / "cache")
    )  # fmt: skip
    with started(task) as searcher:
        yield Family(OWN[request.param], searcher.port(), searcher.port("admin port open"))


def exact(number: int) -> list[int]:
    unit = DATA / np.linalg.norm(DATA, axis=1, keepdims=True)
    return np.argsort(-(unit @ unit[number]), kind="stable")[:K].tolist()


@pytest.mark.parametrize("track", [False, True], ids=["binary", "JSON"])
def test_both_clients_tell_what_was_ignored_and_the_rest_is_obeyed(family: Family, track: bool) -> None:
    url = f"http://127.0.0.1:{family.users}"

    async def awaited() -> list[vic.Result]:
        async with vic.AsyncClient(url) as client:
            return [
                await client.search(DATA[7], K, params=family.asked, track=track),
                *await client.search_many(DATA[7:9], K, params=family.asked, track=track),
            ]

    with vic.Client(url) as client:
        one = client.search(DATA[7], K, params=family.asked, track=track)
        two = client.search_many(DATA[7:9], K, params=family.asked, track=track)
        plain = client.search(DATA[7], K, params=family.own, track=track)
    for found, number in zip((one, *two, *asyncio.run(awaited())), (7, 7, 8, 7, 7, 8), strict=True):
        assert found.ignored_params == family.foreign
        assert found.ids == exact(number)
    assert (plain.ids, plain.ignored_params) == (one.ids, ())
    family.sent.update(4 * family.foreign)
    family.counts()


def test_an_answer_says_it_in_its_body_and_header_and_it_is_counted(family: Family) -> None:
    body = {"vector": DATA[7].tolist(), "k": K}
    status, headers, text = family.request(family.users, "POST", "/v1/search", body | {"params": family.asked})
    assert status == 200
    assert headers[IGNORED_PARAMS_HEADER] == ", ".join(family.foreign)
    warnings = orjson.loads(text)["warnings"]
    assert [one["field"] for one in warnings] == [f"params.{name}" for name in family.foreign]
    assert {one["kind"] for one in warnings} == {"IgnoredParam"}
    _, headers, text = family.request(family.users, "POST", "/v1/search", body | {"params": family.own})
    assert headers[IGNORED_PARAMS_HEADER] is None
    assert "warnings" not in orjson.loads(text)
    family.sent.update(family.foreign)
    family.counts()


def test_what_is_wrong_is_still_refused_by_name(family: Family) -> None:
    known = ", ".join(name for name in ("efSearch", "nprobe") if name in family.own)
    remedy = f"known are: {known}" if known else "leave it out: none is known here"
    wrong: list[tuple[dict[str, object], str, str]] = [
        ({"efsearch": 64}, "UnknownField", remedy),
        ({family.foreign[0]: "many"}, "InvalidField", "an integer"),
        *(({name: 0}, "InvalidField", "an integer from 1 to") for name in family.own),
        *(({name: 1 << 30}, "InvalidField", "an integer from 1 to") for name in family.own),
    ]
    for params, kind, remedy in wrong:
        body = {"vector": DATA[7].tolist(), "params": params}
        status, _, text = family.request(family.users, "POST", "/v1/search", body)
        problem = orjson.loads(text)
        assert (status, problem["type"].rpartition(":")[2]) == (400, kind)
        assert problem["field"] == f"params.{next(iter(params))}"
        assert remedy in problem["remedy"]
    name = family.foreign[0]
    status, _, _ = family.request(family.users, "POST", "/v1/search", {"vector": DATA[7].tolist(), "params": {name: 1}})
    assert status == 200
    family.sent[name] += 1
    family.counts()
