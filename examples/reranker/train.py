# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2", "onnx>=1.17", "onnxruntime>=1.23", "pyarrow>=17", "scipy>=1.16", "tokenizers>=0.22"]
# ///
"""A tiny cross-encoder for examples/stdlib-docs, trained on three fifths of its questions: no torch, two minutes.

    uv run train.py ./reranker
    vectorindex-searcher encoder --cross --model ./reranker --text "how do I open a file" "open: Open file"

It reads the tokens of a question and a text together: which of them are the same, how rare and how near to the
beginning these are, and how near in meaning the others. What a token means is learnt from the documents' own vectors:
the words of a text, weighed, shall add up to the vector that all-MiniLM-L6-v2 made of it. How all this is weighed is
learnt from questions whose answers are known. README.md says what it gains on those that it has not seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import scipy.linalg
import scipy.sparse as sp
from graph import Graph, features, judge
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

DATA = Path(__file__).parents[1] / "stdlib-docs"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS, WIDTH = 8192, 128
CANDIDATES, HIDDEN, EPOCHS, RATE, DECAY = 100, 16, 150, 0.01, 1e-3
HELD_OUT = 2
"""Of five questions: never seen here."""


def is_held_out(question: str) -> bool:
    """By its own text, so that whoever measures can tell without a list."""
    return hashlib.sha256(question.encode()).digest()[0] % 5 < HELD_OUT


def trained_tokenizer(texts: list[str]) -> Tokenizer:
    """Parts of words that the documents are made of; a pair is [CLS] question [SEP] text [SEP]."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=SPECIAL, show_progress=False)
    )
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return made


def rareness(tokens: list[list[int]], count: int) -> np.ndarray:
    """Weight of each token, float32 [words]: the log of how seldom texts have it. Special ones weigh nothing."""
    seen = np.zeros(count)
    for one in tokens:
        seen[list(set(one))] += 1
    weights = np.log1p((len(tokens) - seen + 0.5) / (seen + 0.5)).astype(np.float32)
    weights[: len(SPECIAL)] = 0
    return weights


