"""Rollouts and rollbacks under live traffic on a real cluster, with faults: does a query fail, is each end right?

    python bench/rollouts.py [--indexes 1] [--shards 0] [--cycles 10] [--rate 250] [--faults 20] [--seed 1]
                             [--minutes 60] [--write]

A cycle rolls out a bad revision (half of the data spoiled), which a guardrail rolls back, and then a good one, which
is promoted: two rollouts and a rollback, about 2.5 minutes on two cores, on each of the indexes at once. The queries
never stop; `--rate` is that of all indexes together. `--faults N`: every N seconds or so a fault happens
(rollout_faults.py). `--shards N`: each index in so many, behind two routers (`make shards-chaos`). `--minutes`: no
rollout begins later. A query is sent again as the Python client does it (docs/client.md); failed is one that has no
answer then.

Prints a line for each rollout and, at the end, one line of JSON; `--write` puts page and figures into bench/results.
CLUSTER= chooses the cluster as for `make test`; a release that is there is upgraded.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

import results  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402
from e2e.operator_release import Operator  # noqa: E402
from e2e.vectors import Corpus, bodies  # noqa: E402
from e2e.workspace import SMALL, Workspace, merged  # noqa: E402
from rollout_faults import NOT_DONE, Fault, Faults, PatientKube  # noqa: E402

from harness import cluster, images, release, s3, traffic  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from harness.kube import Json  # noqa: E402
from harness.traffic import Snapshot, Traffic  # noqa: E402
from harness.vix import ENDED, unix  # noqa: E402

CLIENT_RETRIES = 3
"""The Python client's default."""
ROLLOUT_SECONDS = 900
STORE_SECONDS = 90
SHOWN_FAILURES = 40
CLOSE_SECONDS = 15
"""Before a failed query: a fault that ended longer ago did not cause it."""
QUICK: Json = {
    "build": {"retries": 3},
    "searcher": {"replicas": 2, "resources": {"requests": {"cpu": "20m"}}},  # thirty fit on two cores
}


