"""`encoder`: a model's folder as a person reads it, with the SHA-256 that a manifest names it by."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..contract import Location
from ..index.sizes import size_text
from ..storage.cache import NodeCache
from ..storage.store import Role, open_store
from .encoder import Side
from .folder import RERANKER, describe, fetch

_SHOWN = 6
"""Numbers of a vector."""


def lines(place: Location, texts: Sequence[str]) -> Iterator[str]:
    """The digest, the files, and what they say. Raises TaskError for a folder that is not usable."""
    store = open_store(place, Role.ENCODER)
    sha256, files = describe(store)
    yield from _named(sha256, files)
    # Here, because it needs packages that whoever only asks for the digest may be without.
    from .onnx import OnnxEncoder

    with tempfile.TemporaryDirectory(prefix="encoder-") as work:
        folder, held = fetch(store, sha256, NodeCache(Path(work)), Path(work))
        with_model = OnnxEncoder(folder, {})
        held.close()
    yield f"dimension  {with_model.dimension}"
    yield f"tokens     {with_model.max_tokens} of a text at most"
    for side in Side:
        yield f"prefix     of a {side.value}: {with_model.prefixes[side]!r}"
    for text in texts:
        encoded = with_model.encode([text], Side.QUERY)
        numbers = ", ".join(f"{number:.6f}" for number in encoded.vectors[0, :_SHOWN])
        yield f"[{numbers}, ...]{' (truncated)' if encoded.truncated[0] else ''}  {text}"


def reranker_lines(place: Location, texts: Sequence[str]) -> Iterator[str]:
    """The same of a cross-encoder. `texts`: a query, and what is judged by it."""
    store = open_store(place, Role.RERANKER)
    sha256, files = describe(store, RERANKER)
    yield from _named(sha256, files)
    from .reranker import CrossEncoder

    with tempfile.TemporaryDirectory(prefix="reranker-") as work:
        folder, held = fetch(store, sha256, NodeCache(Path(work)), Path(work), RERANKER)
        model = CrossEncoder(folder)
        held.close()
    yield f"tokens     {model.max_tokens} of a pair at most"
    for text in texts[1:]:
        logits = model.judge(texts[0], [text], math.inf)
        yield f"{0.0 if logits is None else float(logits[0]):10.4f}  {text}"


def _named(sha256: str, files: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    yield f"sha256     {sha256}"
    for name, (size, _) in sorted(files.items()):
        yield f"  {name:<36} {size_text(size)}"
