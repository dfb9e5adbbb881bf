"""Tasks made of flags (flags.py). A task in the environment wins over every flag."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ..artifact.layout import Layout
from ..contract import (
    AUTO_SHARDS,
    COMPLETION_INDEX_ENV,
    LEAST_SHARDS,
    MAX_SHARDS,
    BuildTask,
    CollectTask,
    Columns,
    Device,
    Effort,
    Embedding,
    FreshTask,
    ImportedIndex,
    IndexSpec,
    Location,
    Metric,
    Minimise,
    Objective,
    OutcomesTask,
    Partial,
    PartitionTask,
    PublishTask,
    QueryColumns,
    ResolveTask,
    RouteTask,
    ServeTask,
    Shard,
    ValidateTask,
    memory_bytes,
    shard_address,
)
from ..errors import BadSpec, RetryableError
from ..storage.store import Role, open_store
from . import models, places


def work_folder(options: argparse.Namespace) -> Path | None:
    """--work-dir. Raises BadSpec for one that is no folder: before anything is read."""
    folder: Path | None = options.work_dir
    if folder is not None and not folder.is_dir():
        message, remedy = f"--work-dir {folder} is not a folder", "Name an existing folder, or leave the flag out."
        raise BadSpec("FolderNotFound", message, field="--work-dir", remedy=remedy)
    return folder


def resolve_task(options: argparse.Namespace, given: str | None) -> ResolveTask:
    """The task of `resolve`. Raises BadSpec for missing flags, pydantic's ValidationError for bad values."""
    if given is not None:
        return ResolveTask.model_validate_json(given)
    return ResolveTask(
        identity=places.identity(options),
        source=places.location(options, "source"),
        columns=_columns(options),
        embedding=Embedding(dimension=options.dimension, metric=Metric(options.metric)),
        artifacts=places.location(options, "out"),
        tombstones=places.tombstones(options),
        queries=places.queries(options),
        fresh=_taken_in(options),
    )


def _taken_in(options: argparse.Namespace) -> Location | None:
    """Where fresh rows are that a build takes in. Raises BadSpec beside what the spec refuses as well."""
    if getattr(options, "fresh", None) is None:
        return None
    for flag in ("text_column", "import_index"):
        if getattr(options, flag, None):
            name = f"--{flag.replace('_', '-')}"
            remedy = "Write vectors, and have the index built from them."
            raise BadSpec("BadFlag", f"--fresh and {name} do not go together", field="--fresh", remedy=remedy)
    return places.fresh(options)


def build_task(options: argparse.Namespace, given: str | None) -> BuildTask:
    """The task of `build`; see `resolve_task`. The digest is derived from the listing and the flags."""
    if given is not None:
        return _of_this_pod(BuildTask.model_validate_json(given))
    shard = _shard(options.shard) if options.shard else None
    task = _build_task(options, [] if shard is None else [shard.of])
    return task.model_copy(update={"shard": shard})


def _of_this_pod(task: BuildTask) -> BuildTask:
    """One task is given to all pods of an Indexed Job: the shard of a pod is what Kubernetes counts it as."""
    if task.index.shards is None or task.shard is not None:
        return task
    number = os.environ.get(COMPLETION_INDEX_ENV, "")
    if not number:
        message = f"{COMPLETION_INDEX_ENV} is not set, and nothing else names the shard to build"
        raise BadSpec("BadTask", message, field="index.shards", remedy="Run it as an Indexed Job, or name the shard.")
    return task.model_copy(update={"shard": _shard(f"{number}/{task.index.shards}")})


def partition_task(options: argparse.Namespace, given: str | None) -> PartitionTask:
    """The task of `partition`; see `resolve_task`. Its digest is that of the builds of its shards."""
    if given is not None:
        return PartitionTask.model_validate_json(given)
    shards = _shards(options.shards or "")
    if shards != AUTO_SHARDS:
        task = _build_task(options, [shards])
        return PartitionTask(**{name: getattr(task, name) for name in BuildTask.model_fields}, shards=shards)
    try:
        memory = memory_bytes(options.memory_per_shard)
    except ValueError as error:
        field = "--memory-per-shard"
        raise BadSpec("BadFlag", f"{field}: {error}", field=field, remedy="Write for example 16Gi.") from None
    task = _build_task(options, [AUTO_SHARDS, memory])
    asked = {"shards": AUTO_SHARDS, "memory_per_shard": options.memory_per_shard}
    return PartitionTask(**{name: getattr(task, name) for name in BuildTask.model_fields}, **asked)


