"""Indexes that were built elsewhere, by plain FAISS: taken, proven and rolled out, or refused by name.

What such a file claims is another team's word, or worse. So the pods that read it end with a reason, and those that
serve users notice nothing.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.vectors import DIMENSION, Corpus, Floats, parquet
from e2e.workspace import NAME, SLOW, Workspace, no_failures

from harness.commands import run
from harness.kube import Json

NTOTAL, LENGTH = 8, 37
"""Where in the file of a Flat index it says how many rows, and how many numbers, there are."""
WORN = {137: "killed for memory", 139: "a crash", 134: "an abort"}
"""Exit codes of a process that did not end by itself."""


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_it_is_checked_tuned_proven_and_promoted_under_traffic(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    _put_queries(served, corpus)
    order = np.random.default_rng(7).permutation(len(corpus.ids))
    made = _file(_built("IVF32,Flat", _unit(corpus.vectors)[order]))
    names = np.array(corpus.ids)[order]
    with served.traffic(corpus, SLOW) as traffic:
        served.apply("good", **_imported(served, made, names))
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        seen = traffic.wait_answers(second)
        status = index.revision(second)
        build, gate = status["build"], status["gate"]
        assert (build["factory"], build["count"]) == ("Imported", len(corpus.ids))
        assert build["defaultPoint"]["params"]["nprobe"] >= 1, "tuned as any other"
        assert (gate["verdict"], gate["reason"]) == ("Pass", "RecallProven"), gate
        for query in corpus.queries(12):
            (best, _), *_ = corpus.nearest(query, 1)
            assert served.ask(query, k=10)["results"][0]["ids"][0] == best

        # The ids of other rows: each answer would be somebody else's.
        served.apply("good", **_imported(served, made, np.roll(names, 1)))
        third = index.wait_new_revision({first, second})
        served.wait_phase(third, "Rejected", timeout=180)
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    assert set(seen.revisions) == {first, second}
    said = index.revision(third)["gate"]
    assert said["reason"] == "RecallBelowMin", said
    assert "0.0" in said["message"], "with the figure"
    assert index.traffic() == second


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_without_vectors_it_is_proven_against_what_it_gives_back_and_says_so(
    workspace: Workspace, corpus: Corpus
) -> None:
    space, index = workspace, workspace.index
    _put_queries(space, corpus)
    space.put("good", _ids_alone(corpus))
    bare = {"source": {"columns": {"vector": "", "metadata": ["name"]}}, "embedding": {"dimension": DIMENSION}}
    rows = _unit(corpus.vectors)
    space.apply("good", **bare, **_imported(space, _file(_built("IVF32,SQ8", rows)), np.array(corpus.ids)))
    first = index.wait_new_revision(set())
    index.wait_revision(first, "Stable")
    status = index.revision(first)
    assert (status["report"]["truth"], status["gate"]["reason"]) == ("Reconstructions", "RecallOfReconstructions")
    assert "recall@10 of reconstructions" in _plugin(space, "report", NAME, first)
    for query in corpus.queries(12):
        (best, _), *_ = corpus.nearest(query, 1)
        assert best in space.ask(query, k=10)["results"][0]["ids"]

    # What whitening scales is forgotten in its file: it gives vectors back that it was not built from.
    whitened = _file(_built(f"PCAW{DIMENSION // 2},Flat", rows))
    space.apply("good", **bare, **_imported(space, whitened, np.array(corpus.ids)))
    failure = _refused(space, index.wait_new_revision({first}))
    assert failure["reason"] == "CannotReconstruct"
    assert "gives no vectors back" in failure["message"]
    assert index.traffic() == first


@pytest.mark.long
@pytest.mark.together("imports and words")
def test_a_file_that_is_not_what_it_claims_is_refused_and_harms_no_pod(served: Workspace, corpus: Corpus) -> None:
    index, first = served.index, served.index.traffic()
    _put_queries(served, corpus)
    names, lives, known = np.array(corpus.ids), served.lives(first), {first}
    with served.traffic(corpus, SLOW) as traffic:
        for what, (make, reason, words) in HOSTILE.items():
            served.apply("good", **_imported(served, make(_unit(corpus.vectors)), names))
            revision = index.wait_new_revision(known)
            known.add(revision)
            failure = _refused(served, revision)
            print(f"{what}: {failure['reason']}: {failure['message']}")
            assert failure["reason"] == reason, what
            assert words in failure["message"], what
        pickled = np.array([_EndsTheProcess()] * len(names), object)
        served.apply("good", **_imported(served, _file(_built("Flat", _unit(corpus.vectors))), pickled))
        assert _refused(served, index.wait_new_revision(known))["reason"] == "BadIdType"
        seen = traffic.snapshot()
    no_failures(seen, at_least=500)
    assert set(seen.revisions) == {first}
    assert served.lives(first) == lives, "no searcher noticed"


def _pickled(rows: Floats) -> bytes:
    return pickle.dumps(_EndsTheProcess())


class _EndsTheProcess:
    """Of whoever unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("kill -9 $PPID",)


