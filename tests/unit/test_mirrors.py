"""Lists that must say the same in two places, and the recipes of CONTRIBUTING.md, which name the places."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest
from chart import of_kind, render
from layers import CHECKOUT

from vectorindex_client import attempts, calls
from vectorindex_operator import telemetry
from vectorindex_operator.core.commands import COMMANDS, NOT_COMMANDS
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.manifests import sizing
from vectorindex_operator.reconcile.observe import CHILD_KINDS
from vectorindex_operator.reconcile.watches import WATCHED
from vectorindex_searcher.cli import task_metrics
from vectorindex_searcher.contract import LIVE_QUERY_BYTES, MOST_PROCESSES, live_room
from vectorindex_searcher.dataset.formats import FORMATS
from vectorindex_searcher.index.selection import subset
from vectorindex_searcher.serve.evidence import live_sample, metrics
from vectorindex_searcher.serve.http import limits
from vectorindex_searcher.serve.http.messages import READ_HEADERS
from vectorindex_searcher.serve.search import fields

ROOTS = (CHECKOUT, CHECKOUT / "operator" / "vectorindex_operator", CHECKOUT / "searcher" / "vectorindex_searcher")
RECIPES = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes\n")[2].partition("\n## ")[0]
KINDS_OF_ADDITION = (
    "A field of a VectorIndex's spec", "A source format", "A store", "A command", "A phase", "A child object",
    "A field of a search request", "A field of a task", "A family of Auto", "A Prometheus metric",
    "A verb of the plugin",
)  # fmt: skip


def page(name: str) -> str:
    return (CHECKOUT / "docs" / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- recipes


def test_there_is_a_recipe_for_each_kind_of_addition() -> None:
    found = re.findall(r"^\*\*(.*?)( \(.*\))?\*\*$", RECIPES, re.MULTILINE)
    assert {name for name, _ in found} >= set(KINDS_OF_ADDITION)


def named_paths() -> list[str]:
    """What the recipes name as a path: with a slash or a suffix of a file."""
    words = re.findall(r"`([^`\s]+)`", RECIPES)
    return sorted({word for word in words if "/" in word or Path(word).suffix in (".py", ".md", ".yaml", ".json")})


@pytest.mark.parametrize("path", named_paths())
def test_a_path_that_a_recipe_names_is_there(path: str) -> None:
    known = path.partition("<")[0]  # `dataset/<format>.py`: the folder is there
    assert any((root / known).exists() for root in ROOTS), path


def test_the_recipes_name_paths() -> None:
    assert len(named_paths()) > 60


# ---------------------------------------------------------------- control plane


def test_what_is_observed_is_watched_and_the_other_way_round() -> None:
    """A VectorIndex is no child; the Service is read by its name, its EndpointSlices by a label of their own."""
    apart = {"VectorIndex", "Service", "EndpointSlice"}
    assert {one.kind for one in WATCHED} - apart == set(CHILD_KINDS)


def test_what_is_watched_may_be_listed_and_watched() -> None:
    objects = render()
    (binding,) = of_kind(objects, "ClusterRoleBinding")
    (role,) = [one for one in of_kind(objects, "ClusterRole") if one["metadata"]["name"] == binding["roleRef"]["name"]]
    rights: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for thing in itertools.product(rule["apiGroups"], rule["resources"]):
            rights.setdefault(thing, set()).update(rule["verbs"])
    for one in WATCHED:
        assert {"list", "watch"} <= rights.get((one.group, one.plural), set()), one


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_described(name: str) -> None:
    assert f"vectorindex.dev/{name}=" in page("operations.md")


def test_the_page_describes_no_other_command() -> None:
    assert set(re.findall(r"vectorindex\.dev/([a-z-]+)=", page("operations.md"))) <= COMMANDS.keys() | NOT_COMMANDS


def test_the_table_of_phases_is_that_of_the_code() -> None:
    table = page("concepts.md").partition("## Phases of a revision\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([A-Z][A-Za-z]+) \|", table, re.MULTILINE) == [phase.value for phase in Phase]


# ---------------------------------------------------------------- metrics


def named(module: object) -> set[str]:
    """The metrics of a module, by its constants."""
    constants = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    return {value for value in constants if value.startswith("vectorindex_")}


@pytest.mark.parametrize("name", sorted(family.name for family in telemetry.Metrics().registry.collect()))
def test_a_metric_of_the_operator_is_described(name: str) -> None:
    assert re.search(rf"\b{name}(_total)?\b", page("operations.md"))


@pytest.mark.parametrize("name", sorted(named(metrics)))
def test_a_metric_of_the_searcher_is_described(name: str) -> None:
    assert re.search(rf"\b{name}(_total)?\b", page("searcher-api.md"))


@pytest.mark.parametrize("name", sorted(named(task_metrics)))
def test_a_metric_of_a_job_is_described(name: str) -> None:
    assert re.search(rf"\b{name}\b", page("building.md"))


# ---------------------------------------------------------------- data plane


@pytest.mark.parametrize("suffix", [suffix for one in FORMATS for suffix in one.suffixes])
def test_a_suffix_of_a_source_is_in_the_table(suffix: str) -> None:
    rows = [line for line in page("sources.md").splitlines() if line.startswith("|")]
    plain = suffix.removesuffix(".gz").removesuffix(".zst")
    assert any(f"`{plain}`" in row and (plain == suffix or f"`{suffix.removeprefix(plain)}`" in row) for row in rows)


def test_a_header_that_applications_read_is_kept_for_them() -> None:
    """Others never leave the parser."""
    reads: set[str] = set()
    for path in (CHECKOUT / "searcher" / "vectorindex_searcher" / "serve").rglob("*.py"):
        if path.name == "head_parser.py":
            continue
        module = importlib.import_module(".".join(path.relative_to(CHECKOUT / "searcher").with_suffix("").parts))
        found = re.findall(r"headers\.get\(([^,)]+)", path.read_text(encoding="utf-8"))
        reads |= {eval(name, dict(vars(module))) for name in found}
    assert reads == READ_HEADERS


def test_the_limits_of_the_client_are_those_of_the_server() -> None:
    assert calls.MAX_VECTORS == limits.MAX_VECTORS
    assert calls.MAX_TEXTS == limits.MAX_TEXTS
    assert attempts.MAX_DEADLINE_MS == limits.MAX_DEADLINE_MS
    assert limits.LOOP_BYTES >= calls.MAX_TEXT_BYTES + 16_384
    assert limits.Limits().body_bytes >= calls.MAX_BODY_BYTES
    assert limits.Limits().header_bytes >= calls.MAX_QUERY_STRING


THE_CLIENTS_OWN = {"vector", "vectors", "text", "texts", "dimension"}
"""What the client makes of the queries that it gets."""
NOT_THE_CLIENTS = {"embedding"}
"""What only other programs send."""


def test_a_field_of_a_search_request_is_one_of_the_client_and_the_other_way_round() -> None:
    names = set(fields.search_fields(fresh=True)) - THE_CLIENTS_OWN - NOT_THE_CLIENTS
    snake = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name) for name in names}
    ours = {"include_metadata" if name == "include" else name for name in snake}
    assert ours == {field.name for field in dataclasses.fields(calls.Fields)}


@pytest.mark.parametrize("name", fields.search_fields())
def test_a_field_of_a_search_request_is_described(name: str) -> None:
    table = page("searcher-api.md").partition("## POST /v1/search\n")[2].partition("\n## ")[0]
    assert re.search(rf"^\| `{name}` \|", table, re.MULTILINE)
    assert fields.search_fields()[name].text


def test_the_page_tells_the_limits_of_a_request() -> None:
    text = page("searcher-api.md")
    for told in (
        f"`vectors` | instead of `vector`: 1 to {limits.MAX_VECTORS} queries",
        f"`texts` | instead of `text`: 1 to {limits.MAX_TEXTS} queries",
        f"`k` | hits wanted, 1 to {limits.MAX_K}, default {fields.DEFAULT_K}",
        f"at most {limits.CANDIDATES:,} candidates",
        f"at most {limits.ANSWER_BYTES >> 20} MiB of ids, scores and metadata",
        f"other searches hold {limits.WORK_BYTES >> 20} MiB",
    ):
        assert told in text, told


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 8, 32, limits.MOST_THREADS])
@pytest.mark.parametrize("artifact", [0, 100 << 20, 20 << 30])
def test_a_searcher_stays_within_the_memory_that_the_operator_gives_it(artifact: int, threads: int, tls: bool) -> None:
    """What a process has at its start is measured by test_searcher_serve_hostile.py: some 150 MiB."""
    request, limit = sizing.Need(artifact).memory()
    assert artifact + limits.growth_bytes(threads, tls=tls) + (150 << 20) <= limit << 20
    assert sizing.Need(artifact, busy=False).memory() == (request, 2 * request), "as revisions of before have it"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("processes", [2, 3, 4, 8, 16, MOST_PROCESSES])
@pytest.mark.parametrize("artifact", [0, 100 << 20, 20 << 30])
def test_several_search_processes_stay_within_the_memory_that_the_operator_gives_them(
    artifact: int, processes: int, tls: bool
) -> None:
    """At its start each of them, and the front process, has less than 24 MiB of its own: see
    test_searcher_serve_workers.py."""
    need = sizing.Need(artifact)
    least, limit = need.memory(processes)
    of_their_own = (150 << 20) + (processes + 1) * (24 << 20)
    most = artifact + limits.growth_bytes(processes, tls=tls, processes=processes) + of_their_own
    assert most <= limit << 20
    assert artifact + of_their_own <= least << 20
    # And so many are made where the limit is the user's own.
    enough = artifact + sizing.BUSY_BYTES + (processes - 1) * sizing.BUSY_WORKER_BYTES
    assert [need.fitting(enough), need.fitting(enough - 1)] == [processes, processes - 1]
    assert most <= enough


def test_what_processes_keep_of_queries_has_room_in_the_memory_that_they_get_for_it() -> None:
    """A sample of live recall, of vectors of 4,096 numbers, and once more on its way to the judge."""
    assert 2 * live_sample.CAPACITY * (4 * 4096 + 8 * live_sample.DEPTH + 1024) <= sizing.WORKER_SAMPLE_BYTES
    assert max(live_room(d) * LIVE_QUERY_BYTES for d in (1, 64, 384)) == sizing.WORKER_QUERIES_BYTES


def test_what_the_limits_of_a_searcher_add_up_to_counts_all_of_them() -> None:
    """A limit in bytes that is counted nowhere is memory that the pod does not have."""
    within_others = {"ANSWER_BYTES", "CANDIDATE_BYTES", "LOOP_BYTES", "FEEDBACK_BYTES"}
    of_a_connection = {"SEND_BYTES", "RECEIVE_BYTES", "UNCOUNTED_BYTES"}
    names = {name for name in vars(limits) if name.endswith("_BYTES")} - within_others - of_a_connection
    added_up = inspect.getsource(limits.heap_bytes) + inspect.getsource(limits.growth_bytes)
    assert {name for name in names if name not in added_up} == set()
    assert 2 * sum(getattr(limits, name) for name in of_a_connection) == limits.CONNECTION_BYTES


def test_caches_of_a_searcher_are_as_large_as_they_are_counted() -> None:
    assert limits.ROWS_BYTES == subset.SETS_BYTES