@dataclass(frozen=True, slots=True)
class Options:
    indexes: int
    cycles: int
    rate: float
    every: float
    seed: int
    minutes: float
    shards: int = 0
    """0: not in shards."""

    @property
    def spec(self) -> Json:
        """Of each index."""
        in_shards = {
            "index": {"shards": self.shards},
            "build": {"parallelism": 2},
            "searcher": {"routerResources": SMALL},
        }
        return merged(QUICK, in_shards) if self.shards else QUICK

    @property
    def name(self) -> str:
        """Of the page, and of the figures."""
        return "rollouts_shards" if self.shards else "rollouts"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One revision from apply to its end. Seconds; those of the way back are None where they could not be seen."""

    namespace: str
    cycle: int
    revision: str
    wanted: str
    ended: str
    seconds: float
    rule: str = ""
    first_bad_to_trip_s: float | None = None
    trip_to_switch_s: float | None = None
    trip_to_last_bad_answer_s: float | None = None
    said: str = ""

    @property
    def right(self) -> bool:
        return self.ended == self.wanted


@dataclass(slots=True)
class Result:
    """All that was seen. Added to from several threads."""

    rollouts: list[Rollout] = field(default_factory=list)
    traffic: dict[str, Snapshot] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def wrong(self) -> list[Rollout]:
        return [one for one in self.rollouts if not one.right]

    def sum(self, name: str) -> int:
        return sum(getattr(seen, name) for seen in self.traffic.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--indexes", type=int, default=1)
    parser.add_argument("--shards", type=int, default=0, help="of each index; 0: not in shards")
    parser.add_argument("--cycles", type=int, default=10, help="of each index")
    parser.add_argument("--rate", type=float, default=250.0, help="queries per second, all indexes together")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SECONDS", help="between two; 0: none")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--minutes", type=float, default=60.0, help="after these no cycle begins")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--write", action="store_true", help="replace the page in bench/results and its figures")
    asked = parser.parse_args()
    options = Options(asked.indexes, asked.cycles, asked.rate, asked.faults, asked.seed, asked.minutes, asked.shards)
    result = measure(options)
    document = summary(result)
    if asked.json:
        asked.json.write_text(json.dumps(document) + "\n")
    if asked.write:
        results.write_page(options.name, page(options, result))
        results.add_to_summary(figures(document, "shards" if options.shards else "rollouts"))
    print(json.dumps(document))
    return int(bool(document["failed"] or document["wrong"]))


# ---------------------------------------------------------------- the run


def measure(options: Options) -> Result:
    """Every index in a thread of its own, and the faults in one."""
    chosen = cluster.choose()
    chosen.up()
    built = images.build(chosen)
    kube, store = PatientKube(chosen), s3.connect(chosen)
    operator = Operator(chosen, kube, release.install(chosen, built))
    result, until = Result(), time.monotonic() + 60 * options.minutes
    with ExitStack() as stack:
        spaces: list[Workspace] = []
        stack.callback(_clear, spaces)
        for number in range(options.indexes):
            name = f"bench-rollouts-{number}-{secrets.token_hex(2)}"
            spaces.append(Workspace.create(kube, store, built, name))
        with ThreadPoolExecutor(options.indexes) as pool:
            begun = threading.Barrier(options.indexes + 1)
            running = [pool.submit(one_index, space, options, until, begun.wait, result) for space in spaces]
            with _faults(operator, spaces, options, begun, result):
                for space, future in zip(spaces, running, strict=True):
                    if (broke := future.exception()) is not None:
                        result.rollouts.append(
                            Rollout(space.namespace, -1, "-", "-", "broke off", 0.0, said=repr(broke))
                        )
    return result


def _clear(spaces: list[Workspace]) -> None:
    """All at once: a searcher drains for most of a minute. What cannot be cleared is no reason to lose the result."""
    for space in spaces:
        space.retire()
    for space in spaces:
        try:
            space.remove()
        except HarnessError as error:
            print(f"{space.namespace} is left behind: {error}", file=sys.stderr)


@contextmanager
def _faults(
    operator: Operator, spaces: list[Workspace], options: Options, begun: threading.Barrier, result: Result
) -> Iterator[None]:
    """From the moment on when every index serves."""
    begun.wait(ROLLOUT_SECONDS)
    if not options.every:
        yield
        return
    faults = Faults(operator, spaces, options.seed, options.every, shards=bool(options.shards))
    faults.start()
    try:
        yield
    finally:
        faults.stop()
        result.faults = faults.done


def one_index(space: Workspace, options: Options, until: float, begun: Callable[[], Any], result: Result) -> None:
    """All cycles of one index, and its traffic."""
    corpus = Corpus.make()
    put(space, "good", corpus)
    space.apply("good", **options.spec)
    space.index.wait_condition("RolledOut", timeout=ROLLOUT_SECONDS)
    queries = bodies(corpus.queries())
    rate = options.rate / options.indexes
    with traffic.to_index(
        space.kube, space.images, space.index, queries, rate=rate, retries=CLIENT_RETRIES, max_seconds=10_000.0
    ) as running:
        running.wait(lambda seen: seen.queries >= rate, 60, "the first second of traffic")
        begun()
        for number in range(2 * options.cycles):
            if time.monotonic() >= until:
                break
            cycle, good = divmod(number, 2)
            data = corpus.moved(seed=2000 + cycle) if good else corpus.spoiled(0.5, seed=1000 + cycle)
            folder, wanted = (f"good-{cycle}", "Stable") if good else (f"bad-{cycle}", "RolledBack")
            made = roll_out(space, running, data, folder, cycle, wanted, options.spec)
            tell(result, made, running.snapshot())
        result.traffic[space.namespace] = running.stop()


def tell(result: Result, one: Rollout, seen: Snapshot) -> None:
    result.rollouts.append(one)
    result.traffic[one.namespace] = seen
    print(
        f"{one.namespace}  cycle {one.cycle + 1:2}  {one.revision}  {one.ended:<12} {one.seconds:6.1f} s  "
        f"{seen.queries} queries, {seen.failed} failed, {seen.answered_again} answered again"
        + ("" if one.right else f"\n  NOT {one.wanted}: {one.said}"),
        flush=True,
    )


def roll_out(
    space: Workspace, running: Traffic, data: Corpus, folder: str, cycle: int, wanted: str, spec: Json = QUICK
) -> Rollout:
    """One revision from apply to its end, of which a failed wait is one too."""
    index, began, revision = space.index, time.monotonic(), "none"
    try:
        prior, known = index.traffic(), set(index.revisions())
        put(space, folder, data)
        space.apply(folder, **spec)
        revision = index.wait_new_revision(known, ROLLOUT_SECONDS)
        ended = index.wait(lambda: _ended(space, revision), ROLLOUT_SECONDS, f"{revision} to end")
    except HarnessError as error:
        return Rollout(space.namespace, cycle, revision, wanted, "no end", time.monotonic() - began, said=str(error))
    made = Rollout(space.namespace, cycle, revision, wanted, ended, round(time.monotonic() - began, 1))
    if not made.right:
        return _but(made, said=f"{index.revision(revision).get('message', '')}\n{index.explain()}")
    return _way_back(space, running, made, prior) if wanted == "RolledBack" else made


def _ended(space: Workspace, revision: str) -> str | None:
    phase = str(space.index.revision(revision).get("phase", ""))
    return phase if phase in ENDED else None


def _way_back(space: Workspace, running: Traffic, made: Rollout, prior: str) -> Rollout:
    """How long it took. Switch: the first answer of the revision that it went back to, by the client's clock."""
    bad, index = made.revision, space.index

    def silent(seen: Snapshot) -> bool:
        return bad not in seen.revisions or seen.at - seen.revisions[bad].last_at > 5

    try:
        seen = running.wait(silent, 120, f"no more answers of {bad}")
    except HarnessError as error:
        return _but(made, ended="still answered", said=str(error))
    decision = index.decision()
    if decision is None or (decision.from_revision, decision.to_revision) != (bad, prior):
        return _but(made, ended="another decision", said=f"{decision}")
    # An operator that was killed while it moved the traffic has not recorded the trip, but when it decided.
    tripped = (index.revision(bad).get("rollout") or {}).get("trip")
    trip = unix(tripped["at"]) if tripped else decision.at
    if bad not in seen.revisions or prior not in seen.revisions:
        return _but(made, rule=decision.rule)
    back = seen.revisions[prior].first_after(decision.at)
    return _but(
        made,
        rule=decision.rule,
        first_bad_to_trip_s=round(trip - seen.revisions[bad].first_at, 3),
        trip_to_switch_s=None if back is None else round(back - trip, 3),
        trip_to_last_bad_answer_s=round(max(0.0, seen.revisions[bad].last_at - trip), 3),
    )


