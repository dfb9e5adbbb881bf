"""What does the operator cost the API server and its machine when nothing happens, and when many revisions soak?

    python bench/idle.py [--quick] [--rest-only] [--indexes 1000] [--namespaces 50] [--replicas 3] [--minutes 5]

A real etcd and kube-apiserver with an audit log, the real operator process with an account of its own, a fake kubelet
(idle_kubelet.py) and fake searchers (idle_pods.py, a process of its own). The operator takes every index to Stable by
itself. Then, each for some minutes: at rest; with some indexes soaking; then looks at two of these, with 8 and 32
segments, in a process of their own (idle_look.py); pods that begin to answer errors, one index after the other; and,
with all indexes made anew, the first day, in which a stable revision is watched.

An index at rest here has no guardrail rules, so that nobody watches it: a pass over it does the same as one after the
day for which an index with rules is watched. Sources are not polled (poll 0): these pods list none.
Requests are counted from the audit log: the Lease, beginning watches, and the relist apart from what looks read. CPU
and memory are those of the operator's process alone. Writes bench/results/idle.md and summary.json, unless --quick.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

import results  # noqa: E402
from control_plane import Json  # noqa: E402
from idle_audit import Tail, Use, at, counted, written  # noqa: E402
from idle_cluster import HOME, IMAGE, Cluster, Operator, cluster, make_namespace  # noqa: E402
from idle_kubelet import MERGE, wait_until  # noqa: E402
from idle_page import (  # noqa: E402
    AGES,
    AT_REST,
    FIRST_DAY,
    HOUR_ON,
    SEGMENTS,
    SOAKING,
    Found,
    Options,
    Phase,
    median,
    page,
)
from processes import Child  # noqa: E402

from vectorindex_operator.api.v1alpha1 import API_VERSION  # noqa: E402

RULES = (
    {"name": "errors", "metric": "ErrorRate", "max": "2%"},
    {"name": "p99", "metric": "LatencyP99", "max": "500ms"},
    {"name": "empty", "metric": "ZeroResultRate", "max": "5%"},
    {"name": "score", "metric": "TopScore", "min": 0.2},
)
MOST_RULES = 32
STABLE_SECONDS = 7200.0
SETTLE_SECONDS = 120.0
"""At most, before the first day is counted: the first verdict on a watched revision is written."""
QUIET_SECONDS = 40.0
"""Longer than a verdict waits to be written (core/safety/verdicts.py)."""
MOST_QUIET_SECONDS = 300.0
LOOK_GAP_SECONDS = 1.0
"""Requests of one look come together; the next look is seconds later."""


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


# ---------------------------------------------------------------- the indexes


def manifest(number: int, of: Options, prefix: str, **changes: Any) -> Json:
    """One VectorIndex."""
    spec = {
        "source": {"s3": {"bucket": "embeddings", "prefix": "docs/"}, "poll": "0"},
        "artifacts": {"s3": {"bucket": "indexes"}},
        "index": {"factory": "HNSW32"},
        "searcher": {"replicas": of.replicas},
        "guardrails": {"rules": []},
    }
    meta = {"name": f"{prefix}-{number}", "namespace": space(number % of.namespaces)}
    return {"apiVersion": API_VERSION, "kind": "VectorIndex", "metadata": meta, "spec": spec | changes}


def space(number: int) -> str:
    return f"team-{number}"


def soaking(number: int, of: Options, wide: int) -> Json:
    """The next revision of an index: it soaks for longer than the run takes. `wide`: segments of its queries."""
    names = [f"segment-{one}" for one in range(wide - 1)]  # with `other`
    rules = [*RULES, *({**RULES[0], "name": f"errors-{name}", "segment": name} for name in names)][:MOST_RULES]
    return manifest(
        number,
        of,
        "a",
        index={"factory": "HNSW16"},
        segments=[{"name": name} for name in names],
        guardrails={"rules": rules},
        rollout={"shadow": {"maxPerSecond": 0}, "soak": {"duration": "4h", "maxDuration": "6h"}},
    )


def phase_of(raw: Json) -> str:
    """Stable when everything is done; else its phase."""
    status = raw.get("status", {})
    if status.get("observedGeneration") != raw["metadata"]["generation"]:
        return "new"
    done = any(row["type"] == "RolledOut" and row["status"] == "True" for row in status.get("conditions", ()))
    return "Stable" if done else str(status.get("phase", ""))


def wait_for(made: Cluster, names: set[str], phase: str, operator: Operator) -> None:
    """Until every one of these indexes is there, with a word every ten seconds."""
    told = time.monotonic()

    def there() -> bool:
        nonlocal told
        phases = Counter(phase_of(raw) for (_, name), raw in list(made.kubelet.indexes.items()) if name in names)
        if time.monotonic() - told > 10.0:
            told = time.monotonic()
            say(f"  {dict(phases)}, operator {operator.usage().memory:.0f} MB")
        return phases[phase] == len(names)

    wait_until(there, lambda: f"not every index is {phase}\n{made.tail_of_log()}", STABLE_SECONDS)


def create(made: Cluster, operator: Operator, of: Options, prefix: str, **changes: Any) -> dict[str, float]:
    """From nothing until all are Stable."""
    manifests = [manifest(number, of, prefix, **changes) for number in range(of.indexes)]
    operator.tail.skip()
    before, began = operator.usage(), time.monotonic()
    made.apply(manifests)
    wait_for(made, {one["metadata"]["name"] for one in manifests}, "Stable", operator)
    seconds, after = time.monotonic() - began, operator.usage()
    quiet(operator)
    uses = counted(operator.tail.new())
    reads = sum(count for use, count in uses.items() if use.reads)
    told = {"seconds": seconds, "writes": uses[Use.WRITE] / of.indexes, "reads": reads / of.indexes}
    return told | {"cpu": (after.cpu - before.cpu) / of.indexes, "peak": after.peak}


def quiet(operator: Operator) -> None:
    """Until nothing was written for a while. What was asked meanwhile stays to be read."""
    tail = Tail(operator.tail.file, operator.tail.user)
    tail.skip()
    began = quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        time.sleep(1.0)
        if time.monotonic() - began > MOST_QUIET_SECONDS:
            say("  it writes on and on")
            return
        if counted(tail.new())[Use.WRITE]:
            quiet_since = time.monotonic()


# ---------------------------------------------------------------- what is measured


def measure(operator: Operator, name: str, seconds: float) -> Phase:
    """Counts between two moments."""
    say(f"{name}: counting for {seconds:.0f} s")
    durations = ("vectorindex_reconcile_duration_seconds_count", "vectorindex_reconcile_duration_seconds_sum")
    operator.tail.skip()
    before, passes, began = operator.usage(), [operator.metric(one) for one in durations], time.monotonic()
    time.sleep(seconds)
    after, took = operator.usage(), time.monotonic() - began
    events = list(operator.tail.new())
    count, total = (operator.metric(one) - was for one, was in zip(durations, passes, strict=True))
    phase = Phase(
        name, took, counted(events), written(events), after.cpu - before.cpu, after, count, total / max(1, count) * 1e3
    )
    say(f"  {dict(phase.uses)}, {phase.cpu / took:.1%} of a core, {after.memory:.0f} MB, writes {dict(phase.writes)}")
    return phase


def fail_and_switch(made: Cluster, operator: Operator, namespace: str, name: str) -> float:
    """Seconds from the start of the look that sees a revision's errors to the answer to the write that switches."""
    revision = made.kubelet.indexes[namespace, name]["status"]["candidate"]
    operator.tail.skip()
    made.tell_pods(json.dumps({"fail": revision}))

    def gone() -> bool:
        return revision not in made.kubelet.fronts[namespace, name]["spec"]["selector"].values()

    wait_until(gone, lambda: f"{revision} keeps the traffic\n{made.tail_of_log()}", 300, every=0.2)
    asked = made.tell_pods(json.dumps({"asked": revision}))["asked"]
    time.sleep(0.5)
    switched = min(
        at(event["stageTimestamp"])
        for event in operator.tail.new()
        if event["verb"] == "patch"
        and (event["objectRef"]["resource"], event["objectRef"]["name"]) == ("services", name)
    )
    return switched - look_begun([one for one in asked if one < switched])


