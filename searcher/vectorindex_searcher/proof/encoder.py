"""The proof of an encoder: rows whose text and vector are known are encoded anew, and compared with what the index has.

This sees what recall cannot, a wrong embedding: another model, another pooling, a document prefix that was forgotten, a
normalisation too many. A wrong prefix of queries it cannot see; only questions with known answers do (gate.relevance).
Besides, some texts and their vectors go with the report, for pods to show that they encode as the gate did.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..artifact.layout import ENCODER_FILE
from ..artifact.manifest import ManifestFile, describe_bytes
from ..contract import ENCODER_COSINE, ENCODER_DEVIATING, ENCODER_NORM, ENCODER_ROWS, EncoderProof, EncoderTask, Metric
from ..errors import BadData, BadSpec, RetryableError
from ..index.arrow_files import read_table
from ..index.engine import Engine
from ..index.fresh import FreshFile
from ..index.vectors import VectorFile
from ..text.encoder import Encoder, EncoderError, EncoderUnavailableError, Side, Vectors
from ..text.open import open_encoder

CANARY_TEXTS = 20
CANARY_COSINE = 0.9999
"""Between what the gate and a pod make of the same text: other processors round otherwise, and no more."""
ENCODER_LIMIT_BYTES = 8 << 20
FRESH_TEXTS = 20
"""Of one file of fresh rows, encoded anew."""
FEWEST_LENGTHS = 3
"""Whose median is a length to go by."""
_CONFIDENCE = 0.95
_LOOKED_AT = 1000
"""Rows whose texts are looked at for such as can be compared."""
_STEP = 32
SURELY_WHOLE = 1000
"""Characters of a text that any model takes, where nobody says what it cuts."""
FIELD = "spec.embedding.encoder"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProvenEncoder:
    """What became of it, and what pods compare themselves with: encoder.arrow, and its bytes."""

    proof: EncoderProof
    file: ManifestFile
    data: bytes


def prove_encoder(task: EncoderTask, engine: Engine, vectors: VectorFile, work: Path) -> ProvenEncoder:
    """Compare the encoder with the index. Raises BadSpec/NoTexts, and what open_encoder raises."""
    column = task.text_column
    if column not in engine.metadata_columns:
        known = ", ".join(engine.metadata_columns) or "none"
        message = f"the artifact has no metadata column {column!r} with the texts of its rows; it has {known}"
        remedy = "Add it to spec.source.columns.metadata."
        raise BadSpec("NoTexts", message, field=f"{FIELD}.textColumn", remedy=remedy)
    encoder, held = open_encoder(task, work, 0, engine.dimension)
    try:
        rows, texts, encoded = _encoded(encoder, engine, column)
        canary = texts[:CANARY_TEXTS]
        queries = encoder.encode(canary, Side.QUERY).vectors if canary else encoded
    except EncoderError as error:
        raise BadData("EncoderFailed", str(error), field=FIELD, remedy="Name another model.") from None
    except EncoderUnavailableError as error:
        raise _unavailable(error) from None
    finally:
        encoder.close()
        if held is not None:
            held.close()
    indexed = vectors.gather(np.array(rows, np.int64), prepared=False)
    proof = compare(encoded, indexed, engine.metric, encoder.nbytes)
    data = _table_bytes(canary, queries)
    _log.info("encoder compared", extra=proof.wire())
    return ProvenEncoder(proof, describe_bytes(ENCODER_FILE, data), data)


def compare(encoded: Vectors, indexed: Vectors, metric: Metric, size: int) -> EncoderProof:
    """Figures of rows as they were encoded anew and as the index has them, both float32 [n, d]. size: bytes of the
    encoder's files."""
    if not len(encoded):
        return EncoderProof(rows=0, deviating=0, deviating_low=0.0, cosine=0.0, bytes=size)
    lengths, wanted = np.linalg.norm(encoded, axis=1), np.linalg.norm(indexed, axis=1)
    cosines = np.nan_to_num(np.einsum("nd,nd->n", encoded, indexed) / np.maximum(lengths * wanted, 1e-12), nan=-1.0)
    deviating = int((cosines < ENCODER_COSINE).sum())
    ratio = None if metric is Metric.COSINE else float(np.median(np.nan_to_num(lengths / np.maximum(wanted, 1e-12))))
    return EncoderProof(
        rows=len(encoded),
        deviating=deviating,
        deviating_low=round(share_low(deviating, len(encoded)), 6),
        cosine=round(float(np.median(cosines)), 6),
        norm_ratio=None if ratio is None else round(ratio, 6),
        bytes=size,
    )


