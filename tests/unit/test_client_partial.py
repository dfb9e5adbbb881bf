"""An answer that lacks shards, as the Python client tells it: of a real router whose second shard is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scripted import answer, ask, scripted
from sharded import DIMENSION, addresses, make_part, pods_of, routing

import vectorindex_client as vic
from vectorindex_client.stores import rows_of
from vectorindex_searcher.contract import Partial, shard_of

SHARDS, COUNT = 2, 40
QUERY = [1.0] + [0.0] * (DIMENSION - 1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("partial")
    vectors = np.random.default_rng(7).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    engines = []
    for number in range(SHARDS):
        mine = [row for row in range(COUNT) if shard_of(row, SHARDS) == number]
        engines.append(make_part(Path(folder) / str(number), mine, vectors[mine], number))
    with pods_of(engines) as pods, routing(addresses(pods), partial=Partial.ALLOW) as router:
        base = f"http://127.0.0.1:{router.users}"
        with vic.Client(base) as client:
            assert (client.search(QUERY).partial, client.search(QUERY).shards_missing) == (False, ())
        pods[1][0].lose()
        yield base


@pytest.mark.parametrize("metadata", [False, True])
def test_a_partial_answer_says_which_shards_it_lacks(url: str, metadata: bool) -> None:
    """Binary, and as JSON."""

    async def asynchronous() -> list[vic.Result]:
        async with vic.AsyncClient(url) as client:
            one = await client.search(QUERY, k=COUNT, include_metadata=metadata)
            return [one, *await client.search_many([QUERY, QUERY], k=COUNT, include_metadata=metadata)]

    with vic.Client(url) as client:
        found = [client.search(QUERY, k=COUNT, include_metadata=metadata), *asyncio.run(asynchronous())]
    for one in found:
        assert (one.partial, one.shards_missing) == (True, (1,))
        assert set(one.ids) == {row for row in range(COUNT) if shard_of(row, SHARDS) == 0}


def test_what_adapters_hand_on_of_a_partial_answer_says_so(url: str) -> None:
    with vic.Client(url) as client:
        rows = rows_of(client.search(QUERY, k=3, include_metadata=True), "title")
    assert [row.metadata["_shards_missing"] for row in rows] == [[1]] * 3


def test_a_header_that_holds_no_numbers_is_no_searchers() -> None:
    body = b'{"results": [{"ids": [], "scores": []}], "revision": "r", "tookMs": 1}'
    given = answer(200, body, "X-VectorIndex-Shards-Missing: all", kind="application/json")
    with scripted(given) as script, pytest.raises(vic.ServerError):
        ask(script)