def _shards(text: str) -> int | Literal["Auto"]:
    """Of --shards. Raises BadSpec."""
    if text.lower() == AUTO_SHARDS.lower():
        return AUTO_SHARDS
    if text.isascii() and text.isdigit() and LEAST_SHARDS <= int(text) <= MAX_SHARDS:
        return int(text)
    remedy = f"Take {LEAST_SHARDS} to {MAX_SHARDS}, or auto; with one part there is nothing to partition: use `build`."
    raise BadSpec("BadFlag", f"--shards {text[:20]}: how many parts?", field="--shards", remedy=remedy)


def publish_task(options: argparse.Namespace, given: str | None) -> PublishTask:
    """The task of `publish`; see `resolve_task`."""
    if given is not None:
        return PublishTask.model_validate_json(given)
    digest = places.only_digest(options, planned=True)
    return PublishTask(identity=places.identity(options), digest=digest, artifacts=places.location(options, "artifact"))


def _shard(text: str) -> Shard:
    """Of I/N. Raises BadSpec."""
    number, _, of = text.partition("/")
    try:
        return Shard(number=int(number), of=int(of))
    except ValueError:  # pydantic's too
        remedy = "Write for example 0/3, the first of three parts."
        raise BadSpec("BadFlag", f"--shard {text}: no I/N", field="--shard", remedy=remedy) from None


def _build_task(options: argparse.Namespace, shards: Sequence[int | str]) -> BuildTask:
    """What `partition` and `build` have in common. shards: how many the artifact has, or what says so; none: it is not
    sharded."""
    resolving = resolve_task(options, None)
    objective = Objective(recall=options.recall, minimise=Minimise(options.minimise), memory_limit=options.memory_limit)
    index = IndexSpec(
        factory=options.factory,
        objective=objective,
        effort=Effort(options.effort),
        search_params=_search_params(options.search_params),
        imported=_imported(options),
    )
    task = BuildTask(
        identity=resolving.identity,
        digest=options.digest or "-",
        fingerprint=_listed_with_fresh(resolving),
        fresh=resolving.fresh,
        source=resolving.source,
        columns=resolving.columns,
        embedding=resolving.embedding,
        index=index,
        artifacts=resolving.artifacts,
        device=Device(options.device),
        tombstones=resolving.tombstones,
        queries=resolving.queries,
        encoder=models.row_encoder(options),
    )
    return task if options.digest else task.model_copy(update={"digest": _digest(task, shards)})


def _listed_with_fresh(resolving: ResolveTask) -> str:
    """Fingerprint of the listing that names the fresh files that go in; empty: there are none to list."""
    if resolving.fresh is None:
        return ""
    from ..dataset.resolve import resolve

    return resolve(resolving).fingerprint


def _imported(options: argparse.Namespace) -> ImportedIndex | None:
    """Raises BadSpec for what is half said."""
    if options.import_index is None:
        return None
    ids, ids_sha256 = options.import_ids, options.import_ids_sha256
    try:
        return ImportedIndex(index=options.import_index, sha256=options.import_sha256, ids=ids, ids_sha256=ids_sha256)
    except ValidationError as error:
        raise BadSpec(
            "BadImport",
            f"--import-index {options.import_index}: {error.errors(include_url=False)[0]['msg']}",
            field="--import-index",
            remedy="Say with --import-sha256 (and --import-ids-sha256) what sha256sum says of the files.",
        ) from None


def _fingerprint(place: Location, role: Role, exclude: Sequence[str] = ()) -> str:
    from ..dataset.listing import list_source  # pyarrow and numpy are slow to import, and --help needs neither

    return list_source(open_store(place, role), exclude).fingerprint


