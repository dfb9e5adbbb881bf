"""Argo CD, the operator and indexes on a real cluster: who writes while nothing happens, and while a guardrail takes
a revision back?

    hack/local-cluster/cluster network .venv/bin/python bench/gitops_rest.py [--minutes 60] [--only rest] [--write]

At rest: the chart and two indexes in Git, one of which is asked all the time. Every change of every object in their
namespaces is seen by watches; what changes nothing, the operator and Argo CD count themselves. Rest ends with the first
write but Leases, and where an Application is not Synced and Healthy. `--only rollback`: half-spoiled data in Git, which
the operator takes back, and what self-heal writes meanwhile; a few minutes.

Others may use the cluster: all this has namespaces and an operator of its own. It needs `make images` and the local
cluster, in whose network it has to run, since Argo CD listens on every address. What it saw until now is in
build/bench/gitops-*.json, each minute anew; `--write` puts page and figures of those into bench/results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "hack"), str(CHECKOUT / "tests")]

import results  # noqa: E402
from e2e.vectors import Corpus, bodies  # noqa: E402
from e2e.workspace import SMALL, merged  # noqa: E402
from gitops import argocd  # noqa: E402
from gitops_cluster import site as sites  # noqa: E402
from gitops_cluster.rollback import RolledBack, roll_back  # noqa: E402
from gitops_cluster.site import Index, Site  # noqa: E402
from gitops_cluster.writes import APPLICATIONS, Change, Recorder  # noqa: E402
from layers import local_layout  # noqa: E402

from harness import images  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from harness.local import LocalCluster  # noqa: E402
from harness.traffic import Snapshot, Traffic  # noqa: E402
from harness.waiting import wait_for  # noqa: E402

FOUND = CHECKOUT / "build" / "bench"
PARTS = ("rest", "rollback")
ASKED, QUIET = "asked", "quiet"
RATE = 8.0
"""Queries a second to the index that is asked: users at night."""
ROLLBACK_RATE = 100.0
SETTLED_SECONDS, SETTLE_MOST = 60.0, 300.0
LOOK_SECONDS = 60.0
WATCHED_SECONDS = 180.0
"""After a rollback: Argo CD's own looks are two to three minutes apart."""
GOOD = "Synced/Healthy"
SHOWN = 40


@dataclass(slots=True)
class Rest:
    """What was seen between `began` and `ended` (Unix seconds). `disturbed`: minute and what, the first one first."""

    began: float
    ended: float
    disturbed: list[tuple[float, str]] = field(default_factory=list)
    watches: int = 0
    changes: int = 0
    by_design: int = 0
    """Leases, and Events whose hour is over."""
    own_writes: int = 0
    """Argo CD's to its own Applications: it notes there when it has looked."""
    operator_writes: int = 0
    argo_cd_runs: int = 0
    """Of kubectl by its controller, and syncs."""
    queries: int = 0
    failed: int = 0
    where: str = ""

    @property
    def minutes(self) -> float:
        return (self.ended - self.began) / 60

    @property
    def minutes_at_rest(self) -> float:
        """Until the first disturbance."""
        return min((at for at, _ in self.disturbed), default=self.minutes)


