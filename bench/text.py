"""An encoder of queries in words: whether it makes the vectors of sentence-transformers, and what it costs beside ONNX.

    .venv/bin/python bench/text.py --model ./all-minilm-l6-v2      (examples/encoder makes that folder)

`text.parity_max_abs`: the largest difference of any number to the vectors in examples/stdlib-docs/queries.parquet,
which sentence-transformers made of the same model. `text.encode_share_of_onnx`: CPU time of the bare session, given
tokens, as a share of that of the encoder, given texts; both in this process, one text at a time, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import results

from vectorindex_searcher.contract import Location
from vectorindex_searcher.storage.cache import NodeCache
from vectorindex_searcher.storage.store import Role, open_store
from vectorindex_searcher.text.encoder import Side
from vectorindex_searcher.text.folder import describe, fetch
from vectorindex_searcher.text.onnx import OnnxEncoder

QUERIES = Path(__file__).parents[1] / "examples" / "stdlib-docs" / "queries.parquet"
TOGETHER, TURNS, ALONE = 32, 5, 40


def cpu(run: Callable[[], object]) -> float:
    """Seconds of CPU time."""
    began = time.process_time()
    run()
    return time.process_time() - began


def opened(model: Path, work: Path) -> OnnxEncoder:
    """The encoder as a pod opens it."""
    store = open_store(Location(folder=str(model)), Role.ENCODER)
    folder, _ = fetch(store, describe(store)[0], NodeCache(work), work)
    return OnnxEncoder(folder, {})


def bare(encoder: OnnxEncoder, texts: Sequence[str]) -> Callable[[], None]:
    """The session alone, on tokens that are there."""
    feeds = []
    for one in encoder._tokenizer.encode_batch(list(texts)):
        known = {"input_ids": one.ids, "attention_mask": one.attention_mask, "token_type_ids": one.type_ids}
        feeds.append({name: np.array([known[name]], np.int64) for name in encoder._inputs})

    def run() -> None:
        for feed in feeds:
            encoder._session.run([encoder._output], feed)

    return run


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Parity and cost of an encoder.")
    parser.add_argument("--model", type=Path, required=True, help="folder that examples/encoder makes")
    options = parser.parse_args()
    table = pq.read_table(QUERIES)
    texts = table.column("query").to_pylist()
    wanted = np.array(table.column("vector").to_pylist(), np.float32)
    with tempfile.TemporaryDirectory() as work:
        encoder = opened(options.model, Path(work))
    parts = [encoder.encode(texts[n : n + TOGETHER], Side.QUERY).vectors for n in range(0, len(texts), TOGETHER)]
    parity = float(np.abs(np.concatenate(parts) - wanted).max())
    some = texts[:: len(texts) // ALONE][:ALONE]
    session = bare(encoder, some)
    turns = [
        (cpu(session), cpu(lambda: [encoder.encode([text], Side.QUERY) for text in some]),
         cpu(lambda: encoder.encode(some, Side.QUERY)))
        for _ in range(TURNS)
    ]  # fmt: skip
    alone, ours, together = np.median(np.array(turns), axis=0) / len(some)
    rows = [
        ("text.parity_max_abs", f"{parity:.1e}", f"{len(texts)} queries"),
        ("text.encode_share_of_onnx", f"{alone / ours:.2f}", f"{alone * 1e3:.2f} of {ours * 1e3:.2f} ms of CPU a text"),
        ("encoded together", f"{together * 1e3:.2f} ms", f"of CPU a text, {len(some)} at once"),
    ]
    told = "CPU time, so the share holds beside other programs."
    head = f"# Texts\n\n`python bench/text.py`, {results.stamp()}.\n{results.machine()}\n\n{told}"
    results.write_page("text", f"{head}\n\n{results.table(('figure', 'value', ''), rows)}")
    results.add_to_summary({"text.parity_max_abs": parity, "text.encode_share_of_onnx": alone / ours})
    print(results.table(("figure", "value", ""), rows))


if __name__ == "__main__":
    main()