def _digest(task: BuildTask, shards: Sequence[int | str]) -> str:
    from ..dataset.places import no_data

    facts = [
        task.fingerprint or _fingerprint(task.source, Role.SOURCE, no_data(task)),
        *_deleted(task.tombstones),
        *(part.wire() for part in (task.columns, task.embedding, task.index)),
        *shards,
        *([models.makes_vectors(task.encoder)] if task.encoder is not None else []),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _deleted(tombstones: Location | None) -> list[str]:
    """What a person's build or report is of, beside the source: in the cluster a delete alone starts neither."""
    if tombstones is None:
        return []
    from ..dataset.listing import fingerprint
    from ..dataset.tombstones import list_tombstones

    return [fingerprint(list_tombstones(open_store(tombstones, Role.TOMBSTONES)))]


def validate_task(options: argparse.Namespace, given: str | None) -> ValidateTask:
    """The task of `validate`; see `resolve_task`. The gate hash is derived from the flags."""
    if given is not None:
        return ValidateTask.model_validate_json(given)
    queries = places.queries(options)
    tombstones = places.tombstones(options)
    columns = QueryColumns(
        vector=options.query_vector_column,
        segment=options.segment_column,
        relevant=options.relevant_column,
        filter=options.filter_column,
        text=options.query_text_column,
    )
    if options.filter_column and not queries:
        message = f"--filter-column {options.filter_column}: held-out rows have no filters"
        raise BadSpec("BadFlag", message, field="--filter-column", remedy="Give --queries with that column.")
    floors = segment_floors(options)
    if options.segments and not (options.segment_column and queries):
        remedy = "Give --queries and, as --segment-column, the column that names each query's class."
        message = f"--segments {' '.join(options.segments)}: nothing says which query is of which class"
        raise BadSpec("BadFlag", message, field="--segments", remedy=remedy)
    named = bool(options.segment_column and queries)
    targets = {name: max(options.recall, floors.get(name, 0.0)) for name in options.segments} if named else {}
    content = _fingerprint(queries, Role.QUERIES) if queries else ""  # edited queries are measured anew
    facts = [options.k, options.confidence, options.queries, content, _asked(columns), options.segments, targets]
    facts += _deleted(tombstones)  # and so are ids deleted since
    objective = max(options.recall, options.floor or 0.0) if queries else None
    facts += [objective] if queries else []
    encoder = models.encoder(options, proving=True)
    facts += [encoder.wire()] if encoder is not None else []
    rerank = models.measured_rerank(options)
    facts += [rerank.wire()] if rerank is not None else []
    return ValidateTask(
        identity=places.identity(options),
        digest=places.only_digest(options),
        manifest_sha256="",
        gate_hash=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16],
        artifacts=places.location(options, "artifact"),
        k=options.k,
        confidence=options.confidence,
        queries=queries,
        query_columns=columns,
        segments=tuple(options.segments),
        segment_targets=targets,
        objective=objective,
        floor=options.floor,
        tombstones=tombstones,
        id_column=options.id_column,
        encoder=encoder,
        rerank=rerank,
        shard=options.shard,
    )


def _asked(columns: QueryColumns) -> dict[str, object]:
    """The columns for a gate hash: one that came later changes none where it is not named."""
    return {name: value for name, value in columns.wire().items() if name != "text" or value}


def segment_floors(options: argparse.Namespace) -> dict[str, float]:
    """Segment -> floor, of the flags. Raises BadSpec for what is no NAME=FLOOR of a segment of --segments."""
    floors: dict[str, float] = {}
    example = "Write for example short=0.98."
    for text in options.segment_floor:
        name, _, number = text.rpartition("=")
        try:
            floors[name] = float(number)
        except ValueError:
            floors[name] = -1.0
        if not 0 <= floors[name] <= 1:
            raise BadSpec("BadFlag", f"--segment-floor {text}: not NAME=FLOOR with a floor from 0 to 1", remedy=example)
        if name not in options.segments:
            raise BadSpec(
                "BadFlag",
                f"--segment-floor {text}: {name!r} is not one of --segments",
                remedy=f"Give --segments {name}.",
            )
    return floors


def serve_task(options: argparse.Namespace, given: str | None) -> ServeTask:
    """The task of `serve`; see `resolve_task`. Without --gate there is no canary and no segment."""
    if given is not None:
        return ServeTask.model_validate_json(given)
    digest = places.only_digest(options)
    task = ServeTask(
        identity=places.identity(options),
        revision=digest,
        digest=digest,
        manifest_sha256="",
        artifacts=places.location(options, "artifact"),
        live_recall=options.live_recall,
        cache_dir=options.cache_dir,
        tombstones=places.tombstones(options),
        tombstone_poll_seconds=options.tombstone_poll,
        id_column=options.id_column,
        encoder=models.encoder(options),
        rerank=models.rerank(options),
        shard=options.shard,
    )
    return task if options.gate is None else _gated(task, options.gate)