def check_model(encoder: Encoder, metric: Metric, file: FreshFile, column: str) -> None:
    """Whether the model of the index made the vectors of a file, by FRESH_TEXTS of its rows and as the gate judges: too
    few rows to be sure of are none.

    Raises BadData/AnotherModel, EncoderUnavailableError.
    """
    texts = file.metadata.column(column).to_pylist()
    usable = [row for row, text in enumerate(texts) if _is_text(text, encoder.max_tokens > 0)]
    drawn = sorted({usable[int(at)] for at in np.linspace(0, len(usable) - 1, FRESH_TEXTS)}) if usable else []
    if not drawn:
        return
    try:
        encoded = encoder.encode([texts[row] for row in drawn], Side.DOCUMENT)
    except EncoderError as error:
        raise EncoderUnavailableError(str(error)) from None
    whole = [number for number, cut in enumerate(encoded.truncated) if not cut]
    proof = compare(encoded.vectors[whole], file.vectors[[drawn[number] for number in whole]], metric, 0)
    ratio = 1.0 if proof.norm_ratio is None or proof.rows < FEWEST_LENGTHS else proof.norm_ratio
    if proof.deviating_low > ENCODER_DEVIATING or abs(ratio - 1) > ENCODER_NORM:
        what = f"{proof.deviating} of {proof.rows} rows have another vector than the index's model makes of their text"
        message = f"{file.key}: {what} (lengths {ratio:.3f} times as long)"
        remedy = "Embed the rows with the index's model, and its prefix for documents."
        raise BadData("AnotherModel", message, object=file.key, field="spec.source.fresh", remedy=remedy)


def share_low(found: int, count: int, confidence: float = _CONFIDENCE) -> float:
    """The exact one-sided lower limit of a share (Clopper and Pearson): `found` or more of `count` are as rare as
    1 - confidence where it is this."""
    low, high = 0.0, found / count
    for _ in range(40):
        middle = (low + high) / 2
        fewer = math.fsum(math.comb(count, k) * middle**k * (1 - middle) ** (count - k) for k in range(found))
        low, high = (middle, high) if 1 - fewer < 1 - confidence else (low, middle)
    return low


def _encoded(encoder: Encoder, engine: Engine, column: str) -> tuple[list[int], list[str], Vectors]:
    """Row, text and vector of each row that can be compared: drawn at random, the same every time, with a text of
    which the model takes the whole."""
    drawn = np.random.default_rng(0).permutation(engine.count)[:_LOOKED_AT]
    rows: list[int] = []
    texts: list[str] = []
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(drawn), _STEP):
        some = drawn[start : start + _STEP].astype(np.int64)
        values = [row[column] for row in engine.metadata(some, [column])]
        known = encoder.max_tokens > 0
        usable = [(row, text) for row, text in zip(some.tolist(), values, strict=True) if _is_text(text, known)]
        if not usable:
            continue
        encoded = encoder.encode([text for _, text in usable], Side.DOCUMENT)
        for (row, text), vector, cut in zip(usable, encoded.vectors, encoded.truncated, strict=True):
            if not cut and len(rows) < ENCODER_ROWS:
                rows.append(row)
                texts.append(text)
                found.append(vector)
        if len(rows) == ENCODER_ROWS:
            break
    return rows, texts, np.stack(found) if found else np.empty((0, engine.dimension), np.float32)


def _is_text(value: object, cut_is_told: bool) -> bool:
    return isinstance(value, str) and bool(value.strip()) and (cut_is_told or len(value) <= SURELY_WHOLE)


def _unavailable(error: EncoderUnavailableError) -> RetryableError:
    remedy = "Tried again by itself; see whether the endpoint runs and takes the token."
    return RetryableError("EncoderUnavailable", str(error), field=FIELD, remedy=remedy)


# ---------------------------------------------------------------- what pods compare themselves with


def _table_bytes(texts: list[str], vectors: Vectors) -> bytes:
    """An Arrow file: text, and vector as the gate encoded it as a query."""
    flat = pa.array(np.ascontiguousarray(vectors[: len(texts)], np.float32).ravel())
    table = pa.table({"text": pa.array(texts, pa.string()),
                      "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def check_encoder(encoder: Encoder, path: Path) -> float:
    """The lowest cosine between what this encoder and the gate's made of the texts in encoder.arrow; 1 without any.

    Raises BadData/EncoderCanary when it is below CANARY_COSINE, BadData/BadArtifact for a file that cannot be read,
    Retry/EncoderUnavailable where an endpoint does not answer.
    """
    try:
        table = read_table(path).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData("BadArtifact", f"{path.name}: {error}", object=path.name) from error
    texts = table.column("text").to_pylist()
    if not texts:
        return 1.0
    wanted = table.column("vector").combine_chunks().flatten().to_numpy().reshape(len(texts), -1)
    try:
        found = encoder.encode(texts, Side.QUERY).vectors
    except EncoderError as error:
        raise _canary(str(error)) from None
    except EncoderUnavailableError as error:
        raise _unavailable(error) from None
    if found.shape != wanted.shape:
        raise _canary(f"dimension {found.shape[1]}, the gate had {wanted.shape[1]}")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    lowest = float((np.einsum("nd,nd->n", found, wanted) / np.maximum(lengths, 1e-12)).min())
    if not lowest >= CANARY_COSINE:  # also what is no number
        raise _canary(f"one of {len(texts)} texts has a cosine of {lowest:.6f} to the gate's vector")
    return lowest


def _canary(problem: str) -> BadData:
    remedy = "Compare the images and processors of the gate's pod and of this one, and the encoder's files."
    message = (
        f"the encoder of this pod does not encode as the gate's did: {problem}; at least {CANARY_COSINE} is needed"
    )
    return BadData("EncoderCanary", message, field=FIELD, remedy=remedy)
