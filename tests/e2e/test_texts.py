"""Words with the real all-MiniLM-L6-v2: rows that are texts are encoded by the build, each text once; and another
pooling or prefix than the vectors were made with is refused with the figures.

The rows are of examples/stdlib-docs, whose vectors the same model made long ago, in Python.
"""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.vectors import Floats
from e2e.workspace import SLOW, SMALL, Workspace, no_failures
from layers import CHECKOUT, unavailable

from demo import encoder as real
from harness.errors import HarnessError
from harness.kube import Json
from vectorindex_searcher.contract import Location
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text.folder import describe

EXAMPLE = CHECKOUT / "examples" / "stdlib-docs"
MODULES = ("json", "csv", "logging")
ROWS = 120
"""A text takes ten milliseconds of a core."""
CHANGED, ADDED = 12, 3
ROOM = {"requests": SMALL["requests"], "limits": {"memory": "2Gi"}}
"""For the model's files twice, and for running it."""

_making = threading.Lock()


@dataclass(frozen=True)
class Documents:
    """Rows with a text, and the vectors that the model made of them elsewhere."""

    ids: list[str]
    texts: list[str]
    vectors: Floats

    @classmethod
    def read(cls) -> Documents:
        table = pq.read_table(EXAMPLE / "documents.parquet").to_pydict()
        of = [row for row, module in enumerate(table["module"]) if module.split(".")[0] in MODULES][:ROWS]
        ids, texts = ([table[name][row] for row in of] for name in ("id", "text"))
        return cls(ids, texts, np.array([table["vector"][row] for row in of], np.float32))

    def edited(self) -> Documents:
        """With other texts in the first rows, and some rows more."""
        texts = [f"{text} Changed." for text in self.texts[:CHANGED]] + self.texts[CHANGED:]
        more = [f"Something that nobody has said before, number {number}" for number in range(ADDED)]
        return replace(self, ids=self.ids + [f"more-{n}" for n in range(ADDED)], texts=texts + more)

    def part(self, rows: int) -> Documents:
        """The first of them."""
        return replace(self, ids=self.ids[:rows], texts=self.texts[:rows], vectors=self.vectors[:rows])

    def parquet(self, *, vectors: bool) -> bytes:
        """Without their vectors they are ids and texts alone."""
        columns: dict[str, Any] = {"id": self.ids, "text": self.texts}
        if vectors:
            columns["vector"] = list(self.vectors)
        out = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), out)
        return bytes(out.getvalue())

    def nearest(self, question: Floats) -> str:
        """The id of the row that the model thinks nearest."""
        return self.ids[int(np.argmax(self.vectors @ question))]


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_each_text_is_encoded_once_and_rows_are_found_in_words(workspace: Workspace) -> None:
    space, index, documents, model = workspace, workspace.index, Documents.read(), _model()
    edited = documents.edited()
    space.put("good", documents.parquet(vectors=False))
    space.put("edited", edited.parquet(vectors=False))
    spec = _words(space, _put_model(space, "model", model))
    spec["source"]["columns"] |= {"text": "text"}
    space.apply("good", **spec)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable")
    told = index.revision(first)
    texts = told["build"]["texts"]
    distinct = len(set(documents.texts))
    assert (texts["encoded"], texts["known"]) == (distinct, ROWS - distinct)
    assert told["report"]["encoder"]["deviating"] == 0

    asked = _questions()
    found = [_ask(space, text)["results"][0]["ids"][0] for text, _ in asked]
    wanted = [documents.nearest(vector) for _, vector in asked]
    assert found == wanted, "as by the vectors that were made elsewhere"

    with space.asked([json.dumps({"text": text, "k": 3}) for text, _ in asked], SLOW) as traffic:
        space.apply("edited", **spec)
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        seen = traffic.wait_answers(second)
    no_failures(seen, at_least=500)
    texts = index.revision(second)["build"]["texts"]
    print(f"encoded {distinct} texts, then {texts}")
    assert (texts["encoded"], texts["known"]) == (CHANGED + ADDED, ROWS - CHANGED), "the others were known"
    assert _ask(space, edited.texts[-1])["results"][0]["ids"][0] == edited.ids[-1]
    kept = [key for key in space.stored() if "/texts/" in key]
    assert len(kept) == 2, f"a pack for each build: {kept}"


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_another_pooling_or_prefix_is_refused_with_the_figures(workspace: Workspace, tmp_path: Path) -> None:
    space, index, documents, model = workspace, workspace.index, Documents.read(), _model()
    space.put("good", documents.parquet(vectors=True))
    space.put("again", documents.part(ROWS - 1).parquet(vectors=True))
    right = _words(space, _put_model(space, "model", model))
    space.apply("good", **right)
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable")
    known = {first}
    proof = index.revision(first)["report"]["encoder"]
    assert proof["rows"] > 0.9 * ROWS, "but for those that the model would cut"
    assert proof["deviating"] < 0.05 * ROWS, proof

    other = _put_model(space, "other", _by_its_first_token(model, tmp_path / "other"))
    for what, folder, spec in (
        ("pooling", "good", _words(space, other, "other")),
        ("prefix", "again", right | {"embedding": right["embedding"] | {"documentPrefix": "passage: "}}),
    ):
        space.apply(folder, **spec)
        revision = index.wait_new_revision(known)
        known.add(revision)
        space.wait_phase(revision, "Rejected", timeout=180)
        said: Json = index.revision(revision)["gate"]
        print(f"{what}: {said['message']}")
        assert said["reason"] == "EncoderDeviates", said
        assert "rows below 0.99" in said["message"], "with the figures"
        assert said["message"] in index.wait_condition("Stalled")["message"]
    assert index.traffic() == first


def _model() -> Path:
    """The folder of the real model. Made the first time, which takes minutes: `make encoder` before."""
    with _making:
        try:
            real.obtain()
        except HarnessError as lacking:
            unavailable("e2e", str(lacking), "make encoder")
    return real.FOLDER


def _words(space: Workspace, sha256: str, folder: str = "model") -> dict[str, Any]:
    return {
        "source": {"columns": {"metadata": ["text"]}},
        "index": {"factory": "Flat"},
        "gate": {"recall": {"min": 0.8}},
        "build": {"resources": ROOM},
        "searcher": {"minScore": 0.0, "resources": ROOM},
        "embedding": {
            "dimension": 384,
            "encoder": {"onnx": {"s3": space.s3(f"{folder}/"), "sha256": sha256}, "textColumn": "text"},
        },
    }


def _put_model(space: Workspace, folder: str, model: Path) -> str:
    """The model's files into the bucket; their SHA-256."""
    sha256, names = describe(open_store(Location(folder=str(model)), Role.ENCODER))
    for name in names:
        space.store.put(space.bucket, f"{folder}/{name}", model / name)
    return sha256


def _by_its_first_token(model: Path, folder: Path) -> Path:
    """The same model, pooled in another way."""
    shutil.copytree(model, folder)
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    return folder


def _questions() -> list[tuple[str, Floats]]:
    """Questions in words about these modules, with what the model made of them elsewhere."""
    table = pq.read_table(EXAMPLE / "queries.parquet").to_pydict()
    of = [row for row, right in enumerate(table["relevant_ids"]) if right[0].split(".")[0] in MODULES][:10]
    return [(table["query"][row], np.array(table["vector"][row], np.float32)) for row in of]


def _ask(space: Workspace, text: str) -> Any:
    path = f"/api/v1/namespaces/{space.namespace}/services/{space.index.name}:http/proxy/v1/search"
    status, answer = space.kube.call("POST", path, body={"text": text, "k": 3})
    assert status == 200, answer
    return answer
