"""Queries in words at a router: encoded there, by its own model or an endpoint, and asked of shards as vectors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_stub import Exchange, answering
from onnx_files import WORDS, word_vectors, write_encoder
from sharded import Router, addresses, make_part, pods_of, routing

from vectorindex_searcher.cli.main import main
from vectorindex_searcher.contract import EmbeddingsEndpoint, EncoderTask, ExitCode, Location, OnnxFolder, shard_of
from vectorindex_searcher.errors import BadSpec
from vectorindex_searcher.index.engine import Engine
from vectorindex_searcher.serve.route import router as router_module

router_module.SHARD_SECONDS = 60.0  # a busy machine misses no shard but those that a test wants missed
SHARDS = 3


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    """A row for each word, with the vector that the model makes of it; its id is its number."""
    folder, vectors = tmp_path_factory.mktemp("parts"), word_vectors()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    owners = np.array([shard_of(one, SHARDS) for one in range(len(WORDS))])
    found = []
    for number in range(SHARDS):
        mine = np.flatnonzero(owners == number)
        found.append(make_part(folder / str(number), mine.tolist(), vectors[mine], number))
    return found


def onnx(folder: Path) -> EncoderTask:
    sha256 = write_encoder(folder / "model")
    return EncoderTask(onnx=OnnxFolder(location=Location(folder=str(folder / "model")), sha256=sha256))


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, engines: list[Engine]) -> Iterator[Router]:
    folder = tmp_path_factory.mktemp("onnx")
    with (
        pods_of(engines) as pods,
        routing(addresses(pods), encoder=onnx(folder), cache_dir=str(folder / "cache")) as one,
    ):
        yield one


def first(result: dict[str, Any]) -> str:
    return WORDS[result["ids"][0]]


def test_a_text_finds_what_its_vector_finds_in_all_shards(router: Router) -> None:
    words = ["car", "tree", "house", "sea", "red"]
    _, _, answer = router.search({"texts": words, "k": 3})
    assert [first(result) for result in answer["results"]] == words
    assert answer["encodeMs"] >= 0
    _, _, one = router.search({"text": "green", "k": 10, "filter": {"size": {"lt": 8}}, "include": ["metadata"]})
    assert (first(one["results"][0]), len(one["results"][0]["ids"])) == ("green", 8)
    assert one["filter"]["rows"] == 8
    several = router.search({"texts": ["green", "blue"], "k": 1, "filter": {"size": {"lt": 8}}})[2]
    assert [first(result) for result in several["results"]] == ["green", "blue"]
    vector = word_vectors()[WORDS.index("car")]
    _, _, asked = router.search({"vector": vector.tolist(), "k": 3})
    assert asked["results"][0]["ids"] == answer["results"][0]["ids"]
    assert "encodeMs" not in asked


def test_what_is_said_of_texts_is_what_a_searcher_says(router: Router) -> None:
    _, _, answer = router.search({"text": "red " * 20})
    assert [(one["kind"], one["field"]) for one in answer["warnings"]] == [("TextTruncated", "text")]
    status, _, problem = router.search({"text": ""})
    assert (status, problem["field"]) == (400, "text")
    _, _, index = router.request("GET", "/v1/index")
    assert index["encoder"]["maxTokens"] == 6
    assert router.evidence()["queries"] >= 1


def test_a_router_without_an_encoder_says_so(engines: list[Engine]) -> None:
    with pods_of(engines) as pods, routing(addresses(pods)) as one:
        status, _, problem = one.search({"text": "car"})
        assert (status, problem["type"]) == (422, "urn:vectorindex:problem:NoEncoder")
        assert "encoder" not in one.request("GET", "/v1/index")[2]


def test_an_endpoint_encodes_and_what_it_does_not_encode_is_no_fault_of_a_shard(engines: list[Engine]) -> None:
    well = True

    def answer(one: Exchange) -> None:
        if not well:
            one.answer(500, {})
            return
        texts = one.body()["input"]
        vectors = [word_vectors()[WORDS.index(text)].tolist() for text in texts]
        one.answer(200, {"data": [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]})

    with answering(answer) as url, pods_of(engines) as pods:
        task = EncoderTask(endpoint=EmbeddingsEndpoint(url=f"{url}/v1/embeddings", model="words"))
        with routing(addresses(pods), encoder=task) as one:
            assert first(one.search({"text": "sea"})[2]["results"][0]) == "sea"
            well = False
            status, headers, problem = one.search({"text": "tree"})
            assert (status, problem["type"]) == (503, "urn:vectorindex:problem:EncoderUnavailable")
            assert headers["retry-after"]
            assert one.search({"vector": word_vectors()[4].tolist()})[0] == 200


def test_a_router_with_the_wrong_model_does_not_start(tmp_path: Path, engines: list[Engine]) -> None:
    sha256 = write_encoder(tmp_path / "model", table=word_vectors(4))
    task = EncoderTask(onnx=OnnxFolder(location=Location(folder=str(tmp_path / "model")), sha256=sha256))
    with (
        pods_of(engines) as pods,
        pytest.raises(BadSpec, match="dimension 4"),
        routing(addresses(pods), encoder=task, cache_dir=str(tmp_path / "cache")),
    ):
        pass


def test_flags_name_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--encoder", str(tmp_path), "--encoder-url", "http://e:1/v1/embeddings")
    assert main(["route", "--shard", "http://a:1", *both]) == ExitCode.BAD_SPEC
    assert "two encoders" in capsys.readouterr().out


def test_a_router_that_encodes_opens_no_faiss() -> None:
    code = "import vectorindex_searcher.text.onnx, vectorindex_searcher.serve.route.server, sys"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('faiss' in sys.modules)"], check=True, timeout=60)
