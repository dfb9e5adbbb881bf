"""A cross-encoder in the searcher: what its order gains on questions that it has not seen, and what it costs.

    .venv/bin/python bench/rerank.py --model ./reranker      (examples/reranker makes that folder)

The questions are those of examples/stdlib-docs that its training left out, by the hash of their text; their vectors and
right answers lie beside them. `rerank.mrr_gain`: mean of the differences in the reciprocal rank of the first right
answer among ten, with and without, each question with itself. Candidates are the first hundred by exact search, so the
index is no part of it. CPU is of this process.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import results

from vectorindex_searcher.contract import Location, OnnxFolder, RerankTask
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text.folder import RERANKER, describe
from vectorindex_searcher.text.open import open_reranker
from vectorindex_searcher.text.reranker import CrossEncoder

DATA = Path(__file__).parents[1] / "examples" / "stdlib-docs"
CANDIDATES, SHOWN, ROUNDS = 100, 10, 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """`rows`: candidates, best first; `right`: rows of its answers."""

    text: str
    kind: str
    by_hand: bool
    rows: npt.NDArray[np.int64]
    right: frozenset[int]


def held_out(question: str) -> bool:
    """As examples/reranker/train.py leaves them out."""
    return hashlib.sha256(question.encode()).digest()[0] % 5 < 2


def questions() -> tuple[list[Question], list[str]]:
    """Those that no model has been trained on, and the documents' texts."""
    documents, asked = pq.read_table(DATA / "documents.parquet"), pq.read_table(DATA / "queries.parquet")
    vectors = np.array(documents["vector"].to_pylist(), np.float32)
    places = {name: n for n, name in enumerate(documents["id"].to_pylist())}
    by_hand = {line.split("\t")[1] for line in (DATA / "handwritten.tsv").read_text("utf-8").splitlines()}
    found = []
    columns = (asked[name].to_pylist() for name in ("query", "query_class", "vector", "relevant_ids"))
    for text, kind, vector, names in zip(*columns, strict=True):
        if held_out(text):
            rows = np.argsort(-(vectors @ np.array(vector, np.float32)), kind="stable")[:CANDIDATES]
            found.append(Question(text, kind, text in by_hand, rows, frozenset(places[name] for name in names)))
    return found, documents["text"].to_pylist()


def opened(folder: Path, work: Path) -> CrossEncoder:
    """The model as a pod opens it."""
    place = Location(folder=str(folder))
    sha256, _ = describe(open_store(place, Role.RERANKER), RERANKER)
    return open_reranker(RerankTask(onnx=OnnxFolder(location=place, sha256=sha256)), work, 0)[0]


def reciprocal(rows: Sequence[int], right: frozenset[int]) -> float:
    """Of the first right answer among those shown."""
    return next((1 / rank for rank, row in enumerate(rows[:SHOWN], 1) if row in right), 0.0)


def gain(rows: Sequence[int], right: frozenset[int]) -> float:
    """nDCG of those shown."""
    best = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(right), SHOWN) + 1))
    return float(sum(1 / np.log2(rank + 1) for rank, row in enumerate(rows[:SHOWN], 1) if row in right) / best)


def interval(differences: Floats) -> tuple[float, float]:
    """95 % of the mean, by resampling questions."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (ROUNDS, len(differences))).mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Gain and cost of a cross-encoder.")
    parser.add_argument("--model", type=Path, required=True, help="folder that examples/reranker makes")
    parser.add_argument("--quick", action="store_true", help="some questions, no results written")
    options = parser.parse_args()
    asked, texts = questions()
    asked = asked[::20] if options.quick else asked
    with tempfile.TemporaryDirectory() as work:
        model = opened(options.model, Path(work))
    orders, spent = [], []
    for one in asked:
        began = time.process_time()
        logits = model.judge(one.text, [texts[row] for row in one.rows], float("inf"))
        spent.append(time.process_time() - began)
        assert logits is not None
        orders.append(one.rows[np.argsort(-logits, kind="stable")].tolist())
    table = []
    gains = {}
    groups = {
        "all": [True] * len(asked),
        "keyword": [one.kind == "keyword" for one in asked],
        "question": [one.kind == "question" for one in asked],
        "written by hand": [one.by_hand for one in asked],
    }
    for name, chosen in groups.items():
        for figure, measure in (("MRR@10", reciprocal), ("nDCG@10", gain)):
            pairs = np.array([
                (measure(one.rows.tolist(), one.right), measure(order, one.right))
                for one, order, of in zip(asked, orders, chosen, strict=True) if of
            ])  # fmt: skip
            if not len(pairs):
                continue
            low, high = interval(pairs[:, 1] - pairs[:, 0])
            without, with_it = pairs.mean(0)
            gains[name, figure] = with_it - without
            table.append(
                [name, str(len(pairs)), figure, f"{without:.3f}", f"{with_it:.3f}", f"{with_it - without:+.3f}",
                 f"{low:+.3f} to {high:+.3f}"]
            )  # fmt: skip
    for row in table:
        print("  ".join(f"{cell:<16}" for cell in row))
    cost = float(np.median(spent)) * 1e3
    print(f"{cost:.1f} ms of CPU for {CANDIDATES} candidates (median)")
    if not options.quick:
        write(table, cost, gains["all", "MRR@10"], gains["written by hand", "MRR@10"])


def write(rows: list[list[str]], cost: float, mrr: float, by_hand: float) -> None:
    """The page and the summary."""
    head = ["questions", "how many", "figure", "order of vectors", "reranked", "gain", "95 % of the gain"]
    page = f"""# Reranking

`python bench/rerank.py --model ./reranker`: the model that [examples/reranker](../../examples/reranker/README.md)
trains (4 MB), on questions that it has not seen, each compared with itself. {CANDIDATES} candidates by exact search.

{results.table(head, rows)}

A query takes {cost:.1f} ms of CPU for its {CANDIDATES} candidates (median). Questions that were derived from their
answers share most words with them, which a model that sees words is good at; those written by hand are what live ones
are like.

{results.stamp()}. {results.machine()}.
"""
    results.write_page("rerank", page)
    results.add_to_summary({"rerank.mrr_gain": mrr, "rerank.mrr_gain_by_hand": by_hand})


if __name__ == "__main__":
    main()
