"""The models that a task names: fetched, verified and held against the index that they are for, or at an endpoint."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..artifact.publish import cache_error
from ..contract import ENCODER_ENV_PREFIX, EncoderTask, OnnxFolder, RerankTask
from ..errors import BadSpec
from ..storage.cache import Held, NodeCache
from ..storage.store import Role, open_store
from .encoder import Encoder, Side
from .endpoint import BUDGET_SECONDS, EndpointEncoder
from .folder import ENCODER, FIELD, RERANKER, Kind, ModelFolder, fetch
from .onnx import OnnxEncoder
from .reranker import CrossEncoder

_log = logging.getLogger(__name__)


def open_encoder(
    wanted: EncoderTask, cache_dir: Path, cache_bytes: int, dimension: int, *, budget: float = BUDGET_SECONDS
) -> tuple[Encoder, Held | None]:
    """The encoder, and what keeps its files in the node's cache, if it has any. `dimension`: of the index. `budget`:
    seconds that an endpoint has for a call. No endpoint is asked yet.

    Raises TaskError: EncoderMismatch, EncoderIncomplete, EncoderDimension, TextNotInstalled, StoreUnavailable ...
    """
    prefixes = {Side.QUERY: wanted.query_prefix, Side.DOCUMENT: wanted.document_prefix}
    if wanted.endpoint is not None:
        token, ca_pem = (os.environ.get(ENCODER_ENV_PREFIX + name, "").strip() for name in ("TOKEN", "CA_PEM"))
        place = wanted.endpoint
        return EndpointEncoder(place, prefixes, dimension, token=token, ca_pem=ca_pem, budget=budget), None
    if wanted.onnx is None:
        raise BadSpec("BadEncoder", "an encoder has neither onnx nor endpoint", field="spec.embedding.encoder")
    return _open_folder(wanted.onnx, prefixes, NodeCache(cache_dir, cache_bytes), cache_dir, dimension)


def _open_folder(
    onnx: OnnxFolder, prefixes: dict[Side, str | None], cache: NodeCache, cache_dir: Path, dimension: int
) -> tuple[OnnxEncoder, Held]:
    folder, held = _fetched(onnx, cache, cache_dir, Role.ENCODER, ENCODER)
    try:
        encoder = OnnxEncoder(folder, prefixes)
        if encoder.dimension != dimension:
            raise BadSpec(
                "EncoderDimension",
                f"the encoder makes vectors of dimension {encoder.dimension}, the index has {dimension}",
                field=FIELD,
                remedy="Name the model that made the vectors of the index.",
            )
    except BaseException:
        held.close()
        raise
    facts = {"bytes": folder.size, "dimension": encoder.dimension, "maxTokens": encoder.max_tokens}
    _log.info("encoder opened", extra=facts)
    return encoder, held


def open_reranker(wanted: RerankTask, cache_dir: Path, cache_bytes: int) -> tuple[CrossEncoder, Held]:
    """The cross-encoder, and what keeps its files in the node's cache.

    Raises TaskError: RerankerMismatch, RerankerIncomplete, RerankerUnsafe, TextNotInstalled, StoreUnavailable ...
    """
    folder, held = _fetched(wanted.onnx, NodeCache(cache_dir, cache_bytes), cache_dir, Role.RERANKER, RERANKER)
    try:
        model = CrossEncoder(folder)
    except BaseException:
        held.close()
        raise
    _log.info("reranker opened", extra={"bytes": folder.size, "maxTokens": model.max_tokens})
    return model, held


def _fetched(onnx: OnnxFolder, cache: NodeCache, cache_dir: Path, role: Role, kind: Kind) -> tuple[ModelFolder, Held]:
    try:
        return fetch(open_store(onnx.location, role), onnx.sha256, cache, cache_dir, kind)
    except OSError as error:
        raise cache_error(error, Path(error.filename or cache_dir), 0) from error
