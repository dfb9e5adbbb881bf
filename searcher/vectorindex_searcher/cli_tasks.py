"""Flags, and tasks made of them. A task in the environment wins over every flag. No FAISS here: --help is instant."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

from .artifact import Layout
from .building import CHECKPOINT_AFTER_SECONDS
from .contract import (
    METRICS_PORT_ENV,
    TASK_ENV,
    BuildTask,
    Columns,
    Device,
    Embedding,
    ExitCode,
    Identity,
    IndexSpec,
    Location,
    Metric,
    Minimise,
    Objective,
    QueryColumns,
    ResolveTask,
    ServeTask,
    ValidateTask,
)
from .errors import BadSpec, Retry
from .store import Role, open_store, parse_location

FORMATS = "Parquet, NPY, fvecs/bvecs/ivecs, fbin/u8bin/i8bin, HDF5 or JSON lines (.jsonl, also .gz, .zst)"
_BELOW = int(ExitCode.BELOW_FLOOR)
_EPILOG = f"""Without flags a verb takes its task as JSON from the environment variable {TASK_ENV}.
Places are folders, files or s3://bucket/prefix; credentials come from SOURCE_, ARTIFACTS_ or QUERIES_ followed by
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and CA_PEM, else from the usual AWS places."""


def parser() -> argparse.ArgumentParser:
    """The command line of all verbs."""
    top = argparse.ArgumentParser(
        prog="vectorindex-searcher", description="Build, prove and serve FAISS indexes.", epilog=_EPILOG
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, epilog=_EPILOG)
        added.add_argument("-v", "--verbose", action="store_true", help="log more, and print the result in a pod too")
        added.add_argument("--endpoint", default="", help="S3 endpoint (default: AWS)")
        added.add_argument("--region", default="", help="S3 region")
        if name == "build":
            port = os.environ.get(METRICS_PORT_ENV) or "0"
            text = f"serve Prometheus metrics of the progress on this port (default: {METRICS_PORT_ENV}, else none)"
            added.add_argument("--metrics-port", type=int, default=port, metavar="PORT", help=text)
        if name != "inspect":
            added.add_argument("--namespace", default="local", help="namespace of the VectorIndex (default: local)")
            added.add_argument("--name", default="index", help="name of the VectorIndex (default: index)")
        return added

    for name, text in (
        ("resolve", "List a source, fingerprint it, read its headers."),
        ("build", "Build an index and publish it as a verified artifact."),
    ):
        _source_flags(verb(name, text), building=name == "build")
    _validate_flags(verb("validate", "Measure recall of a built index against exact search."))
    _serve_flags(verb("serve", "Serve a built index over HTTP."))
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
    verb.add_argument("--metadata", nargs="*", default=[], metavar="COLUMN", help="columns to return with hits")
    verb.add_argument("--dimension", type=int, help="refuse vectors of another dimension")
    _tombstone_flags(verb)
    metrics = [metric.value for metric in Metric]
    verb.add_argument("--metric", choices=metrics, default=Metric.COSINE.value, help="similarity (default: Cosine)")
    if building:
        verb.add_argument("--factory", default="Auto", help="Auto or a FAISS factory string (default: Auto)")
        verb.add_argument("--recall", type=float, default=0.96, help="recall@10 to tune for (default: 0.96)")
        aims = [aim.value for aim in Minimise]
        verb.add_argument(
            "--minimise", choices=aims, default=Minimise.LATENCY.value, help="what Auto looks for (default: Latency)"
        )
        verb.add_argument("--memory-limit", help="most memory the index may need when it serves, for Auto (4Gi)")
        verb.add_argument(
            "--search-params",
            nargs="*",
            default=[],
            metavar="NAME=VALUE",
            help="fixed, not tuned (nprobe=32 k_factor=4)",
        )
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


def _tombstone_flags(verb: argparse.ArgumentParser, *, serving: bool = False, ids: bool = False) -> None:
    verb.add_argument(
        "--tombstones", metavar="PLACE", help="where deleted ids are listed: Parquet or JSON lines with ids, or .txt"
    )
    if ids:
        verb.add_argument("--id-column", default="id", help="column of the ids in tombstones (default: id)")
    if serving:
        verb.add_argument(
            "--tombstone-poll", type=float, default=300.0, metavar="SECONDS", help="list them this often (default: 300)"
        )


def _validate_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are")
    verb.add_argument("--digest", default="", help="which revision (default: the only one)")
    verb.add_argument("-k", type=int, default=10, help="recall@k (default: 10)")
    verb.add_argument("--confidence", type=float, default=0.95, help="of the lower bound, one-sided (default: 0.95)")
    verb.add_argument("--queries", help=f"queries: {FORMATS} (default: held-out rows)")
    verb.add_argument(
        "--query-vector-column", default="vector", help="column of query vectors (default: vector; test in HDF5)"
    )
    verb.add_argument("--segment-column", default="", help="column naming the class of each query")
    verb.add_argument("--relevant-column", default="", help="column with the right ids of each query")
    verb.add_argument("--segments", nargs="*", default=[], help="classes to tune and report on their own")
    verb.add_argument("--recall", type=float, default=0.96, help="recall@k to tune segments for (default: 0.96)")
    verb.add_argument("--floor", type=float, help=f"end with exit code {_BELOW} unless recall is proven to reach this")
    verb.add_argument(
        "--segment-floor",
        nargs="*",
        default=[],
        metavar="NAME=FLOOR",
        help="the same for a segment of its own; above --recall it is tuned for it, too",
    )
    verb.add_argument("--html", type=Path, metavar="FILE", help="write the report's page there, too")
    _tombstone_flags(verb, ids=True)
    verb.add_argument("--work-dir", type=Path, help="folder for temporary files")


def _serve_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", help="where artifacts are")
    verb.add_argument("--digest", default="", help="which revision (default: the only one)")
    verb.add_argument(
        "--gate",
        metavar="HASH",
        help="gateHash of a `validate`: its canary queries must be answered as well before the start, and its segments "
        "are served with the points that it tuned",
    )
    verb.add_argument("--cache-dir", default="/var/cache/vectorindex", help="where verified files are kept")
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
    _tombstone_flags(verb, serving=True, ids=True)
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


def resolve_task(options: argparse.Namespace, given: str | None) -> ResolveTask:
    """The task of `resolve`. Raises BadSpec for missing flags, pydantic's ValidationError for bad values."""
    if given is not None:
        return ResolveTask.model_validate_json(given)
    return ResolveTask(
        identity=_identity(options),
        source=_location(options, "source"),
        columns=_columns(options),
        embedding=Embedding(dimension=options.dimension, metric=Metric(options.metric)),
        artifacts=_location(options, "out"),
        tombstones=_tombstones(options),
    )