def meanings(tokens: list[list[int]], vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A vector for each token, float32 [words, WIDTH], whose weighed sums are near to the vectors of the texts."""
    rows = np.repeat(np.arange(len(tokens)), [len(one) for one in tokens])
    columns = np.concatenate([np.array(one, np.int64) for one in tokens])
    bags = sp.csr_matrix((weights[columns], (rows, columns)), (len(tokens), len(weights)))
    lengths = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1)).ravel())
    bags = (sp.diags(1 / np.maximum(lengths, 1e-9)) @ bags).tocsr()
    squares = (bags.T @ bags).toarray().astype(np.float32)
    squares[np.diag_indices(len(weights))] += 1  # ridge: a token that is seldom seen means little
    solved = scipy.linalg.cho_solve(scipy.linalg.cho_factor(squares, lower=True), (bags.T @ vectors).astype(np.float32))
    _, axes = np.linalg.eigh(solved.T @ solved)
    return np.ascontiguousarray(solved @ axes[:, -WIDTH:], np.float32)


def measured(tokenizer: Tokenizer, graph: onnx.ModelProto, question: str, texts: list[str]) -> np.ndarray:
    """Features of each pair, float32 [texts, features]."""
    session = _sessions.setdefault(id(graph), onnxruntime.InferenceSession(graph.SerializeToString()))
    pairs = tokenizer.encode_batch([(question, text) for text in texts])
    shape = len(pairs), max(len(one.ids) for one in pairs)
    feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, one in enumerate(pairs):
        for name, values in zip(feeds, (one.ids, one.attention_mask, one.type_ids), strict=True):
            feeds[name][row, : len(values)] = values
    (found,) = session.run(None, feeds)
    return np.asarray(found)


_sessions: dict[int, onnxruntime.InferenceSession] = {}


def learnt(pairs: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Two layers that put right answers first: features [questions, candidates, f], right: share of each candidate in
    the right answers [questions, candidates], weights of the questions. Adam on the cross-entropy of a softmax."""
    rng = np.random.default_rng(0)
    width = pairs.shape[2]
    layers = [
        rng.normal(0, width**-0.5, (width, HIDDEN)), np.zeros(HIDDEN),
        rng.normal(0, HIDDEN**-0.5, (HIDDEN, 1)), np.zeros(1),
    ]  # fmt: skip
    first, second = ([np.zeros_like(layer) for layer in layers] for _ in range(2))
    step = 0
    for epoch in range(EPOCHS):
        for some in np.array_split(rng.permutation(len(pairs)), max(1, len(pairs) // 64)):
            step += 1
            inner = np.tanh(pairs[some] @ layers[0] + layers[1])
            logits = (inner @ layers[2])[:, :, 0]
            share = np.exp(logits - logits.max(1, keepdims=True))
            share /= share.sum(1, keepdims=True)
            slope = ((share - right[some]) * weights[some, None] / weights[some].sum())[:, :, None]
            back = slope * layers[2].T * (1 - inner**2)
            slopes = [
                np.einsum("qcf,qch->fh", pairs[some], back), back.sum((0, 1)), np.einsum("qch,qco->ho", inner, slope),
                np.zeros(1),
            ]  # fmt: skip
            rate = RATE * (1 - epoch / EPOCHS)
            for n, one in enumerate(slopes):
                one = one + DECAY * layers[n] * (layers[n].ndim > 1)
                first[n] = 0.9 * first[n] + 0.1 * one
                second[n] = 0.99 * second[n] + 0.01 * one**2
                layers[n] -= rate * (first[n] / (1 - 0.9**step)) / (np.sqrt(second[n] / (1 - 0.99**step)) + 1e-8)
    return [np.asarray(layer, np.float32) for layer in layers]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Train a tiny cross-encoder and write it as ONNX.")
    parser.add_argument("target", type=Path, help="folder to write")
    target = parser.parse_args().target
    documents, asked = pq.read_table(DATA / "documents.parquet"), pq.read_table(DATA / "queries.parquet")
    texts, vectors = documents["text"].to_pylist(), np.array(documents["vector"].to_pylist(), np.float32)
    questions, places = asked["query"].to_pylist(), {name: n for n, name in enumerate(documents["id"].to_pylist())}
    wanted = [{places[name] for name in names} for names in asked["relevant_ids"].to_pylist()]
    of_questions = np.array(asked["vector"].to_pylist(), np.float32)
    seen = [n for n, question in enumerate(questions) if not is_held_out(question)]

    tokenizer = trained_tokenizer(texts)
    tokens = [one.ids for one in tokenizer.encode_batch([*texts, *(questions[n] for n in seen)])]
    weights = rareness(tokens[: len(texts)], tokenizer.get_vocab_size())
    known = meanings(tokens, np.vstack([vectors, of_questions[seen]]), weights)
    mean_length = float(np.mean([len(one) for one in tokens[: len(texts)]]))
    print(f"{len(weights)} tokens, {len(seen)} of {len(questions)} questions")

    graph = Graph()
    wide = features(graph, weights, known, mean_length)
    reading = graph.model(wide)
    found = np.argsort(-(of_questions[seen] @ vectors.T), axis=1, kind="stable")[:, :CANDIDATES]
    right = np.array([[row in wanted[n] for row in rows] for n, rows in zip(seen, found, strict=True)], np.float64)
    usable = right.sum(1) > 0
    found, right, seen = found[usable], right[usable], [n for n, use in zip(seen, usable, strict=True) if use]
    pairs = np.stack([
        measured(tokenizer, reading, questions[n], [texts[row] for row in rows])
        for n, rows in zip(seen, found, strict=True)
    ])  # fmt: skip
    mean, spread = pairs.mean((0, 1)), pairs.std((0, 1)) + 1e-6
    by_hand = {line.split("\t")[1] for line in (DATA / "handwritten.tsv").read_text(encoding="utf-8").splitlines()}
    # The others share most of their words with the answer, as live ones do not.
    counts = np.array([8.0 if questions[n] in by_hand else 1.0 for n in seen])
    layers = learnt((pairs - mean) / spread, right / right.sum(1, keepdims=True), counts)

    model = graph.model(judge(graph, wide, mean, spread, layers), "logits")
    onnx.checker.check_model(model)
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256}) + "\n", encoding="utf-8")
    print(f"wrote {target}; its sha256: vectorindex-searcher encoder --cross --model {target}")


if __name__ == "__main__":
    main()
