"""Rows whose source has a text: encoded as documents while they are read, by the encoder that will encode queries.

What an encoder makes of a text is kept (text_cache.py). A model is named by its digest. An endpoint has none: it is
what it makes of some texts of ours, kept when it was first asked. They are compared before anything of it is used,
before a pack is kept and at the end: where it is another one, nothing is mixed, and the build fails (EncoderChanged).
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifact.layout import Layout
from ..contract import BuildTask, EncoderTask
from ..dataset.blocks import Block
from ..errors import BadData, BadSpec, RetryableError
from ..index.threads import available_cores
from ..progress import TEXTS
from ..storage.store import Store
from ..text.encoder import Encoded, Encoder, EncoderError, EncoderUnavailableError, Side, Vectors
from ..text.open import open_encoder
from .text_cache import TextCache, keys_of

MOST_CHARACTERS = 32_768
"""Of a text that are encoded: more than the 512 tokens have that any model gets."""
CALL_TEXTS = 32
CALLS_AT_ONCE = 4
"""Of an endpoint."""
CALL_SECONDS = 30.0
"""That an endpoint has for a call: nobody waits for an answer."""
PATIENCE_SECONDS = 300.0
"""How long an endpoint may be away before the build fails, to be tried again."""
SAME_COSINE, SAME_LENGTH = 0.9999, 1e-3
"""Between two answers of one model to one text, other processors and batches included."""
PROBES = tuple(
    f"{what} {where}"
    for what in ("A red car", "The price of apples", "How to restart a server", "Quarterly results", "def main():")
    for where in ("in the snow.", "was discussed yesterday", "für Anfänger", "2024-03-01")
)
_PROBES_FILE = "probes.parquet"
_FIELD = "spec.embedding.encoder"
_log = logging.getLogger(__name__)


def encoder_name(task: EncoderTask, dimension: int) -> str:
    """Names what an encoder makes of a text of a row: whatever changes a vector is in it."""
    what = {
        "sha256": task.onnx.sha256 if task.onnx else None,
        "url": task.endpoint.url if task.endpoint else None,
        "model": task.endpoint.model if task.endpoint else None,
        "prefix": task.document_prefix,
        "dimension": dimension,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def encoding(task: BuildTask, store: Store, layout: Layout, folder: Path) -> Iterator[TextRows]:
    """What encodes the rows of a build. Raises BadSpec without an encoder, and what open_encoder raises;
    EncoderChanged at its end, too."""
    wanted, dimension = task.encoder, task.embedding.dimension
    if wanted is None or dimension is None:
        what = "embedding.encoder" if wanted is None else "embedding.dimension"
        remedy = "Name the model that makes vectors of the texts, and how many numbers a vector has."
        message = f"source.columns.text needs {what}"
        raise BadSpec("NoEncoder", message, field=f"spec.{what}", remedy=remedy)
    encoder, held = open_encoder(wanted, folder, 0, dimension, budget=CALL_SECONDS)
    try:
        cache = TextCache(store, layout, encoder_name(wanted, dimension), dimension, folder)
        probes = layout.texts(encoder_name(wanted, dimension), _PROBES_FILE) if wanted.endpoint else ""
        threads = CALLS_AT_ONCE if wanted.endpoint else available_cores()
        with ThreadPoolExecutor(threads) as pool:
            rows = TextRows(encoder, cache, pool, _Probes(store, probes) if probes else None)
            try:
                rows.check()
                yield rows
                rows.flush()
            finally:
                pool.shutdown(cancel_futures=True)
                cache.close()
    finally:
        encoder.close()
        if held is not None:
            held.close()
    _log.info("texts encoded", extra=TEXTS.facts())


class _Probes:
    """What an endpoint is known by."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._wanted: Vectors | None = None

    def compare(self, found: Vectors) -> None:
        """Raises BadData/EncoderChanged; StoreUnavailable."""
        if self._wanted is None:
            self._wanted = self._kept(found)
        wanted = self._wanted
        lengths, before = np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1)
        cosines = np.einsum("nd,nd->n", found, wanted) / np.maximum(lengths * before, 1e-12)
        ratio = np.abs(lengths / np.maximum(before, 1e-12) - 1)
        if not (cosines.min() >= SAME_COSINE and ratio.max() <= SAME_LENGTH):  # also what is no number
            raise BadData(
                "EncoderChanged",
                f"the encoder's endpoint is another model than the one that encoded this index's texts: one of "
                f"{len(PROBES)} texts has a cosine of {cosines.min():.6f} to its vector of then, and a length that "
                f"differs by {ratio.max():.4f}",
                field=f"{_FIELD}.endpoint",
                remedy="Bring back the model of then, or name the new one: another endpoint.model or URL encodes all "
                "texts anew.",
            )

    def _kept(self, found: Vectors) -> Vectors:
        """Of whoever asked first. Two at once see the same ones: there is one object."""
        flat = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": PROBES, "vector": flat}), sink)
        self._store.put(self._key, bytes(sink.getvalue().to_pybytes()), exclusive=True)
        try:
            column = pq.read_table(pa.BufferReader(self._store.read(self._key))).column("vector").combine_chunks()
            return np.asarray(column.flatten().to_numpy(), np.float32).reshape(found.shape)
        except (pa.ArrowException, ValueError, KeyError) as error:
            what = self._store.describe(self._key)
            remedy = "Remove it and all beside it: texts are encoded anew."
            raise BadData("BadArtifact", f"{what}: {error}", object=what, remedy=remedy) from None


