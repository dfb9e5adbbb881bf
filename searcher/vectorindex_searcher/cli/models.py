"""The models that flags name: an encoder, and a cross-encoder that reorders."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from ..contract import EmbeddingsEndpoint, EncoderTask, OnnxFolder, RerankTask
from ..errors import BadSpec
from ..storage.store import Role, open_store, parse_location
from . import places


def encoder(options: argparse.Namespace, *, proving: bool = False) -> EncoderTask | None:
    """Of --encoder or --encoder-url. proving: of `validate`, which compares.

    Raises BadSpec for a folder that is elsewhere and not named by its SHA-256.
    """
    if options.encoder and options.encoder_url:
        remedy = "Give one of them."
        raise BadSpec("BadFlag", "--encoder and --encoder-url are two encoders", field="--encoder-url", remedy=remedy)
    told = {name: getattr(options, name, None) for name in ("query_prefix", "document_prefix")}
    told["text_column"] = (getattr(options, "text_column", None) or "") if proving else ""
    if options.encoder_url:
        try:
            endpoint = EmbeddingsEndpoint(url=options.encoder_url, model=options.encoder_model)
        except ValidationError as error:
            field = "--encoder-url" if error.errors()[0]["loc"] == ("url",) else "--encoder-model"
            given = options.encoder_url if field == "--encoder-url" else options.encoder_model
            remedy = "The URL is as http://tei.ml.svc:8080/v1/embeddings: no user, query or port above 65535."
            raise BadSpec("BadFlag", f"{field} {given!r:.100} is not understood", field=field, remedy=remedy) from None
        return EncoderTask(endpoint=endpoint, **told)
    if not options.encoder:
        return None
    return EncoderTask(onnx=_onnx(options, "encoder", Role.ENCODER), **told)


def row_encoder(options: argparse.Namespace) -> EncoderTask | None:
    """Of `build`: what encodes rows that are texts. Raises BadSpec."""
    given = options.encoder or options.encoder_url
    if bool(given) != bool(options.text_column):
        known, missing = ("--encoder", "--text-column") if given else ("--text-column", "--encoder")
        remedy = "Rows are texts by both: the column, and what makes vectors of them. With vectors leave both out."
        raise BadSpec("MissingFlag", f"{known} needs {missing}", field=missing, remedy=remedy)
    if options.text_column and not options.dimension:
        remedy = "Say how many numbers a vector of the model has."
        raise BadSpec("MissingFlag", "--text-column needs --dimension", field="--dimension", remedy=remedy)
    return encoder(options)


def makes_vectors(task: EncoderTask) -> dict[str, object]:
    """What of it changes the vector of a text: neither how it is reached nor what stands before queries."""
    if task.endpoint is not None:
        return {"url": task.endpoint.url, "model": task.endpoint.model, "documentPrefix": task.document_prefix}
    return {"sha256": task.onnx.sha256 if task.onnx is not None else "", "documentPrefix": task.document_prefix}


def _onnx(options: argparse.Namespace, flag: str, role: Role) -> OnnxFolder:
    """Of --encoder or --rerank. Raises BadSpec for a folder that is elsewhere and not named by its SHA-256."""
    given, sha256 = getattr(options, flag), getattr(options, f"{flag}_sha256")
    place = parse_location(given, **places.reached(options))
    cross = " --cross" if role is Role.RERANKER else ""
    if not sha256 and place.folder is None:
        remedy = f"Compute it with: vectorindex-searcher encoder{cross} --model {given}"
        message = f"--{flag} {given} needs --{flag}-sha256: what is fetched is verified before it is opened"
        raise BadSpec("MissingFlag", message, field=f"--{flag}-sha256", remedy=remedy)
    if not sha256:
        from ..text.folder import ENCODER, RERANKER, describe

        sha256, _ = describe(open_store(place, role), RERANKER if cross else ENCODER)
    return OnnxFolder(location=place, sha256=sha256)


def rerank(options: argparse.Namespace) -> RerankTask | None:
    """Of `serve`: --rerank and what belongs to it. Raises BadSpec."""
    if options.rerank and not (options.encoder or options.encoder_url):
        remedy = "Give --encoder or --encoder-url: only answers to queries in words are reordered."
        raise BadSpec("MissingFlag", "--rerank needs an encoder", field="--encoder", remedy=remedy)
    return _reranker(options, budget_seconds=options.rerank_budget / 1e3) if options.rerank else None


def measured_rerank(options: argparse.Namespace) -> RerankTask | None:
    """Of `validate`: likewise, with the queries that tell what it gains. Raises BadSpec."""
    needed = {
        "queries": "--queries",
        "relevant_column": "--relevant-column",
        "query_text_column": "--query-text-column",
    }
    missing = [flag for name, flag in needed.items() if not getattr(options, name)]
    if options.rerank and missing:
        message = f"--rerank is measured by queries in words whose right answers are known: {', '.join(missing)}"
        remedy = "Give a file of queries with a column of texts and one of right ids."
        raise BadSpec("MissingFlag", message, field=missing[0], remedy=remedy)
    return _reranker(options) if options.rerank else None


def _reranker(options: argparse.Namespace, **more: float) -> RerankTask:
    """Raises BadSpec."""
    told = {"text_column": options.rerank_column, "candidates": options.rerank_candidates, **more}
    try:
        return RerankTask(onnx=_onnx(options, "rerank", Role.RERANKER), **told)
    except ValidationError as error:
        fault = error.errors()[0]
        field = {"text_column": "column", "candidates": "candidates"}.get(str(fault["loc"][0]), "budget")
        raise BadSpec("BadFlag", f"--rerank-{field}: {fault['msg']}", field=f"--rerank-{field}") from None