def _but(one: Rollout, **changes: Any) -> Rollout:
    return Rollout(**(asdict(one) | changes))


def put(space: Workspace, folder: str, data: Corpus) -> None:
    """Writes the data; a store that is stopped on purpose is asked again."""
    deadline = time.monotonic() + STORE_SECONDS
    while True:
        try:
            space.put(folder, data)
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(1)


# ---------------------------------------------------------------- what is said of it

FIGURES = ("first_bad_to_trip_s", "trip_to_switch_s", "trip_to_last_bad_answer_s")


def summary(result: Result) -> dict[str, Any]:
    """As it is printed."""
    times: dict[str, Any] = {}
    for name in FIGURES:
        values = [value for one in result.rollouts if (value := getattr(one, name)) is not None]
        times[name] = {"median": round(statistics.median(values), 3), "max": max(values)} if values else None
    counted = ("queries", "failed", "sent_again", "answered_again")
    return {
        "rollouts": len(result.rollouts),
        "good": sum(one.wanted == "Stable" for one in result.rollouts),
        "wrong": len(result.wrong),
        "faults": dict(Counter(fault.kind for fault in result.faults)),
        **{name: result.sum(name) for name in counted},
        "p95_ms": round(max((seen.p95_ms for seen in result.traffic.values()), default=0.0), 2),
        **times,
        "each": [asdict(one) for one in result.rollouts],
        "each_fault": [asdict(fault) for fault in result.faults],
        "failures": {name: list(seen.failures) for name, seen in result.traffic.items()},
    }