def build_task(options: argparse.Namespace, given: str | None) -> BuildTask:
    """The task of `build`; see `resolve_task`. The digest is derived from the listing and the flags."""
    if given is not None:
        return BuildTask.model_validate_json(given)
    resolving = resolve_task(options, None)
    objective = Objective(recall=options.recall, minimise=Minimise(options.minimise), memory_limit=options.memory_limit)
    index = IndexSpec(factory=options.factory, objective=objective, search_params=_search_params(options.search_params))
    task = BuildTask(
        identity=resolving.identity,
        digest=options.digest or "-",
        source=resolving.source,
        columns=resolving.columns,
        embedding=resolving.embedding,
        index=index,
        artifacts=resolving.artifacts,
        device=Device(options.device),
        tombstones=resolving.tombstones,
    )
    return task if options.digest else task.model_copy(update={"digest": _digest(task)})


def _fingerprint(place: Location, role: Role, exclude: str = "") -> str:
    from .dataset.listing import list_source  # pyarrow and numpy are slow to import, and --help needs neither

    return list_source(open_store(place, role), exclude).fingerprint


def _digest(task: BuildTask) -> str:
    from .dataset.tombstones import nested_key

    facts = [
        _fingerprint(task.source, Role.SOURCE, nested_key(task.source, task.tombstones)),
        *_deleted(task.tombstones),
        *(part.wire() for part in (task.columns, task.embedding, task.index)),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _deleted(tombstones: Location | None) -> list[str]:
    """What a person's build or report is of, beside the source: in the cluster a delete alone starts neither."""
    if tombstones is None:
        return []
    from .dataset.listing import fingerprint
    from .dataset.tombstones import list_tombstones

    return [fingerprint(list_tombstones(open_store(tombstones, Role.TOMBSTONES)))]


def validate_task(options: argparse.Namespace, given: str | None) -> ValidateTask:
    """The task of `validate`; see `resolve_task`. The gate hash is derived from the flags."""
    if given is not None:
        return ValidateTask.model_validate_json(given)
    queries = parse_location(options.queries, **_s3(options)) if options.queries else None
    tombstones = _tombstones(options)
    columns = QueryColumns(
        vector=options.query_vector_column, segment=options.segment_column, relevant=options.relevant_column
    )
    floors = segment_floors(options)
    named = bool(options.segment_column and queries)
    targets = {name: max(options.recall, floors.get(name, 0.0)) for name in options.segments} if named else {}
    content = _fingerprint(queries, Role.QUERIES) if queries else ""  # edited queries are measured anew
    facts = [options.k, options.confidence, options.queries, content, columns.wire(), options.segments, targets]
    facts += _deleted(tombstones)  # and so are ids deleted since
    return ValidateTask(
        identity=_identity(options),
        digest=_only_digest(options),
        manifest_sha256="",
        gate_hash=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16],
        artifacts=_location(options, "artifact"),
        k=options.k,
        confidence=options.confidence,
        queries=queries,
        query_columns=columns,
        segments=tuple(options.segments),
        segment_targets=targets,
        floor=options.floor,
        tombstones=tombstones,
        id_column=options.id_column,
    )


