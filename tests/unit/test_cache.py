"""The read cache: nothing replaces what is newer, lists replace whole, a look costs no read and writes nothing."""

from __future__ import annotations

import gc
import itertools
import json
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vectorindex_operator.handlers import told
from vectorindex_operator.manifests import labels
from vectorindex_operator.reconcile import cache as caches
from vectorindex_operator.reconcile import pods
from vectorindex_operator.reconcile import relist as relists
from vectorindex_operator.reconcile.cache import CachedCluster, LiveCluster, NotCachedError, ReadCache, trimmed
from vectorindex_operator.reconcile.errors import UnreachableError
from vectorindex_operator.reconcile.relist import Relist

Json = dict[str, Any]
SELECTOR = labels.of_index("docs")


def made(kind: str, name: str, version: int, *, uid: str = "", index: str = "docs", namespace: str = "shop") -> Json:
    meta: Json = {"namespace": namespace, "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    if kind != "VectorIndex":
        meta["labels"] = {labels.INDEX: index, labels.MANAGED_BY: labels.OPERATOR}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": {"version": version}}


def filled(*objects: Json) -> ReadCache:
    cache = ReadCache()
    for raw in (made("VectorIndex", "docs", 1), *objects):
        assert cache.put(raw)
    return cache


def version_of(cache: ReadCache, kind: str, name: str) -> int | None:
    raw = cache.get(kind, "shop", name)
    return None if raw is None else int(raw["metadata"]["resourceVersion"])


def names(cache: ReadCache, kind: str) -> list[str]:
    return [raw["metadata"]["name"] for raw in cache.children(kind, "shop", SELECTOR)]


# ---------------------------------------------------------------- what comes in


def test_whatever_comes_in_or_goes_of_an_index_is_told_and_what_is_another_s_is_not() -> None:
    cache = filled(made("Pod", "one", 2), made("Pod", "two", 3))
    cache.put(made("VectorIndex", "other", 1))
    steps: dict[str, Any] = {
        "nothing new": lambda: cache.put(made("Pod", "one", 2)),
        "another's": lambda: cache.put(made("Pod", "theirs", 9, index="other")),
        "newer": lambda: cache.put(made("Pod", "one", 10)),
        "new": lambda: cache.put(made("Pod", "three", 11)),
        "gone, by a watch": lambda: cache.remove(made("Pod", "three", 12)),
        "gone, by a read": lambda: cache.forget("Pod", "shop", "two", cache.turn()),
        "gone, by a list of it": lambda: cache.replace("Pod", "shop", "docs", [], cache.turn()),
        "its own": lambda: cache.put(made("VectorIndex", "docs", 13)),
        "handed over": lambda: cache.put(made("Pod", "theirs", 14)),
        "handed back": lambda: cache.put(made("Pod", "theirs", 15, index="other")),
        "gone, by a list of all": lambda: cache.compare("VectorIndex", "", [], cache.turn()),
    }
    same = []
    for name, step in steps.items():
        before = cache.changed("shop", "docs")
        step()
        if cache.changed("shop", "docs") == before:
            same.append(name)
    assert same == ["nothing new", "another's"]
    assert cache.changed("shop", "docs") == 0, "it is not there any more"
    assert not cache._changed, "and nothing is kept of it"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_events_and_answers_come_the_newest_stays(order: tuple[int, ...]) -> None:
    cache = filled()
    told_of = [made("Job", "a", version) for version in (10, 20, 30, 40)]
    for number in order:
        cache.put(told_of[number])
    assert version_of(cache, "Job", "a") == 40


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_is_gone_stays_gone_whatever_comes_late(order: tuple[int, ...]) -> None:
    cache = filled(made("Job", "a", 10))
    steps = [
        lambda: cache.put(made("Job", "a", 20)),
        lambda: cache.put(made("Job", "a", 30)),
        lambda: cache.remove(made("Job", "a", 40)),
    ]
    for number in order:
        steps[number]()
    assert version_of(cache, "Job", "a") is None


def test_an_object_made_again_under_its_name_is_another() -> None:
    cache = filled(made("Job", "a", 10, uid="first"))
    cache.remove(made("Job", "a", 20, uid="first"))
    assert cache.put(made("Job", "a", 30, uid="second"))
    cache.remove(made("Job", "a", 20, uid="first"))  # told twice
    assert version_of(cache, "Job", "a") == 30


@pytest.mark.parametrize("late", ["MODIFIED", "DELETED"])
def test_what_is_told_late_of_an_earlier_object_of_the_name_changes_nothing(late: str) -> None:
    """Versions are counted over all objects: they also tell which of two of one name came first."""
    cache = filled(made("Job", "a", 30, uid="second"))
    told(Marks(), cache, {"type": late, "object": made("Job", "a", 20, uid="first")})
    assert version_of(cache, "Job", "a") == 30


def test_the_end_of_an_object_that_nobody_told_of_is_the_end_of_the_one_before() -> None:
    cache = filled(made("Job", "a", 10, uid="first"))
    cache.remove(made("Job", "a", 40, uid="second"))
    assert version_of(cache, "Job", "a") is None
    assert not cache.put(made("Job", "a", 20, uid="first"))


def test_news_is_news_once() -> None:
    cache = filled(made("Job", "a", 10))
    assert not cache.put(made("Job", "a", 10))
    assert cache.put(made("Job", "a", 11))


def test_who_reads_gets_an_object_of_their_own() -> None:
    cache = filled(made("Job", "a", 10))
    first: Any = cache.get("Job", "shop", "a")
    first["metadata"]["labels"].clear()
    assert names(cache, "Job") == ["a"]


# ---------------------------------------------------------------- lists


def test_a_list_of_one_index_replaces_it_whole_but_not_what_came_in_since() -> None:
    cache = filled(made("Job", "vanished", 10), made("Job", "kept", 11), made("Pod", "other-kind", 12))
    cache.put(made("VectorIndex", "other", 2))
    cache.put(made("Job", "of-another", 13, index="other"))
    since = cache.turn()
    cache.put(made("Job", "just-made", 20))
    cache.replace("Job", "shop", "docs", [made("Job", "kept", 11), made("Job", "found", 14)], since)
    assert names(cache, "Job") == ["found", "just-made", "kept"]
    assert version_of(cache, "Pod", "other-kind") == 12
    assert version_of(cache, "Job", "of-another") == 13


def test_a_list_of_everything_says_what_differs_and_drops_what_vanished() -> None:
    cache = filled(made("Job", "same", 10), made("Job", "changed", 11), made("Job", "vanished", 12))
    since = cache.turn()
    cache.put(made("Job", "just-made", 30))
    metas = [made("Job", "same", 10), made("Job", "changed", 21), made("Job", "missed", 22)]
    metas.append(made("Job", "of-nobody", 23, index="unknown"))
    different, lost = cache.compare("Job", "", metas, since)
    assert (different, lost) == ({("shop", "docs")}, {("shop", "docs")})
    assert names(cache, "Job") == ["changed", "just-made", "same"]


def test_a_list_of_one_namespace_says_nothing_of_the_others() -> None:
    cache = filled(made("Job", "a", 10))
    cache.put(made("VectorIndex", "docs", 2, namespace="team-b"))
    different, lost = cache.compare("VectorIndex", "team-b", [], cache.turn())
    assert (different, lost) == (set(), {("team-b", "docs")})
    assert cache.names() == [("shop", "docs")]


def test_a_list_that_missed_an_object_is_mended_by_the_next_one() -> None:
    """An old cache of a server may answer a list; what it did not show must not stay away for ever."""
    cache = filled(made("Job", "a", 10))
    cache.replace("Job", "shop", "docs", [], cache.turn())
    assert names(cache, "Job") == []
    assert not cache.put(made("Job", "a", 10)), "an answer that comes late"
    cache.replace("Job", "shop", "docs", [made("Job", "a", 10)], cache.turn())
    assert names(cache, "Job") == ["a"]


def test_endpoint_slices_belong_to_the_service_that_they_name() -> None:
    ours, others = made("EndpointSlice", "docs-a", 10), made("EndpointSlice", "docs-b", 11)
    ours["metadata"]["labels"][labels.SERVICE_NAME] = "docs"
    others["metadata"]["labels"] = {labels.SERVICE_NAME: "docs"}
    cache = filled(ours)
    live = LiveCluster(Server(ours, others), cache)
    selector = f"{labels.SERVICE_NAME}=docs"
    assert len(live.children("EndpointSlice", "shop", selector)) == 2
    assert [raw["metadata"]["name"] for raw in cache.children("EndpointSlice", "shop", selector)] == [
        "docs-a",
        "docs-b",
    ]
    assert names(cache, "EndpointSlice") == ["docs-a"]


# ---------------------------------------------------------------- what others may do to it


def test_objects_that_name_no_index_there_is_are_not_kept() -> None:
    cache = filled()
    for number in range(1000):
        cache.put(made("Job", f"job-{number}", 10 + number, index=f"made-up-{number}"))
    assert cache.size()[0] == 1


def test_an_index_with_too_many_objects_of_a_kind_is_read_live_and_costs_no_memory() -> None:
    """Labels are anybody's to write: a tenant with ten thousand Jobs pays with reads, not with the operator's life."""
    cache = filled(made("Pod", "mine", 5))
    for number in range(caches.MOST_OF_A_KIND * 3):
        cache.put(made("Job", f"job-{number}", 10 + number))
    assert cache.size()[0] == 2
    with pytest.raises(NotCachedError, match=f"more than {caches.MOST_OF_A_KIND} objects of kind Job"):
        cache.children("Job", "shop", SELECTOR)
    assert names(cache, "Pod") == ["mine"]
    listed = [made("Job", f"job-{number}", 5000 + number) for number in range(caches.MOST_OF_A_KIND * 3)]
    assert cache.compare("Job", "", listed, cache.turn()) == (set(), set()), "nor is each of them read again"
    cache.replace("Job", "shop", "docs", listed[:2], cache.turn())
    assert names(cache, "Job") == ["job-0", "job-1"]


def test_an_index_with_large_objects_is_read_live_and_costs_no_memory() -> None:
    cache = filled(made("Pod", "mine", 5))
    for number in range(40):
        large = made("Deployment", f"large-{number}", 10 + number)
        cache.put(large | {"spec": {"text": "x" * 400_000}})
        assert cache.size()[1] <= caches.MOST_BYTES_OF_A_KIND + 10_000
    with pytest.raises(NotCachedError):
        cache.children("Deployment", "shop", SELECTOR)
    assert names(cache, "Pod") == ["mine"]


def test_what_changes_often_takes_the_room_of_its_newest_form() -> None:
    cache = filled()
    for turn in range(40):
        for name in ("one", "two"):
            text = "x" * (400_000 if turn % 2 else 1_000_000)
            cache.put(made("Deployment", name, 10 + turn) | {"spec": {"text": text}})
        cache.remove(made("Deployment", "two", 11 + turn))
        cache.put(made("Deployment", "two", 12 + turn))
    assert names(cache, "Deployment") == ["one", "two"]


def test_the_marks_of_what_is_gone_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MOST_TOMBSTONES", 10)
    cache = filled()
    for number in range(30):
        cache.put(made("Job", f"job-{number}", 10))
        cache.remove(made("Job", f"job-{number}", 20))
    assert len(cache._gone) == 10


def test_what_nobody_reads_is_not_kept() -> None:
    pod = made("Pod", "a", 10)
    pod["metadata"] |= {"managedFields": [{"manager": "kubelet"}], "annotations": {caches.APPLIED: "{}", "own": "1"}}
    pod["spec"] = {
        "containers": [{"name": "c"}],
        "volumes": [{"name": "t", "emptyDir": {}}, {"secret": {"secretName": "s3"}}],
    }
    small = trimmed(pod, fields=False)
    assert "managedFields" not in small["metadata"]
    assert "managedFields" in trimmed(pod)["metadata"]
    assert small["metadata"]["annotations"] == {"own": "1"}
    assert small["spec"] == {"volumes": [{"secret": {"secretName": "s3"}}]}
    assert trimmed(small, fields=False) == small
    assert "managedFields" in pod["metadata"], "what was read is left as it is"


def test_a_job_that_is_held_back_says_so_in_the_cache_and_live() -> None:
    """What is read of it has no pod for a reason that is no quota's."""
    job = made("Job", "products-build-1", 10)
    job["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z"}
    job["metadata"]["labels"] |= {labels.VERB: "build"}
    job["spec"] = {"suspend": False, "template": {"spec": {"containers": [{"name": "c"}]}}}
    assert trimmed(job)["spec"] == {}
    for held, known in ((False, True), (True, False)):
        job["spec"]["suspend"] = held
        assert trimmed(trimmed(job)) == trimmed(job)
        for read in (filled(job), LiveCluster(Server(job), filled())):
            (found,) = read.children("Job", "shop", SELECTOR)
            view = pods.job_view(found, [])
            assert view is not None
            assert (view.podless_since is not None) is known


def test_many_threads_at_once_end_with_the_newest() -> None:
    cache = filled()
    versions = list(range(10, 2010))

    def feed(seed: int) -> None:
        mine = versions[:]
        random.Random(seed).shuffle(mine)
        for version in mine:
            cache.put(made("Job", f"job-{version % 7}", version))
            if version % 50 == 0:
                cache.children("Job", "shop", SELECTOR)

    threads = [threading.Thread(target=feed, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = {f"job-{rest}": max(v for v in versions if v % 7 == rest) for rest in range(7)}
    assert {name: version_of(cache, "Job", name) for name in newest} == newest


# ---------------------------------------------------------------- the two clusters


class Server:
    """An API server of Jobs: what is there, and what was asked."""

    def __init__(self, *objects: Json) -> None:
        self.objects = {(raw["kind"], raw["metadata"]["name"]): raw for raw in objects}
        self.asked: list[str] = []
        self.version = 1000

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self.asked.append(f"get {kind}/{name}")
        return self.objects.get((kind, name))

    def children(self, kind: str, namespace: str, selector: str) -> list[Json]:
        self.asked.append(f"list {kind}")
        return [raw for (one, _), raw in self.objects.items() if one == kind]

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Json]]:
        self.asked.append(f"{'metadata' if metadata_only else 'all'} {kind} {selector}".strip())
        found = [raw for (one, _), raw in self.objects.items() if one == kind]
        for first in range(0, max(1, len(found)), 2):
            yield [{"kind": kind, "metadata": raw["metadata"]} if metadata_only else raw for raw in found[first:][:2]]

    def apply(self, manifest: Json, *, force: bool = True) -> Json:
        self.version += 1
        meta = {
            **made(manifest["kind"], manifest["metadata"]["name"], self.version)["metadata"],
            **manifest["metadata"],
        }
        raw = {**manifest, "metadata": meta | {"resourceVersion": str(self.version)}}
        self.objects[raw["kind"], meta["name"]] = raw
        return raw

    apply_status = apply

    def create(self, manifest: Json) -> Json | None:
        taken = (manifest["kind"], manifest["metadata"]["name"]) in self.objects
        return None if taken else self.apply(manifest)

    def judge(self, manifest: Json) -> None: ...

    def delete(self, kind: str, namespace: str, name: str, uid: str, version: str = "") -> None:
        self.objects.pop((kind, name), None)


def test_our_own_writes_are_in_the_cache_before_any_watch_tells_of_them() -> None:
    cache, server = filled(), Server()
    live = LiveCluster(server, cache)
    assert live.create(made("Job", "a", 1)) is not None
    assert version_of(cache, "Job", "a") == 1001
    live.apply(made("Job", "a", 1))
    assert version_of(cache, "Job", "a") == 1002
    live.apply_status(made("Job", "a", 1))
    assert version_of(cache, "Job", "a") == 1003
    assert live.create(made("Job", "a", 1)) is None
    live.delete("Job", "shop", "a", "uid-a")
    assert version_of(cache, "Job", "a") is None


def test_live_reads_mend_the_cache() -> None:
    cache = filled(made("Job", "vanished", 10), made("Job", "old", 11), made("Service", "docs", 12))
    live = LiveCluster(Server(made("Job", "old", 20)), cache)
    assert [raw["metadata"]["name"] for raw in live.children("Job", "shop", SELECTOR)] == ["old"]
    assert names(cache, "Job") == ["old"]
    assert version_of(cache, "Job", "old") == 20
    assert live.get("Service", "shop", "docs") is None
    assert version_of(cache, "Service", "docs") is None


def test_live_reads_show_no_more_than_the_cache_does() -> None:
    """Code that came to need what the cache does not keep would work until the cache answers."""
    pod = made("Pod", "a", 10) | {"spec": {"containers": [{"name": "c"}]}}
    live = LiveCluster(Server(pod), filled())
    (listed,) = live.children("Pod", "shop", SELECTOR)
    assert listed == live.get("Pod", "shop", "a") == live.cache.get("Pod", "shop", "a")


def test_a_pass_on_the_cache_cannot_write() -> None:
    looked = CachedCluster(filled(made("Job", "a", 10)))
    job = made("Job", "a", 10)
    for write in (looked.apply, looked.apply_status, looked.create):
        with pytest.raises(NotCachedError, match="Job/a"):
            write(job)
    with pytest.raises(NotCachedError):
        looked.delete("Job", "shop", "a", "uid-a")


# ---------------------------------------------------------------- the relist and the watches


class Marks:
    def __init__(self) -> None:
        self.marked: list[str] = []

    def mark(self, namespace: str, name: str) -> None:
        self.marked.append(f"{namespace}/{name}")


def test_at_the_start_everything_is_read_once_and_each_index_looked_at() -> None:
    cache, marks, done = ReadCache(), Marks(), []
    server = Server(*(made("Job", f"job-{number}", 10 + number) for number in range(5)), made("VectorIndex", "docs", 1))
    Relist(cache, server, marks.mark, on_done=lambda: done.append(len(server.asked))).fill()
    assert done == [len(server.asked)], "what the lists took is given back once, at their end"
    assert marks.marked == ["shop/docs"]
    assert names(cache, "Job") == [f"job-{number}" for number in range(5)]
    assert server.asked[0] == "all VectorIndex", "children of an index that is not known are not kept"
    assert server.asked[2] == f"all Job {labels.MANAGED_BY}={labels.OPERATOR}"


def test_a_relist_reads_metadata_and_only_what_differs() -> None:
    cache, marks = filled(made("Job", "same", 10), made("Job", "changed", 11), made("Pod", "gone", 12)), Marks()
    server = Server(made("VectorIndex", "docs", 1), made("Job", "same", 10), made("Job", "changed", 20))
    done: list[int] = []
    relist = Relist(cache, server, marks.mark, on_done=lambda: done.append(len(server.asked)))
    assert relist.run_once() == 2
    assert done == [len(server.asked)]
    reads = [asked for asked in server.asked if not asked.startswith("metadata ")]
    assert reads == ["list Job"]
    assert marks.marked == ["shop/docs", "shop/docs"]
    assert version_of(cache, "Job", "changed") == 20
    assert version_of(cache, "Pod", "gone") is None
    server.asked.clear()
    assert relist.run_once() == 0
    assert len(marks.marked) == 2
    assert all(asked.startswith("metadata ") for asked in server.asked)


def test_a_relist_that_fails_is_tried_again_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relists, "RETRY_SECONDS", 0.001)
    failures = iter([UnreachableError("503"), RuntimeError("a bug"), None])

    class Failing(Server):
        def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Json]]:
            failure = next(failures, None)
            if failure is not None:
                raise failure
            return super().pages(kind, namespace, selector, metadata_only=metadata_only)

    cache, stop, done = ReadCache(), threading.Event(), threading.Event()
    relist = Relist(cache, Failing(made("VectorIndex", "docs", 1)), lambda namespace, name: None)
    thread = threading.Thread(target=relist.until, args=(stop, 3600.0, done.set))
    thread.start()
    assert done.wait(20.0)
    assert cache.names() == [("shop", "docs")]
    stop.set()
    thread.join(20.0)
    assert not thread.is_alive()