def disturbances(changes: Sequence[Change], applications: Sequence[Change], began: float) -> list[tuple[float, str]]:
    """Every write but Leases, and every moment in which an Application was not Synced and Healthy; minutes from
    `began`."""
    found = [(one.at, str(one)) for one in changes if not one.by_design]
    found += [(one.at, f"{one.name} is {one.says}") for one in applications if one.says != GOOD]
    return sorted(((at - began) / 60, what) for at, what in found if at >= began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of rest")
    parser.add_argument("--only", choices=PARTS, help="one part; the page keeps what is known of the other")
    parser.add_argument("--write", action="store_true", help="replace bench/results/gitops.md and its figures")
    options = parser.parse_args()
    if local_layout().NODE_LINK not in argocd.networks():
        sys.exit("Argo CD would listen on every address: hack/local-cluster/cluster network " + " ".join(sys.argv))
    parts: dict[str, Callable[[Site], Any]] = {
        "rest": lambda site: at_rest(site, options.minutes, lambda rest: save("rest", asdict(rest))),
        "rollback": taken_back,
    }
    cluster = LocalCluster()
    built = images.build(cluster)
    for part in [options.only] if options.only else PARTS:
        with (
            tempfile.TemporaryDirectory(prefix="gitops-") as folder,
            sites.opened(cluster, built, Path(folder), f"gitops-{part}-{secrets.token_hex(2)}") as site,
        ):
            save(part, asdict(parts[part](site)))
    if options.write:
        write()
    return 0


def save(part: str, document: dict[str, Any]) -> None:
    FOUND.mkdir(parents=True, exist_ok=True)
    (FOUND / f"gitops-{part}.json").write_text(json.dumps(document, indent=1) + "\n")


def write() -> None:
    """Page and figures of what is known."""
    known = {part: FOUND / f"gitops-{part}.json" for part in PARTS}
    found = {part: json.loads(file.read_text()) for part, file in known.items() if file.exists()}
    rest = Rest(**found["rest"]) if "rest" in found else None
    results.write_page("gitops", page(rest, found.get("rollback")))
    figures = {"gitops.synced_rest_minutes": rest.minutes_at_rest} if rest else {}
    if "rollback" in found:
        figures["gitops.selfheal_writes"] = found["rollback"]["selfheal_writes"]
    results.add_to_summary(figures)


# ---------------------------------------------------------------- rest


@dataclass(slots=True)
class Looks:
    """What is compared with what was there when the rest began (`began`, Unix seconds)."""

    site: Site
    traffic: Traffic
    recorder: Recorder
    own: Recorder
    began: float = field(init=False)
    _sent: Snapshot = field(init=False)
    _operator: tuple[int, int] = field(init=False)
    _argo_cd: Counter[str] = field(init=False)
    _grown: list[tuple[float, str]] = field(default_factory=list)

    def begin(self) -> None:
        self._sent, writes = self.traffic.snapshot(), self.site.operator_writes()
        self._operator, self._argo_cd = (writes, writes), self.site.argo.applied()
        self.began = time.time()

    def settle(self) -> bool:
        """Begin anew with each write until none came for a while, which counts as rest; False: it never was so."""
        until = time.time() + SETTLE_MOST
        self.begin()
        while (now := time.time()) < until:
            if self.recorder.last() >= self.began:
                self.begin()
            elif now - self.began >= SETTLED_SECONDS:
                return True
            time.sleep(1)
        return False

    def look(self) -> Rest:
        """What was seen until now. A count that grew is a write, also where nothing came of it."""
        now, seen = time.time(), self.traffic.snapshot()
        with contextlib.suppress(HarnessError, ValueError):  # an API server or a pod that begins anew
            self._operator = self._operator[0], self.site.operator_writes()
        changes = [one for one in list(self.recorder.changes) if one.at >= self.began]
        applications = [one for one in list(self.own.changes) if one.at >= self.began]
        rest = Rest(
            self.began,
            now,
            watches=self.recorder.watches,
            changes=sum(not one.by_design for one in changes),
            by_design=sum(one.by_design for one in changes),
            own_writes=len(applications),
            operator_writes=self._operator[1] - self._operator[0],
            argo_cd_runs=(self.site.argo.applied() - self._argo_cd).total(),
            queries=seen.queries - self._sent.queries,
            failed=seen.failed - self._sent.failed,
            where=f"{results.stamp()}. {results.machine()}",
        )
        for who, count in (("the operator", rest.operator_writes), ("Argo CD", rest.argo_cd_runs)):
            if count and not any(what.startswith(who) for _, what in self._grown):
                self._grown.append((rest.minutes, f"{who} has counted {count} by now"))
        rest.disturbed = sorted([*disturbances(changes, applications, self.began), *self._grown])[:SHOWN]
        return rest


def at_rest(site: Site, minutes: float, tell: Callable[[Rest], None]) -> Rest:
    """Two indexes, and nobody who changes anything; `tell` hears each minute."""
    corpus, api = Corpus.make(), site.argo.plane.api
    asked, quiet = site.index(ASKED), site.index(QUIET)
    for index in (asked, quiet):
        begin(index, corpus)
    for index in (asked, quiet):
        print(f"{index.name}: {index.becomes('Healthy')}", flush=True)
    with (
        asked.space.asked(bodies(corpus.queries()), RATE, max_seconds=60 * minutes + 1200) as traffic,
        Recorder(api, (site.space.namespace, site.operator.namespace)) as recorder,
        Recorder(api, (site.argo.home,), frozenset({APPLICATIONS})) as own,
    ):
        asked.handle.wait(lambda: _judged(asked), SETTLE_MOST, "the first verdict about its answers")
        for index in (asked, quiet):
            remove_jobs(index)
        looks = Looks(site, traffic, recorder, own)
        if not looks.settle():
            print("it did not settle: what comes of that counts", file=sys.stderr)
        print(f"counting for {minutes:g} minutes", flush=True)
        while (left := looks.began + 60 * minutes - time.time()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            tell(rest := looks.look())
            print(
                f"{rest.minutes:5.1f} min, at rest for {rest.minutes_at_rest:.1f}: {rest.changes} changes, "
                f"{rest.operator_writes} writes, {rest.argo_cd_runs} runs, {rest.failed} of {rest.queries} failed",
                flush=True,
            )
        recorder.stop()
        return looks.look()


def remove_jobs(index: Index) -> None:
    """Those that have ended, which the cluster removes an hour later: rest is what is there from then on."""
    for job in index.handle.jobs():
        index.space.kube.delete("Job", job["metadata"]["name"], index.space.namespace)
    index.handle.wait(lambda: not index.handle.jobs(), 60, "its Jobs to go")


def _judged(index: Index) -> bool:
    """Its rule has passed once: that is written, and nothing more as long as it passes."""
    rollout = index.handle.revision(index.handle.traffic()).get("rollout", {})
    return any(row["verdict"] == "Pass" for row in rollout.get("verdicts", ()))


def begin(index: Index, corpus: Corpus) -> None:
    """The smallest manifest, for a small machine."""
    index.space.put(index.name, corpus)
    fits = {"searcher": {"replicas": 1, "resources": SMALL}, "build": {"resources": SMALL}}
    index.commit(merged(index.space.smallest(index.name), {"spec": fits}))
    index.deploy()


# ---------------------------------------------------------------- a revision that is taken back


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Of RolledBack what the page says. `by`: who changed what, and how often, from the sync on."""

    message: str
    syncs: int
    selfheal_writes: int
    seconds: float
    by: dict[str, int]
    queries: int
    failed: int
    where: str


def taken_back(site: Site) -> TakenBack:
    """Half of the data spoiled, under live queries."""
    corpus, index = Corpus.make(), site.index("products")
    index.space.put("good", corpus)
    index.commit(index.space.manifest("good"))
    index.deploy()
    index.becomes("Healthy")
    wait_for(index.reached, 30, "kube-proxy to know of it")
    with index.space.traffic(corpus, ROLLBACK_RATE) as traffic:
        story = roll_back(index, corpus, "bad", WATCHED_SECONDS)
        seen = traffic.snapshot()
    return TakenBack(
        story.message,
        story.syncs,
        story.selfheal_writes,
        story.seconds,
        writers_of(story),
        seen.queries,
        seen.failed,
        f"{results.stamp()}. {results.machine()}",
    )


def writers_of(story: RolledBack) -> dict[str, int]:
    """Field manager and kind -> changes, the most first; those of a deletion have no manager."""
    count = Counter(f"{', '.join(one.by) or 'deleted'}: {one.kind}" for one in story.changes)
    return dict(count.most_common())


# ---------------------------------------------------------------- the page


def page(rest: Rest | None, rollback: dict[str, Any] | None) -> str:
    parts = ["# Argo CD, the operator and indexes on a real cluster", "`make gitops-rest`: see bench/gitops_rest.py."]
    if rest is not None:
        parts += ["## At rest", rest.where, results.table(["figure", "value"], rest_rows(rest))]
        parts.append(
            "Watched are both namespaces, every kind that they have. One index of two is asked all the time. Jobs that "
            "had ended, which the cluster removes an hour later, were removed before."
        )
        if rest.disturbed:
            rows = [(f"{at:.1f}", what) for at, what in rest.disturbed]
            parts += [
                f"What ended it, and what came after (the first {SHOWN}):",
                results.table(["minute", "what"], rows),
            ]
    if rollback is not None:
        parts += ["## A revision that a guardrail takes back", rollback["where"]]
        parts.append(f"Argo CD then shows Degraded: *{' '.join(rollback['message'].split())}*")
        rows = [
            ("writes of Argo CD after the sync that brought the revision", rollback["selfheal_writes"]),
            ("further syncs", rollback["syncs"]),
            ("seconds that were counted", float(round(rollback["seconds"]))),
            ("queries meanwhile, failed ones", f"{rollback['queries']}, {rollback['failed']}"),
        ]
        parts += [results.table(["figure", "value"], rows), "Who did write from then on:"]
        parts.append(results.table(["field manager: resource", "changes"], list(rollback["by"].items())))
    return "\n\n".join(parts)


def rest_rows(rest: Rest) -> list[tuple[str, object]]:
    return [
        ("minutes watched", f"{rest.minutes:.1f}"),
        ("minutes Synced and Healthy without a write", f"{rest.minutes_at_rest:.1f}"),
        (f"changes of objects, by anybody ({rest.watches} watches)", rest.changes),
        ("writes of the operator, by its own count", rest.operator_writes),
        ("runs of kubectl and syncs by Argo CD, by its own count", rest.argo_cd_runs),
        ("renewals of the operator's Lease, and Events whose hour is over, not counted above", rest.by_design),
        ("notes of Argo CD on its own Applications, not counted above", rest.own_writes),
        ("queries, failed ones", f"{rest.queries}, {rest.failed}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
