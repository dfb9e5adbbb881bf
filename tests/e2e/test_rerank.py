"""A cross-encoder on real pods: its gain is proven by labelled questions in words, and one that harms never serves.

Both models are tiny and made here. The cross-encoder likes texts of the sea, and so do those who ask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.vectors import Floats, parquet
from e2e.workspace import SLOW, Workspace, no_failures
from onnx_files import DIMENSION, WORDS, mean_of, weights_of, write_encoder, write_reranker

ROWS, QUESTIONS = 600, 200
CANDIDATES, NEAR = 50, 4
"""Right answers are among the first NEAR by their vectors, so that an order can win them and lose them."""
INLAND = WORDS[1:7]
NOISE = 0.02
"""Far less than what the gate takes for another model, and enough for no two rows to be the same."""
SHARE = {"name": "reranked", "metric": "RerankedShare", "min": "50%", "window": "10s", "warmUp": "0s"}
RULES = {"rules": [SHARE | {"minSamples": 100, "consecutive": 1}]}


@dataclass(frozen=True)
class Sea:
    """Rows with a text, whose vectors an encoder makes, and one that says the contrary; questions of the inland, whose
    right answer is the nearest row by the sea."""

    texts: list[str]
    contrary: list[str]
    vectors: Floats
    asked: list[str]
    asked_vectors: Floats
    right: list[list[str]]

    @classmethod
    def make(cls) -> Sea:
        rng = np.random.default_rng(3)
        texts = [" ".join(rng.choice(WORDS[1:8], rng.integers(1, 5))) for _ in range(ROWS)]
        vectors = _unlike(rng, texts)
        asked, right = [], []
        wanted = [" ".join(rng.choice(INLAND, rng.integers(1, 4))) for _ in range(20 * QUESTIONS)]
        nearest = np.argsort(-_unlike(rng, wanted) @ _unit(vectors).T, axis=1)[:, :NEAR]
        for said, rows in zip(wanted, nearest, strict=True):
            by_the_sea = [row for row in rows if "sea" in texts[row].split()]
            if by_the_sea and len(asked) < QUESTIONS:
                asked.append(said)
                right.append([f"row-{by_the_sea[0]}"])
        contrary = ["house" if "sea" in text.split() else "sea" for text in texts]
        return cls(texts, contrary, vectors, asked, _unlike(rng, asked), right)

    def rows(self) -> bytes:
        return parquet(_ids(self.texts), self.vectors, text=self.texts, contrary=self.contrary)

    def labelled(self) -> bytes:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(self.asked_vectors.ravel(), pa.float32()), DIMENSION)
        out = pa.BufferOutputStream()
        pq.write_table(pa.table({"vector": flat, "said": self.asked, "right": self.right}), out)
        return bytes(out.getvalue())


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_an_order_that_gains_serves_and_one_by_another_column_is_rejected(workspace: Workspace) -> None:
    space, index, sea = workspace, workspace.index, Sea.make()
    space.put("good", sea.rows())
    space.put("queries", sea.labelled())
    encoder, reranker = _put_models(space)
    spec = _words(space, encoder)
    space.apply("good", **spec)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable")
    with space.asked([json.dumps({"text": said, "k": 10}) for said in sea.asked], SLOW) as traffic:
        space.apply("good", **_reranked(space, spec, reranker, "text"))
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        traffic.wait_answers(second)
        told = index.revision(second)
        gain = told["report"]["rerank"]["mrr"]
        assert gain["low"] > 0, gain
        assert "reranked: MRR of the right answers" in told["gate"]["message"], "with its figures"
        (share,) = [one for one in told["rollout"]["verdicts"] if one["rule"] == "reranked"]
        assert share["verdict"] == "Pass", share
        for said in sea.asked[:12]:
            answer = _ask(space, said)
            assert answer["reranked"] is True, answer
            assert "sea" in sea.texts[int(answer["results"][0]["ids"][0].removeprefix("row-"))]

        space.apply("good", **_reranked(space, spec, reranker, "contrary"))
        third = index.wait_new_revision({first, second})
        space.wait_phase(third, "Rejected", timeout=180)
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    assert set(seen.revisions) == {first, second}
    assert index.traffic() == second
    said = index.revision(third)["gate"]
    print(told["gate"]["message"], share, said["message"], sep="\n")
    assert said["reason"] == "RerankHarms", said
    assert "labelled queries" in said["message"], "with its figures"


def _words(space: Workspace, sha256: str) -> dict[str, Any]:
    return {
        "source": {"columns": {"metadata": ["text", "contrary"]}},
        "index": {"factory": "Flat"},
        "searcher": {"minScore": -1.0},
        "embedding": {"encoder": {"onnx": {"s3": space.s3("encoder/"), "sha256": sha256}, "textColumn": "text"}},
        "gate": {
            "queries": {"s3": space.s3("queries/"), "textColumn": "said"},
            "relevance": {"relevantColumn": "right"},
        },
    }


def _reranked(space: Workspace, spec: dict[str, Any], sha256: str, column: str) -> dict[str, Any]:
    rerank = {"onnx": {"s3": space.s3("reranker/"), "sha256": sha256}, "textColumn": column}
    rerank |= {"candidates": CANDIDATES, "budget": "2000ms"}
    return spec | {"searcher": spec["searcher"] | {"rerank": rerank}, "guardrails": RULES}


def _put_models(space: Workspace) -> tuple[str, str]:
    """Both into the bucket; their SHA-256."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        sums = write_encoder(folder / "encoder"), write_reranker(folder / "reranker", weights_of(sea=5))
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            space.store.put(space.bucket, str(path.relative_to(folder)), path)
    return sums


def _unlike(rng: np.random.Generator, texts: list[str]) -> Floats:
    """What the encoder makes of each, and a little of something else."""
    made = np.stack([mean_of(text) for text in texts])
    return (made + rng.normal(scale=NOISE, size=made.shape)).astype(np.float32)


def _unit(rows: Floats) -> Floats:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _ids(texts: list[str]) -> tuple[str, ...]:
    return tuple(f"row-{number}" for number in range(len(texts)))


def _ask(space: Workspace, text: str) -> Any:
    path = f"/api/v1/namespaces/{space.namespace}/services/{space.index.name}:http/proxy/v1/search"
    status, answer = space.kube.call("POST", path, body={"text": text, "k": 10})
    assert status == 200, answer
    return answer