def test_a_watch_that_tells_news_asks_for_a_look_and_repetitions_do_not() -> None:
    cache, marks = filled(), Marks()
    for kind in (None, "ADDED", "MODIFIED"):
        told(marks, cache, {"type": kind, "object": made("Job", "a", 10)})
    assert marks.marked == ["shop/docs"]
    told(marks, cache, {"type": "DELETED", "object": made("Job", "a", 11)})
    assert (marks.marked, names(cache, "Job")) == (["shop/docs"] * 2, [])
    told(marks, cache, {"type": "ADDED", "object": made("Job", "b", 12, index="unknown")})
    assert marks.marked == ["shop/docs"] * 2
    told(marks, cache, {"type": "ADDED", "object": made("VectorIndex", "new", 13)})
    assert marks.marked[2:] == ["shop/new"]


def test_a_watch_that_began_anew_is_followed_by_a_relist(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf tells again what there is, and never what vanished while the watch was down."""
    monkeypatch.setattr(relists, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(relists, "SETTLE_SECONDS", 0.001)
    cache, stop, done, looked = filled(), threading.Event(), threading.Event(), threading.Event()
    server = Server(made("VectorIndex", "docs", 1), made("Job", "vanishes", 10))
    relist = Relist(cache, server, lambda namespace, name: None, on_missed=lambda found: looked.set())
    thread = threading.Thread(target=relist.until, args=(stop, 3600.0, done.set))
    thread.start()
    assert done.wait(20.0)
    assert names(cache, "Job") == ["vanishes"]
    del server.objects["Job", "vanishes"]
    assert not looked.wait(0.05), "nothing began anew"
    told(Marks(), cache, {"type": None, "object": made("VectorIndex", "docs", 1)}, relist.soon)
    assert looked.wait(20.0)
    assert names(cache, "Job") == []
    stop.set()
    thread.join(20.0)


# ---------------------------------------------------------------- what it costs


def test_what_an_idle_index_costs_is_known() -> None:
    """One VectorIndex with three revisions, one of them loaded on two pods, as an API server writes them."""
    folder = Path(__file__).parent / "golden"
    goldens = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in folder.glob("*.yaml")}
    deployment = next(one for one in goldens["searchers"] if one["kind"] == "Deployment")
    revision = goldens["revision"][0]
    pods = [
        {"kind": "Pod", "spec": deployment["spec"]["template"]["spec"], "status": STATUS_OF_A_POD} for _ in range(2)
    ]
    jobs = [goldens[name][0] for name in ("build-job", "validate-job")] * 3
    kinds = [revision] * 3 + [*goldens["searchers"], goldens["service"][0], *pods, *jobs]

    def objects(index: str) -> Iterator[Json]:
        yield made("VectorIndex", index, 1) | {"spec": revision["spec"], "status": {"message": "x" * 2000}}
        for number, one in enumerate(kinds):
            told_of = made(one["kind"], f"{index}-{number}", 10, index=index)
            told_of["metadata"] |= {"managedFields": [{"fieldsV1": one}], "ownerReferences": [{"uid": "u" * 36}]}
            yield {**one, **told_of, "spec": one["spec"], "status": one.get("status", {})}

    cache = ReadCache()
    gc.collect()  # what tests before left behind warns of itself, with the sources of whoever made it
    tracemalloc.start()
    try:
        for number in range(30):
            for raw in objects(f"docs-{number}"):
                cache.put(json.loads(json.dumps(raw)))
        taken = tracemalloc.get_traced_memory()[0] / 30
    finally:
        tracemalloc.stop()
    count, size = cache.size()
    assert count == 30 * (1 + len(kinds))
    assert taken < 40 * 1024, f"{taken / 1024:.0f} KiB an index: docs/operations.md says 32"
    assert size / 30 < taken


STATUS_OF_A_POD: Json = {
    "phase": "Running",
    "podIP": "10.0.0.1",
    "conditions": [
        {"type": kind, "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z", "lastProbeTime": None}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")
    ],
    "containerStatuses": [
        {"name": "searcher", "ready": True, "restartCount": 0, "image": "i" * 80, "imageID": "i" * 140}
    ],
}