def fresh_text(options: argparse.Namespace) -> str | None:
    """What FRESH_ENV says in a pod, of --fresh; None without it. Raises BadSpec."""
    place = places.fresh(options)
    if place is None:
        return None
    try:
        told = FreshTask(
            place=place,
            columns=Columns(id=options.id_column, vector=options.vector_column),
            poll_seconds=options.fresh_poll,
            text_column=options.text_column,
        )
    except ValidationError as error:
        message = f"--fresh-poll {options.fresh_poll:g}: {error.errors(include_url=False)[0]['msg']}"
        raise BadSpec("BadFlag", message, field="--fresh-poll", remedy="Give seconds, from 1 to 3600.") from None
    return told.task_text(first_release=False)


def _gated(task: ServeTask, gate_hash: str) -> ServeTask:
    """The task with what the report of a gate says. Raises BadSpec when there is no such report."""
    from ..artifact.sharded import find_sharded
    from ..proof.report import load_report  # opens FAISS, which `serve` does anyway

    store = open_store(task.artifacts, Role.ARTIFACTS)
    layout = Layout(store.prefix, task.identity, task.shard)
    try:
        report, sha256 = load_report(store, layout, task.digest, gate_hash)
    except RetryableError as error:
        folder = layout.report(task.digest, "", "")
        known = sorted({item.key.split("/")[-2] for item in store.list(folder) if item.key.endswith("/report.json")})
        remedy = f"Known are: {' '.join(known[:20])}" if known else "Run validate first."
        raise BadSpec("ReportNotFound", f"--gate {gate_hash}: {error}", field="--gate", remedy=remedy) from None
    whole = None if task.shard is None else find_sharded(store, layout, task.digest)
    return task.model_copy(
        update={
            "gate_hash": gate_hash,
            "report_sha256": sha256,
            "manifest_sha256": report.manifest_sha256 if whole is None else whole[1],
            "segments": tuple(row.segment for row in report.points),
        }
    )


def route_task(options: argparse.Namespace, given: str | None) -> RouteTask:
    """The task of `route`; see `resolve_task`."""
    if given is not None:
        return RouteTask.model_validate_json(given)
    if not options.shard:
        remedy = "Give --shard http://HOST:PORT for each, in the order of their numbers; several pods with commas."
        raise BadSpec("MissingFlag", "--shard is needed, once for each shard", field="--shard", remedy=remedy)
    shards = tuple(tuple(one.strip() for one in text.split(",")) for text in options.shard)
    for text in (one for pods in shards for one in pods):
        try:
            shard_address(text)
        except ValueError as error:
            remedy = "Write for example --shard http://127.0.0.1:9001,http://127.0.0.1:9002."
            raise BadSpec("BadFlag", f"--shard: {error}", field="--shard", remedy=remedy) from None
    return RouteTask(
        identity=places.identity(options),
        revision=options.revision,
        shards=shards,
        partial=Partial(options.partial),
        segments=tuple(options.segments),
        encoder=models.encoder(options),
        cache_dir=options.cache_dir,
    )


def collect_task(options: argparse.Namespace, given: str | None) -> CollectTask:
    """The task of `collect`; see `resolve_task`. Flags name what goes; all else stays."""
    if given is not None:
        return CollectTask.model_validate_json(given)
    if not options.digests and not options.everything:
        remedy = "Name what is to go (`inspect` shows what is there), or give --everything."
        raise BadSpec("MissingFlag", "--digests or --everything is needed", field="--digests", remedy=remedy)
    return CollectTask(
        identity=places.identity(options).model_copy(update={"uid": options.uid}),
        artifacts=places.location(options, "artifact"),
        cluster=options.cluster,
        digests=tuple(options.digests),
        everything=options.everything,
        dry_run=options.dry_run,
    )


def outcomes_task(options: argparse.Namespace, given: str | None) -> OutcomesTask:
    """The task of `outcomes`; see `resolve_task`. A person reads them: what they say is the operator's to decide."""
    if given is not None:
        return OutcomesTask.read(json.loads(given))
    return OutcomesTask(identity=places.identity(options), artifacts=places.location(options, "artifact"), restore=True)


def model_place(options: argparse.Namespace) -> Location:
    """--model of the verb `encoder`. Raises BadSpec."""
    return places.location(options, "model")


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


def _columns(options: argparse.Namespace) -> Columns:
    metadata = tuple(options.metadata)
    return Columns(id=options.id_column, vector=options.vector_column, text=options.text_column, metadata=metadata)
