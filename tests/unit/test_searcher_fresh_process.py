"""Fresh rows over the wire, of a searcher in one process and of one in several."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from searcher_process import Searcher, started
from served import COUNT, Published, get, publish_all
from unit.test_searcher_serve_workers import asking, metric
from waiting import until

from vectorindex_searcher import contract
from vectorindex_searcher.contract import FRESH_ENV, FRESH_HEADER, FRESH_PATH, SOURCE_ENV, SOURCE_PATH


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("good"), ef_search=300)


@pytest.fixture(params=["1", "2"], ids=["one process", "two processes"])
def searcher(published: Published, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Searcher, Path]]:
    folder, source = tmp_path / "fresh", tmp_path / "source"
    folder.mkdir()
    source.mkdir()
    (source / "a.jsonl").write_text('{"id": 1, "vector": [1]}\n')
    artifacts = contract.Location(folder=str(published.root / "store"))
    told = contract.FreshTask(place=contract.Location(folder=str(folder)), poll_seconds=1)
    resolve = contract.ResolveTask(
        identity=published.task.identity, source=contract.Location(folder=str(source)), artifacts=artifacts
    )
    task = published.task.model_copy(update={"live_recall": True})
    environment = {
        FRESH_ENV: told.task_text(first_release=False),
        SOURCE_ENV: resolve.task_text(first_release=False),
        "VECTORINDEX_PROCESSES": request.param,
        "VECTORINDEX_GRACE_SECONDS": "0.05",
    }
    write(folder / "a.jsonl", [COUNT], published.vectors[0].tolist())
    with started(task, **environment) as one:
        yield one, folder


def write(path: Path, ids: list[int], vector: list[float]) -> None:
    rows = ({"id": one, "vector": vector, "title": "fresh"} for one in ids)
    path.with_name("_" + path.name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path.with_name("_" + path.name).rename(path)


def order(admin: int, document: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=60)
    connection.request("POST", FRESH_PATH, orjson.dumps(document))
    answer = orjson.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_from_a_file_to_every_answer_and_back(published: Published, searcher: tuple[Searcher, Path]) -> None:
    one, folder = searcher
    vector = published.vectors[0].tolist()
    document = {"vector": vector, "k": 3, "include": ["metadata"]}
    port, admin = one.port(), one.port("admin port open")
    with asking(port, 4) as users:
        for ask in users:  # the first snapshot was there before anybody could ask
            status, answer, _ = ask(document)
            first = answer["fresh"]
            assert (status, first > 0) == (200, True)
            assert answer["results"][0]["ids"][:2] == [0, COUNT]
            assert answer["results"][0]["metadata"][1] == {"title": "fresh"}
        write(folder / "b.jsonl", [0, COUNT + 1], vector)
        until(lambda: all(ask(document)[1]["fresh"] == first + 1 for ask in users))
        for ask in users:
            assert sorted(ask(document)[1]["results"][0]["ids"]) == [0, COUNT, COUNT + 1], "each id once"
        assert ask({**document, "minFresh": first + 1})[0] == 200
        status, problem, _ = ask({**document, "minFresh": first + 2})
        assert (status, problem["fresh"]) == (409, first + 1)

        look = get(admin, FRESH_PATH)[1]
        assert (look["number"], look["rows"], look["files"], look["off"], look["refused"]) == (
            first + 1,
            3,
            2,
            False,
            [],
        )
        assert get(admin, f"{SOURCE_PATH}?maxAge=0")[1]["fresh"]["number"] == first + 1
        assert metric(admin, "vectorindex_fresh_rows") == {(): 3.0}
        answered = ask(document)[1]["results"][0]["ids"]
        (folder / "bad.jsonl").write_text('{"id": 9, "vector": [1, 2], "title": "x"}\n')
        until(lambda: get(admin, FRESH_PATH)[1]["refused"])
        assert get(admin, FRESH_PATH)[1]["refused"][0]["object"] == "bad.jsonl"
        until(lambda: all(ask(document)[1]["fresh"] == first + 2 for ask in users))
        assert ask(document)[1]["results"][0]["ids"] == answered, "no other file waits for it"

        assert order(admin, {"off": True, "ttlSeconds": 2.0})["off"]
        until(lambda: all("fresh" not in ask(document)[1] for ask in users))
        assert ask(document)[1]["results"][0]["ids"][0] == 0
        until(lambda: all(ask(document)[1].get("fresh") == first + 2 for ask in users))
        assert not get(admin, FRESH_PATH)[1]["off"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/search", orjson.dumps(document))
        assert connection.getresponse().getheader(FRESH_HEADER) == str(first + 2)
        connection.close()
    assert order(admin, {"off": True, "ttlSeconds": 0})["status"] == 400