def segment_floors(options: argparse.Namespace) -> dict[str, float]:
    """Segment -> floor, of the flags. Raises BadSpec for what is no NAME=FLOOR of a segment of --segments."""
    floors = {}
    for text in options.segment_floor:
        name, _, number = text.rpartition("=")
        try:
            floors[name] = float(number)
        except ValueError:
            floors[name] = -1.0
        if not 0 <= floors[name] <= 1:
            raise BadSpec("BadFlag", f"--segment-floor {text}: not NAME=FLOOR with a floor from 0 to 1")
        if name not in options.segments:
            raise BadSpec("BadFlag", f"--segment-floor {text}: {name!r} is not one of --segments")
    return floors


def serve_task(options: argparse.Namespace, given: str | None) -> ServeTask:
    """The task of `serve`; see `resolve_task`. Without --gate there is no canary and no segment."""
    if given is not None:
        return ServeTask.model_validate_json(given)
    digest = _only_digest(options)
    task = ServeTask(
        identity=_identity(options),
        revision=digest,
        digest=digest,
        manifest_sha256="",
        artifacts=_location(options, "artifact"),
        live_recall=options.live_recall,
        cache_dir=options.cache_dir,
        tombstones=_tombstones(options),
        tombstone_poll_seconds=options.tombstone_poll,
        id_column=options.id_column,
    )
    return task if options.gate is None else _gated(task, options.gate)


def _gated(task: ServeTask, gate_hash: str) -> ServeTask:
    """The task with what the report of a gate says. Raises BadSpec when there is no such report."""
    from .recall.report import load_report  # opens FAISS, which `serve` does anyway

    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity)
    try:
        report, sha256 = load_report(store, layout, task.digest, gate_hash)
    except Retry as error:
        folder = layout.report(task.digest, "", "")
        known = sorted({item.key.split("/")[-2] for item in store.list(folder) if item.key.endswith("/report.json")})
        remedy = f"Known are: {' '.join(known[:20])}" if known else "Run validate first."
        raise BadSpec("ReportNotFound", f"--gate {gate_hash}: {error}", field="gate", remedy=remedy) from None
    return task.model_copy(
        update={
            "gate_hash": gate_hash,
            "report_sha256": sha256,
            "manifest_sha256": report.manifest_sha256,
            "segments": tuple(row.segment for row in report.points),
        }
    )


def _tombstones(options: argparse.Namespace) -> Location | None:
    return parse_location(options.tombstones, **_s3(options)) if options.tombstones else None


def _only_digest(options: argparse.Namespace) -> str:
    if options.digest:
        return str(options.digest)
    store = open_store(_location(options, "artifact"), Role.ARTIFACTS)
    base = Layout(store.prefix, _identity(options)).base
    found = [item.key for item in store.list(base) if item.key.endswith("/manifest.json")]
    if len(found) == 1:
        return found[0].split("/")[-2]
    problem = f"{len(found)} artifacts are" if found else "no artifact is"
    known = "".join(f" {key.split('/')[-2]}" for key in sorted(found)[:20])
    raise BadSpec("AmbiguousArtifact", f"{problem} below {store.describe(base)}", remedy=f"Give --digest:{known}")


def _search_params(pairs: list[str]) -> dict[str, int]:
    """NAME=VALUE pairs. Raises BadSpec for a pair that is none."""
    params = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value.isascii() and value.isdigit()):
            message = f"--search-params takes NAME=VALUE with a whole number, not {pair!r}"
            raise BadSpec(
                "BadSearchParams", message, field="spec.index.searchParams", remedy="Write for example nprobe=32."
            )
        params[name] = int(value)
    return params


def _identity(options: argparse.Namespace) -> Identity:
    return Identity(namespace=options.namespace, name=options.name)


def _columns(options: argparse.Namespace) -> Columns:
    return Columns(id=options.id_column, vector=options.vector_column, metadata=tuple(options.metadata))


def _location(options: argparse.Namespace, flag: str) -> Location:
    text = getattr(options, flag)
    if not text:
        raise BadSpec("MissingFlag", f"--{flag} is needed (or a task in {TASK_ENV})")
    return parse_location(text, **_s3(options))


def _s3(options: argparse.Namespace) -> dict[str, str]:
    return {"endpoint": options.endpoint, "region": options.region}
