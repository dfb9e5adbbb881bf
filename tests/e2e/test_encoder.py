"""Queries in words: searchers that fetch an encoder from the bucket, and a gate that knows the wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_files
import pytest
from e2e.vectors import parquet
from e2e.workspace import SLOW, Workspace, no_failures
from onnx_files import WORDS, mean_of, word_vectors, write_encoder

ROWS = 600
OK = 200


@pytest.mark.long
@pytest.mark.together("claims and words")
def test_words_are_answered_and_another_model_never_serves(workspace: Workspace) -> None:
    space, index = workspace, workspace.index
    sha256, other = _put_model(space, "model"), _put_model(space, "other", word_vectors()[::-1].copy())
    said = _texts(1)
    space.put("good", _rows(said))
    space.put("better", _rows(_texts(2)))

    space.apply("good", **_words(space, "model", sha256))
    index.wait_condition("RolledOut", timeout=300)
    first = index.traffic()
    status, answer = _ask(space, "red car")
    assert status == OK, f"{answer}\n{index.explain()}"
    shown = [said[int(one.removeprefix("row-"))] for one in answer["results"][0]["ids"]]
    assert {" ".join(sorted(text.split())) for text in shown} <= {"car red", "car car red red"}, shown

    questions = [json.dumps({"text": text, "k": 3}) for text in sorted(set(said))]
    with space.asked(questions, SLOW) as traffic:
        space.apply("better", **_words(space, "model", sha256))
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        traffic.wait_answers(second)

        space.apply("better", **_words(space, "other", other))
        third = index.wait_new_revision({first, second})
        space.wait_phase(third, "Rejected", timeout=180)
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    assert index.traffic() == second
    assert "EncoderDeviates" in json.dumps(index.revision(third))
    assert set(seen.revisions) == {first, second}


def _words(space: Workspace, folder: str, sha256: str) -> Any:
    return {
        "source": {"columns": {"metadata": ["text"]}},
        "index": {"factory": "Flat"},
        "searcher": {"minScore": 0.0},
        "embedding": {"encoder": {"onnx": {"s3": space.s3(f"{folder}/"), "sha256": sha256}, "textColumn": "text"}},
    }


def _put_model(space: Workspace, folder: str, table: Any = None) -> str:
    """A tiny model of sentence-transformers into the bucket; its SHA-256."""
    with TemporaryDirectory() as made:
        sha256 = write_encoder(Path(made), table=table)
        for path in sorted(one for one in Path(made).rglob("*") if one.is_file()):
            space.store.put(space.bucket, f"{folder}/{path.relative_to(made)}", path)
    return sha256


def _texts(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[1:8], rng.integers(1, 5))) for _ in range(ROWS)]


def _rows(texts: list[str]) -> bytes:
    vectors = np.stack([mean_of(text) for text in texts]).astype(np.float32)
    assert vectors.shape == (ROWS, onnx_files.DIMENSION)
    return parquet(tuple(f"row-{n}" for n in range(ROWS)), vectors, text=texts)


def _ask(space: Workspace, text: str) -> tuple[int, Any]:
    path = f"/api/v1/namespaces/{space.namespace}/services/{space.index.name}:http/proxy/v1/search"
    return space.kube.call("POST", path, body={"text": text, "k": 3})