class TextRows:
    """Encodes blocks of rows. One thread calls it."""

    def __init__(self, encoder: Encoder, cache: TextCache, pool: ThreadPoolExecutor, probes: _Probes | None) -> None:
        self._encoder, self._cache, self._pool, self._probes = encoder, cache, pool, probes

    def __call__(self, block: Block) -> Block:
        """The block with the vectors of its texts. Raises BadData naming a row, EncoderChanged, RetryableError,
        StoreUnavailable."""
        assert block.texts is not None
        texts = block.texts.to_pylist()
        keys = keys_of(texts)
        distinct, first, back = np.unique(keys, return_index=True, return_inverse=True)
        known, old, was_cut = self._cache.find(distinct)
        vectors = np.empty((len(distinct), self._encoder.dimension), np.float32)
        cut = np.zeros(len(distinct), np.bool_)
        vectors[known], cut[known] = old, was_cut
        if (new := np.flatnonzero(~known)).size:
            vectors[new], cut[new] = self._encode([texts[at] for at in first[new].tolist()])
            fine = np.array(np.isfinite(vectors).all(axis=1), np.bool_)
            self._refuse(block, fine[back])
            if self._cache.add(distinct[new], vectors[new], cut[new]):
                self.flush()
        TEXTS.encoded += len(new)
        TEXTS.known += len(texts) - len(new)
        TEXTS.cut += int(cut[back].sum())
        return replace(block, vectors=vectors[back], texts=None)

    def check(self) -> None:
        """Raises BadData/EncoderChanged where the encoder is no longer what it was."""
        if self._probes is not None:
            self._probes.compare(self._patiently(PROBES).vectors)

    def flush(self) -> None:
        """Keep what was encoded, if the encoder is still the one."""
        self.check()
        self._cache.flush()

    def _encode(self, texts: list[str]) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """Vectors, and which texts were cut. Texts of one length go together: a call is as long as its longest."""
        began = time.monotonic()
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        calls = [order[at : at + CALL_TEXTS] for at in range(0, len(order), CALL_TEXTS)]
        vectors = np.empty((len(texts), self._encoder.dimension), np.float32)
        cut = np.array([len(text) > MOST_CHARACTERS for text in texts])
        asked = ([texts[at][:MOST_CHARACTERS] for at in call] for call in calls)
        for call, found in zip(calls, self._pool.map(self._patiently, asked), strict=True):
            vectors[call] = found.vectors
            cut[call] |= np.array(found.truncated)
        TEXTS.seconds += time.monotonic() - began
        return vectors, cut

    def _patiently(self, texts: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> Encoded:
        """As Encoder.encode, for an endpoint that may be away for a while."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._encoder.encode(texts, Side.DOCUMENT)
            except EncoderError as error:
                raise BadData("EncoderFailed", str(error), field=_FIELD, remedy="Name another model.") from None
            except EncoderUnavailableError as error:
                TEXTS.waits += 1
                if time.monotonic() + error.retry_after > ends:
                    remedy = "Tried again by itself, and goes on where it was; see whether the endpoint runs."
                    raise RetryableError("EncoderUnavailable", str(error), field=_FIELD, remedy=remedy) from None
                sleep(error.retry_after)

    def _refuse(self, block: Block, fine: npt.NDArray[np.bool_]) -> None:
        """Raises BadData for a text that the model fails at, or that an endpoint refuses."""
        if fine.all():
            return
        at = int(np.argmin(fine))
        row = f"row {block.first_row + at}" if block.ids is None else f"the row with id {block.ids[at].as_py()!r}"
        message = f"{block.object}: the encoder has no vector for the text of {row}"
        remedy = "Shorten the text or remove the row; endpoints may have to be told to cut (TEI: --auto-truncate)."
        raise BadData("TextRefused", message, object=block.object, field="spec.source.columns.text", remedy=remedy)