def look_begun(asked: list[float]) -> float:
    """When the last look began whose requests came at these times."""
    began = asked[-1]
    for one in reversed(asked):
        if began - one > LOOK_GAP_SECONDS:
            break
        began = one
    return began


def looks(made: Cluster, found: Found, of: Options) -> None:
    """Both indexes in turns, as old as their soaks are, and older: pods keep an hour."""
    kubeconfig = str(next(made.plane.folder.glob(f"{HOME}-*.json")))
    for age, seconds in AGES.items():
        sides = {}
        for number, wide in enumerate(SEGMENTS):
            one = soaking(number, of, wide)["metadata"]
            if seconds:
                _age(made, one["namespace"], one["name"], "candidate", seconds, "rollout", "switchedAt")
            script = str(Path(__file__).with_name("idle_look.py"))
            sides[wide] = Child(script, kubeconfig, one["namespace"], one["name"], IMAGE, core=None)
        try:
            for wide, side in sides.items():
                found.first_looks[wide, age] = side.ask("1")[0]
                side.ask("2")
            for _ in range(max(1, of.looks // 5)):
                for wide, side in sides.items():
                    found.looks.setdefault((wide, age), []).extend(side.ask(str(min(5, of.looks))))
        finally:
            for side in sides.values():
                side.close()
        say(f"  looks, {age}: { {wide: round(median(found, wide, age, 0), 1) for wide in SEGMENTS} } ms of CPU")


def _age(made: Cluster, namespace: str, name: str, whose: str, seconds: float, *path: str) -> None:
    """Set back a time in the status of a revision: the one thing here that no part of the system says itself."""
    revision = made.kubelet.indexes[namespace, name]["status"][whose]
    status: Any = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))
    for field_name in reversed(path):
        status = {field_name: status}
    url = f"/apis/{API_VERSION}/namespaces/{namespace}/vectorindexrevisions/{revision}/status"
    answer = made.api.request("PATCH", url, {"status": status}, MERGE)
    if not answer.ok:
        raise SystemExit(f"{url}: {answer.message}")