def _endless(rows: Floats) -> bytes:
    """A header that says there are 2^32 rows, for which whoever believes it takes 824 GB."""
    made = bytearray(_file(_built("Flat", rows)))
    struct.pack_into("<q", made, NTOTAL, 1 << 32)
    struct.pack_into("<Q", made, LENGTH, (1 << 32) * rows.shape[1])
    return bytes(made)


def _linked(rows: Floats) -> bytes:
    """A graph that leads out of itself."""
    graph = _built("HNSW16", rows)
    links = faiss.vector_to_array(graph.hnsw.neighbors)
    links[3] = 1 << 30
    faiss.copy_array_to_vector(links, graph.hnsw.neighbors)
    return _file(graph)


HOSTILE: dict[str, tuple[Callable[[Floats], bytes], str, str]] = {
    "a pickle": (_pickled, "BadIndexFile", "FAISS refuses it"),
    "cut off": (lambda rows: _file(_built("IVF32,Flat", rows))[:-1000], "BadIndexFile", "FAISS refuses it"),
    "a header of 2^32 rows": (_endless, "BadIndexFile", "FAISS refuses it"),
    "links that lead out": (_linked, "BadIndexFile", "HNSW"),
    "fewer dimensions": (
        lambda rows: _file(_built("Flat", rows[:, :16])),
        "BadIndexFile",
        f"16 dimensions, the source {DIMENSION}",
    ),
    "inner products": (
        lambda rows: _file(_built("Flat", rows, faiss.METRIC_INNER_PRODUCT)),
        "OtherMetric",
        "by the inner product, embedding.metric is Cosine",
    ),
}


def _built(factory: str, rows: Floats, metric: int = faiss.METRIC_L2) -> Any:
    """As anybody builds one."""
    rows = np.ascontiguousarray(rows)
    index = faiss.index_factory(rows.shape[1], factory, metric)
    index.train(rows)
    index.add(rows)
    return index


def _file(index: Any) -> bytes:
    with TemporaryDirectory() as made:
        path = Path(made, "docs.faiss")
        faiss.write_index(index, str(path))
        return path.read_bytes()


def _unit(rows: Floats) -> Floats:
    """Cosine is served as the L2 distance of unit vectors."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _imported(space: Workspace, index: bytes, ids: Any) -> Any:
    """The part of a spec that names both files, which are in the bucket then, outside of the source."""
    with TemporaryDirectory() as made:
        path = Path(made, "ids.npy")
        np.save(path, ids)
        files = {"index": index, "ids": path.read_bytes()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    keys = {name: f"exports/{sums[name][:12]}" for name in files}
    for name, data in files.items():
        space.store.put(space.bucket, keys[name], data)
    return {
        "index": {"import": {**keys, "sha256": sums["index"], "idsSHA256": sums["ids"]}},
        "gate": {"queries": {"s3": space.s3("queries/")}},
    }


def _put_queries(space: Workspace, corpus: Corpus) -> None:
    asked = corpus.queries(900, seed=11)
    space.put("queries", parquet(tuple(f"q-{n}" for n in range(len(asked))), asked))


def _ids_alone(corpus: Corpus) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": corpus.ids, "name": [f"the name of {one}" for one in corpus.ids]}), out)
    return bytes(out.getvalue())


def _refused(space: Workspace, revision: str) -> Json:
    """Until its build has failed: why, which the index says too. Its pods ended by themselves."""
    space.wait_phase(revision, "BuildFailed", timeout=120)
    failure: Json = space.index.revision(revision)["failure"]
    stalled = space.index.wait_condition("Stalled", timeout=30)
    assert failure["reason"] in stalled["message"] or failure["reason"] == stalled["reason"], stalled
    for pod in space.kube.list("Pod", space.namespace, f"vectorindex.dev/revision={revision}"):
        for one in pod["status"].get("containerStatuses", []):
            code = one["state"].get("terminated", {}).get("exitCode")
            assert code not in WORN, f"{WORN.get(code)}: {pod['metadata']['name']}"
    return failure


def _plugin(space: Workspace, *words: str) -> str:
    command = [sys.executable, "-m", "vectorindex_plugin.app", *words, "-n", space.namespace]
    return run(command, timeout=90, environment=space.kube.cluster.environment())
