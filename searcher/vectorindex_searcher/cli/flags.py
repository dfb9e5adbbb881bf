"""Flags of every verb, with their help. No FAISS here: --help is instant. What is made of them: commands.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..build import CHECKPOINT_AFTER_SECONDS
from ..contract import (
    MAX_SHARDS,
    MEMORY_PER_SHARD,
    METRICS_PORT_ENV,
    TASK_ENV,
    Device,
    Effort,
    ExitCode,
    Metric,
    Minimise,
    Partial,
)

FORMATS = "Parquet, NPY, fvecs/bvecs/ivecs, fbin/u8bin/i8bin, HDF5 or JSON lines (.jsonl, also .gz, .zst)"
_BELOW = int(ExitCode.BELOW_FLOOR)
_EPILOG = f"""Without flags a verb takes its task as JSON from the environment variable {TASK_ENV}.
Places are folders, files, s3://bucket/prefix, az://account/container/prefix or gs://bucket/prefix; credentials come
from SOURCE_, ARTIFACTS_ or QUERIES_ followed by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and CA_PEM
(those of Azure and GCS: docs/stores.md), else from the usual places of the cloud."""


def parser() -> argparse.ArgumentParser:
    """The command line of all verbs."""
    top = argparse.ArgumentParser(
        prog="vectorindex-searcher", description="Build, prove and serve FAISS indexes.", epilog=_EPILOG
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, epilog=_EPILOG)
        added.add_argument("-v", "--verbose", action="store_true", help="log more, and print the result in a pod too")
        added.add_argument("--endpoint", default="", help="endpoint of the store (default: that of AWS, Azure or GCS)")
        added.add_argument("--region", default="", help="S3 region")
        text = "what is only read (source, queries, tombstones; the artifact of serve) is public: no credentials"
        added.add_argument("--anonymous", action="store_true", help=text)
        if name == "build":
            text = "build this part of what `partition` laid ready, with the same other flags (0/3: the first of three)"
            added.add_argument("--shard", metavar="I/N", help=text)
            port = os.environ.get(METRICS_PORT_ENV) or "0"
            text = f"serve Prometheus metrics of the progress on this port (default: {METRICS_PORT_ENV}, else none)"
            added.add_argument("--metrics-port", type=int, default=port, metavar="PORT", help=text)
        if name not in ("inspect", "encoder"):
            added.add_argument("--namespace", default="local", help="namespace of the VectorIndex (default: local)")
            added.add_argument("--name", default="index", help="name of the VectorIndex (default: index)")
        return added

    for name, text in (
        ("resolve", "List a source, fingerprint it, read its headers."),
        ("build", "Build an index and publish it as a verified artifact."),
    ):
        listing = verb(name, text)
        _source_flags(listing, building=name == "build")
        text = "where fresh rows are, which are taken in as the next build of a cluster would"
        listing.add_argument("--fresh", metavar="PLACE", help=text)
    _shard_flags(verb("partition", "Plan a sharded index, and lay the rows of each shard ready for `build --shard`."))
    _publish_flags(verb("publish", "Check that every shard is built, and publish the whole."))
    _validate_flags(verb("validate", "Measure recall of a built index against exact search."))
    _serve_flags(verb("serve", "Serve a built index over HTTP."))
    _route_flags(verb("route", "Serve a sharded index over HTTP: ask searchers of all shards, and merge."))
    _collect_flags(verb("collect", "Remove artifacts that nobody uses any more."))
    told = verb("outcomes", "Show what is remembered of an index's revisions, beside their artifacts.")
    told.add_argument("--artifact", help="where artifacts are")
    encoder = verb("encoder", "Name a model's folder by its files: the sha256 of spec.embedding.encoder.onnx.")
    encoder.add_argument("--model", help="folder of sentence-transformers with the model as ONNX")
    encoder.add_argument("--text", nargs="*", default=[], help="show the beginning of the vectors of these texts, too")
    cross = "it is a cross-encoder, for spec.searcher.rerank.onnx; --text: a query, and texts to judge by it"
    encoder.add_argument("--cross", action="store_true", help=cross)
    shown = verb("inspect", "Show manifests and reports, for people.")
    shown.add_argument("artifact", help="where artifacts are, or one manifest.json or report.json")
    shown.add_argument("--html", type=Path, metavar="FILE", help="write the page of the one report there is, too")
    return top


def _source_flags(verb: argparse.ArgumentParser, *, building: bool) -> None:
    verb.add_argument("--source", help=f"where the vectors are: {FORMATS}")
    verb.add_argument("--out", help="where artifacts go")
    verb.add_argument("--id-column", default="id", help="column of unique ids (default: id)")
    verb.add_argument(
        "--vector-column", default="vector", help="column of vectors, or dataset of HDF5 (default: vector; train)"
    )
    text = "column of texts, in the place of vectors: the build encodes them (needs --encoder and --dimension)"
    verb.add_argument("--text-column", metavar="COLUMN", help=text)
    verb.add_argument("--metadata", nargs="*", default=[], metavar="COLUMN", help="columns to return with hits")
    verb.add_argument("--dimension", type=int, help="refuse vectors of another dimension")
    _tombstone_flags(verb)
    text = "where the queries of `validate` are, which are no rows; only needed where that is below the source"
    verb.add_argument("--queries", metavar="PLACE", help=text)
    metrics = [metric.value for metric in Metric]
    verb.add_argument("--metric", choices=metrics, default=Metric.COSINE.value, help="similarity (default: Cosine)")
    if building:
        _row_encoder_flags(verb)
        verb.add_argument("--factory", default="Auto", help="Auto or a FAISS factory string (default: Auto)")
        verb.add_argument("--recall", type=float, default=0.96, help="recall@10 to tune for (default: 0.96)")
        aims = [aim.value for aim in Minimise]
        verb.add_argument(
            "--minimise", choices=aims, default=Minimise.LATENCY.value, help="what Auto looks for (default: Latency)"
        )
        verb.add_argument("--memory-limit", help="most memory the index may need when it serves, for Auto (4Gi)")
        efforts = [effort.value for effort in Effort]
        verb.add_argument(
            "--effort",
            choices=efforts,
            default=Effort.NORMAL.value,
            help="CPU of a build for faster queries (default: Normal)",
        )
        verb.add_argument(
            "--search-params",
            nargs="*",
            default=[],
            metavar="NAME=VALUE",
            help="fixed, not tuned (nprobe=32 k_factor=4)",
        )
        verb.add_argument("--import-index", metavar="FILE", help="serve this FAISS index; a path below the source")
        verb.add_argument("--import-sha256", default="", metavar="SHA256", help="of that file")
        verb.add_argument("--import-ids", metavar="FILE", help=".npy with the id of each of its rows; below the source")
        verb.add_argument("--import-ids-sha256", metavar="SHA256", help="of the file of ids")
        devices = [device.value for device in Device]
        verb.add_argument("--device", choices=devices, default=Device.CPU.value, help="where to build (default: CPU)")
        verb.add_argument("--digest", default="", help="name of the revision (default: derived from data and flags)")
        verb.add_argument("--work-dir", type=Path, help="folder for temporary files")
        verb.add_argument(
            "--checkpoint-after",
            type=float,
            default=CHECKPOINT_AFTER_SECONDS,
            metavar="SECONDS",
            help="keep a trained index for a build that is started again, when training took this long (default: 20)",
        )


def _shard_flags(verb: argparse.ArgumentParser) -> None:
    """Of `partition`: those of `build`, which are said again to build each shard."""
    _source_flags(verb, building=True)
    text = f"how many parts, 2 to {MAX_SHARDS}, or auto; a row is in the part that the hash of its id says"
    verb.add_argument("--shards", metavar="N", help=text)
    text = "with --shards auto: as many parts as are needed for index, ids and metadata of one to take no more"
    verb.add_argument(
        "--memory-per-shard", metavar="SIZE", default=MEMORY_PER_SHARD, help=f"{text} (default: {MEMORY_PER_SHARD})"
    )


def _publish_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are: what the others got as --out")
    verb.add_argument("--digest", default="", help="which revision (default: the only one that is partitioned)")


def _tombstone_flags(verb: argparse.ArgumentParser, *, serving: bool = False, ids: bool = False) -> None:
    verb.add_argument(
        "--tombstones", metavar="PLACE", help="where deleted ids are listed: Parquet, JSON lines, .csv, .tsv or .txt"
    )
    if ids:
        verb.add_argument("--id-column", default="id", help="column of the ids in tombstones (default: id)")
    if serving:
        verb.add_argument(
            "--tombstone-poll", type=float, default=300.0, metavar="SECONDS", help="list them this often (default: 300)"
        )


def _fresh_flags(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("fresh rows", "Files of new and changed rows, answered without a build.")
    group.add_argument("--fresh", metavar="PLACE", help="where they are: Parquet or JSON lines")
    group.add_argument(
        "--fresh-poll", type=float, default=10.0, metavar="SECONDS", help="look at them this often (default: 10)"
    )
    group.add_argument("--vector-column", default="vector", help="column of their vectors (default: vector)")
    text = "metadata column of the texts that vectors were made of: with --encoder some rows of each file are compared"
    group.add_argument("--text-column", default="", help=text)


def _validate_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are")
    verb.add_argument("--digest", default="", help="which revision (default: the only one)")
    text = "measure this shard of a sharded artifact by itself (default: the merged answers of all)"
    verb.add_argument("--shard", type=int, metavar="I", help=text)
    verb.add_argument("-k", type=int, default=10, help="recall@k (default: 10)")
    verb.add_argument("--confidence", type=float, default=0.95, help="of the lower bound, one-sided (default: 0.95)")
    verb.add_argument("--queries", help=f"queries: {FORMATS} (default: held-out rows)")
    verb.add_argument(
        "--query-vector-column", default="vector", help="column of query vectors (default: vector; test in HDF5)"
    )
    verb.add_argument("--segment-column", default="", help="column naming the class of each query")
    verb.add_argument("--filter-column", default="", help="column with the filter of each query, as JSON text")
    verb.add_argument("--relevant-column", default="", help="column with the right ids of each query")
    verb.add_argument("--query-text-column", default="", help="column with each query in words, for --rerank")
    verb.add_argument("--segments", nargs="*", default=[], help="classes to tune and report on their own")
    verb.add_argument("--recall", type=float, default=0.96, help="recall@k to tune for by --queries (default: 0.96)")
    verb.add_argument("--floor", type=float, help=f"end with exit code {_BELOW} unless recall is proven to reach this")
    verb.add_argument(
        "--segment-floor",
        nargs="*",
        default=[],
        metavar="NAME=FLOOR",
        help="the same for a segment of its own; above --recall it is tuned for it, too",
    )
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the report's page there, too")
    _encoder_flags(verb, proving=True)
    _tombstone_flags(verb, ids=True)
    verb.add_argument("--work-dir", type=Path, help="folder for temporary files")


def _serve_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are")
    verb.add_argument("--digest", default="", help="which revision (default: the only one)")
    verb.add_argument("--shard", type=int, metavar="I", help="serve this shard of a sharded artifact")
    verb.add_argument(
        "--gate",
        metavar="HASH",
        help="gateHash of a `validate`: its canary queries must be answered as well before the start, and its segments "
        "are served with the points that it tuned",
    )
    _cache_flag(verb)
    verb.add_argument(
        "--cache-limit",
        dest="cache_bytes",
        metavar="SIZE",
        help="remove artifacts that nobody serves, the longest unused first, when all together take more than this "
        "(20Gi; default: no limit; also as VECTORINDEX_CACHE_BYTES)",
    )
    verb.add_argument(
        "--live-recall",
        action="store_true",
        help="measure the recall of a sample of live queries in the background, with 5 %% of a core: "
        "vectorindex_live_recall in /metrics",
    )
    _encoder_flags(verb)
    _tombstone_flags(verb, serving=True, ids=True)
    _fresh_flags(verb)
    _policies_flag(_listening_flags(verb))


def _route_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--shard",
        action="append",
        default=[],
        metavar="URL[,URL]",
        help="http://HOST:PORT of the searchers of a shard; once for each, in the order of their numbers. A name "
        "stands for a searcher at each address that it resolves to",
    )
    verb.add_argument(
        "--partial",
        choices=[one.value for one in Partial],
        default=Partial.REFUSE.value,
        help="without an answer of some shard: 503, or an answer that says which are missing (default: Refuse)",
    )
    verb.add_argument("--segments", nargs="*", default=[], help="classes of queries that are counted apart")
    verb.add_argument("--revision", default="", help="searchers of another one are not asked (default: the first's)")
    verb.add_argument(
        "--shard-token-file", type=Path, metavar="PATH", help="a file with the bearer token that shards ask for"
    )
    _cache_flag(verb)
    _query_encoder_flags(verb)
    _policies_flag(_listening_flags(verb))


def _listening_flags(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Of whatever users ask."""
    ports = verb.add_argument_group("listening", "Each also as VECTORINDEX_ and its name, VECTORINDEX_HTTP_PORT.")
    ports.add_argument("--host", help="address to listen on (default: all)")
    ports.add_argument("--http-port", type=int, help="port for users (default: 8080; 0: any free one)")
    ports.add_argument("--admin-port", type=int, help="port for probes and metrics (default: 8081; 0: any free one)")
    ports.add_argument(
        "--token-file",
        metavar="PATH",
        help="ask users for a bearer token: a file with one token a line, or a folder of such files; read again "
        "whenever it changes",
    )
    ports.add_argument("--tls-cert", metavar="PATH", help="certificate chain of the user port, PEM")
    ports.add_argument("--tls-key", metavar="PATH", help="its private key; both are read again whenever they change")
    return ports