def run(made: Cluster, of: Options, found: Found) -> None:
    """All phases."""
    for number in range(of.namespaces):
        make_namespace(made.api, space(number))
    with made.operator() as operator:
        say(f"creating {of.indexes} indexes in {of.namespaces} namespaces, {of.replicas} pods each")
        found.created = create(made, operator, of, "a")
        say(f"  {found.created}")
        found.phases.append(measure(operator, AT_REST, of.minutes * 60))
        if of.rest_only:
            return
        wide = [*SEGMENTS, *[of.segments] * of.indexes]
        chosen = [soaking(number, of, wide[number]) for number in range(of.soaks + of.fails)]
        made.apply(chosen)
        wait_for(made, {one["metadata"]["name"] for one in chosen}, "Soaking", operator)
        quiet(operator)
        found.phases.append(measure(operator, f"{SOAKING} ({len(chosen)})", of.minutes * 60))
        say(f"{of.fails} times: pods of a revision that soaks begin to answer errors")
        for one in chosen[of.soaks :]:
            meta = one["metadata"]
            found.switches.append(fail_and_switch(made, operator, meta["namespace"], meta["name"]))
            say(f"  switched {found.switches[-1]:.3f} s after the look began")
    looks(made, found, of)
    say("all indexes are removed, and made anew with guardrail rules")
    made.remove_indexes([space(number) for number in range(of.namespaces)])
    with made.operator() as operator:
        create(made, operator, of, "b", guardrails={"rules": list(RULES[:1])})
        time.sleep(min(SETTLE_SECONDS, of.minutes * 60))
        found.phases.append(measure(operator, FIRST_DAY, of.minutes * 60))
        _an_hour_on(made, operator, of, found)


def _an_hour_on(made: Cluster, operator: Operator, of: Options, found: Found) -> None:
    """No goal stands on it, so an operator that does not bear it ends nothing but this phase."""
    for namespace, name in list(made.kubelet.indexes):
        _age(made, namespace, name, "stable", 3600, "promotedAt")
    time.sleep(min(SETTLE_SECONDS, of.minutes * 60))
    try:
        found.phases.append(measure(operator, HOUR_ON, of.minutes * 60))
    except (SystemExit, OSError) as error:
        found.notes.append(f"{HOUR_ON}: not measured, {error}; {made.tail_of_log()[-300:]}")


# ---------------------------------------------------------------- the program


def options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 indexes, short phases; writes no results")
    parser.add_argument("--indexes", type=int)
    parser.add_argument("--namespaces", type=int)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="of each phase in which requests are counted")
    parser.add_argument("--soaks", type=int, help="indexes that soak meanwhile")
    parser.add_argument(
        "--segments", type=int, default=1, help="of the queries of those, besides one with 8 and one with 32"
    )
    parser.add_argument("--fails", type=int, help="how often pods begin to answer errors")
    parser.add_argument("--relist-seconds", type=int)
    parser.add_argument("--rest-only", action="store_true", help="end after the rest: writes its figures, 13 minutes")
    parser.add_argument("--keep", action="store_true", help="leave audit log and the logs of all processes behind")
    given = parser.parse_args()
    usual = (20, 4, 0.75, 3, 2, 3, 20) if given.quick else (1000, 50, 5.0, 50, 20, 20, 120)
    names = ("indexes", "namespaces", "minutes", "soaks", "fails", "looks", "relist_seconds")
    chosen = {name: getattr(given, name, None) or value for name, value in zip(names, usual, strict=True)}
    of = Options(
        replicas=given.replicas,
        segments=given.segments,
        quick=given.quick,
        keep=given.keep,
        rest_only=given.rest_only,
        **chosen,
    )
    if of.soaks < len(SEGMENTS) or of.soaks + of.fails > of.indexes:
        parser.error(f"--soaks is {of.soaks}: at least {len(SEGMENTS)}, and with --fails at most --indexes")
    return of


def main() -> int:
    of, found = options(), Found()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with cluster(of.relist_seconds, keep=of.keep) as made:
        if of.keep:
            say(f"logs are in {made.plane.folder}")
        try:
            run(made, of, found)
        except BaseException:
            sys.stdout.write(f"not all of it was measured:\n\n{page(found, of)}\n")
            raise
        found.failures += made.kubelet.failures
    text, figures = page(found, of), found.figures()
    sys.stdout.write(text + "\n")
    if found.failures:
        sys.exit(
            f"the fake kubelet met {len(found.failures)} refusals, so the figures mean nothing: {found.failures[0]}"
        )
    if not of.quick:
        results.write_page("idle_rest" if of.rest_only else "idle", text)
        results.add_to_summary({f"control.{name}": value for name, value in figures.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
