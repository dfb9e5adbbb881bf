"""The encoder that a task names: fetched, verified, opened, and held against the index that it is for."""

from __future__ import annotations

import logging
from pathlib import Path

from ..artifact.publish import cache_error
from ..contract import EncoderTask
from ..errors import BadSpec
from ..storage.cache import Held, NodeCache
from ..storage.store import Role, open_store
from .encoder import Side
from .folder import FIELD, fetch
from .onnx import OnnxEncoder

_log = logging.getLogger(__name__)


def open_encoder(wanted: EncoderTask, cache_dir: Path, cache_bytes: int, dimension: int) -> tuple[OnnxEncoder, Held]:
    """The encoder, and what keeps its files in the node's cache. `dimension`: of the index.

    Raises TaskError: EncoderMismatch, EncoderIncomplete, EncoderDimension, TextNotInstalled, StoreUnavailable ...
    """
    store = open_store(wanted.onnx.location, Role.ENCODER)
    try:
        folder, held = fetch(store, wanted.onnx.sha256, NodeCache(cache_dir, cache_bytes), cache_dir)
    except OSError as error:
        raise cache_error(error, Path(error.filename or cache_dir), 0) from error
    try:
        encoder = OnnxEncoder(folder, {Side.QUERY: wanted.query_prefix, Side.DOCUMENT: wanted.document_prefix})
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