def _policies_flag(ports: argparse._ArgumentGroup) -> None:
    ports.add_argument(
        "--policies",
        metavar="FILE",
        help="which rows each token may see: a JSON list of policies (docs/policies.md); a token without one sees "
        "none; read again whenever it changes",
    )


def _row_encoder_flags(verb: argparse.ArgumentParser) -> None:
    """Of `build`: what makes vectors of texts."""
    group = verb.add_argument_group("rows that are texts", "Need the extra `text` (onnxruntime, tokenizers).")
    _which_encoder(group)
    group.add_argument("--document-prefix", help="stands before each text (default: what the folder says)")


def _which_encoder(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--encoder", metavar="PLACE", help="folder of sentence-transformers with the model as ONNX")
    text = "of that folder, as the verb `encoder` says it (default, for a folder of this machine: as it is now)"
    group.add_argument("--encoder-sha256", default="", metavar="HEX", help=text)
    group.add_argument("--encoder-url", metavar="URL", help="an embeddings API of OpenAI's form encodes instead")
    group.add_argument("--encoder-model", default="", help="what it calls the model")


def _encoder_flags(verb: argparse.ArgumentParser, *, proving: bool = False) -> None:
    """`proving`: of `validate`, which compares; else of `serve`."""
    group = _query_encoder_flags(verb)
    if proving:
        group.add_argument("--text-column", default="", help="metadata column of the texts that rows were made of")
        group.add_argument("--document-prefix", help="stands before each of them (default: what the folder says)")
    _rerank_flags(group, proving=proving)


def _query_encoder_flags(verb: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = verb.add_argument_group("queries in words", "Need the extra `text` (onnxruntime, tokenizers).")
    _which_encoder(group)
    group.add_argument("--query-prefix", help="stands before each query (default: what the folder says)")
    return group


def _rerank_flags(group: argparse._ArgumentGroup, *, proving: bool) -> None:
    group.add_argument(
        "--rerank", metavar="PLACE", help="folder of a cross-encoder as ONNX, which reorders the answers"
    )
    text = "of that folder, as the verb `encoder --cross` says it (default, for a folder of this machine: as it is now)"
    group.add_argument("--rerank-sha256", default="", metavar="HEX", help=text)
    group.add_argument("--rerank-column", default="text", help="metadata column that it reads (default: text)")
    group.add_argument("--rerank-candidates", type=int, default=100, help="how many it reorders (default: 100)")
    if proving:
        return  # it has all the time it wants
    group.add_argument(
        "--rerank-budget", type=float, default=50, metavar="MS", help="milliseconds for it (default: 50)"
    )


def _collect_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are")
    verb.add_argument(
        "--digests", nargs="*", default=[], metavar="DIGEST", help="which go, with their reports and checkpoints"
    )
    verb.add_argument("--everything", action="store_true", help="the index is gone: all of them, and what lies beside")
    verb.add_argument(
        "--uid", default="", help="of the VectorIndex that they were built for (default: none, as of a build by hand)"
    )
    verb.add_argument("--cluster", default="", help="whose mark is ours; what others marked stays")
    verb.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")


def _cache_flag(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cache-dir", default=_cache_folder(), help="where verified files are kept (default: %(default)s)"
    )


def _cache_folder() -> str:
    """Where a person's searcher keeps files; a pod's task names its own volume."""
    own = os.environ.get("XDG_CACHE_HOME")
    return str((Path(own) if own else Path("~/.cache").expanduser()) / "vectorindex")