def figures(document: dict[str, Any], name: str = "rollouts") -> dict[str, float]:
    """The keys of summary.json. `name`: what they begin with."""
    plain = {"count" if name == "rollouts" else "rollouts": "rollouts", "wrong": "wrong"} | {
        key: key for key in ("queries", "failed", "sent_again", "answered_again")
    }
    times = {key: document[key]["median"] for key in FIGURES if document[key]}
    return (
        {f"{name}.{key}": float(document[kept]) for key, kept in plain.items()}
        | {f"{name}.faults": float(sum(n for kind, n in document["faults"].items() if not kind.endswith(NOT_DONE)))}
        | {f"{name}.{key}": float(value) for key, value in times.items()}
    )


def page(options: Options, result: Result) -> str:
    """bench/results/rollouts.md."""
    wanted, found = 2 * options.cycles * options.indexes, summary(result)
    count, good = found["rollouts"], found["good"]
    command = (
        f"python bench/rollouts.py --indexes {options.indexes} {f'--shards {options.shards} ' * bool(options.shards)}"
        f"--cycles {options.cycles} --rate {options.rate:g} "
        f"--faults {options.every:g} --seed {options.seed} --minutes {options.minutes:g} --write"
    )
    short = f" The time was over before the other {wanted - count}." * (count < wanted)
    rows = [
        (one, *(f"{found[name]['median']:.2f}", f"{found[name]['max']:.2f}"))
        for one, name in zip(
            ("first bad answer to trip", "trip to switch", "trip to last bad answer"), FIGURES, strict=True
        )
        if found[name]
    ]
    kinds = Counter(fault.kind for fault in result.faults)
    return "\n\n".join(
        [
            "# Rollouts with faults: does a query fail, does each end as it must?",
            f"`{command}`, {results.stamp()}. {results.machine()}.",
            f"**{count} rollouts** ({good} of good data, {count - good} of bad) of {wanted}, "
            f"on {_made_of(options)} at once.{short} "
            f"**{found['wrong']} ended otherwise than they must** (good: Stable, bad: RolledBack by its guardrail). "
            f"**{found['failed']} of {found['queries']:,} queries failed**; {found['answered_again']} more were "
            f"answered at a further attempt, as the Python client makes them ([docs/client.md](../../docs/client.md): "
            f"{CLIENT_RETRIES} where no connection came about, one where it ended before the answer began).",
            "## The way back",
            results.table(["seconds", "median", "most"], rows) if rows else "No rollback was seen whole.",
            "## Faults",
            "Drawn from the seed, one after the other. A pod is killed, lost or evicted only while its revision has "
            "another ready one like it.",
            results.table(["fault", "times"], sorted(kinds.items())) if kinds else "None.",
            "## Queries that failed",
            _failures(result),
            "## Rollouts that ended otherwise",
            "\n".join(f"- {one.revision}: {one.ended}, not {one.wanted}: {_line(one.said)}" for one in result.wrong)
            or "None.",
        ]
    )


def _made_of(options: Options) -> str:
    indexes = "1 index" if options.indexes == 1 else f"{options.indexes} indexes"
    each = f"{options.shards} shards of 2 searchers, behind 2 routers," if options.shards else "2 searchers"
    return f"{indexes} of {each}"


def _failures(result: Result) -> str:
    """Each with the fault that was near, at most those that the load generator kept."""
    counted = Counter(
        (_line(f"{failure['kind']}: {failure['detail']}"), _near(result.faults, namespace, failure))
        for namespace, seen in result.traffic.items()
        for failure in seen.failures
    )
    shown = [(*what, count) for what, count in counted.most_common(SHOWN_FAILURES)]
    return results.table(["what", "the last fault before it", "queries"], shown) if shown else "None."


def _near(faults: list[Fault], namespace: str, failure: Mapping[str, Any]) -> str:
    """The last fault that concerned this index before a query failed; "none" when the last is long over."""
    for fault in reversed(faults):
        before = fault.at <= failure["at"] and failure["sent_at"] <= fault.until + CLOSE_SECONDS
        if fault.where in ("", namespace) and before:
            return fault.kind
    return "none"


def _line(text: str) -> str:
    return " ".join(text.split())[:300].replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
