"""Data that changes, that is bad, that cannot be judged."""

from __future__ import annotations

from simulator.clock import START
from simulator.scenarios.scenario import Script, edited, ends, phase, scenario, set_quality, stable
from simulator.truth import Data, Quality
from simulator.world import World

from vectorindex_searcher.contract import Failure

BAD_ROW = Failure(reason="NonFiniteVector", message="a vector is not finite", object="part-1.parquet", row=17)


@scenario(ends("A", "d2"))
def data_during_build(w: World) -> Script:
    """What is being built when new data is found is finished first, or it would never be served."""
    w.truth.gpu = False
    w.apply(source__poll="30s", build__device="GPU")
    yield phase(w, "A", "Building")
    w.truth.put(Data("d2", rows=10_100))
    yield lambda: w.status().get("source", {}).get("fingerprint") == Data("d2").fingerprint
    w.truth.gpu = True
    yield lambda: w.serving() == w.name_of("A")
    yield stable(w, "A", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("B", "d2"))
def data_during_soak(w: World) -> Script:
    yield from edited(w, source__poll="30s")
    yield phase(w, "B", "Soaking")
    w.truth.put(Data("d2", rows=10_100))
    yield stable(w, "B", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "the last"))
def data_never_rests(w: World) -> Script:
    """New data every few seconds, proven before the soak of the one before it is over: revisions are promoted
    nevertheless."""
    w.apply(source__poll="30s", source__minInterval="1s", rollout__soak__duration="2m")
    yield stable(w, "A")
    for number in range(2, 400):
        w.truth.put(Data(f"d{number}", rows=10_000 + number))
        yield w.rng.uniform(5.0, 40.0)
        if w.status().get("stable") != w.name_of("A"):
            break
    assert w.status().get("stable") != w.name_of("A"), "nothing was promoted while the data did not rest"
    w.truth.put(Data("the last", rows=10_009))
    yield stable(w, "A", "the last")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d3"))
def bad_data_then_fix(w: World) -> Script:
    w.apply(source__poll="1m")
    yield stable(w, "A")
    w.truth.put(Data("d2", bad=BAD_ROW))
    yield phase(w, "A", "BuildFailed", "d2")
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d3"))
    yield stable(w, "A", "d3")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d2"))
def bad_data_at_first(w: World) -> Script:
    """Polling is off, and the fix is picked up by itself nevertheless."""
    w.truth.data = Data("d1", bad=BAD_ROW)
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d2"))
    yield stable(w, "A", "d2")


@scenario(ends("A", "d2"))
def unreadable_then_fix(w: World) -> Script:
    w.truth.data = Data("d1", unreadable=Failure(reason="EmptySource", message="no object below products/"))
    w.apply()
    yield lambda: w.condition("Stalled") == "True" and w.status()["reason"] == "EmptySource"
    yield w.rng.uniform(0.0, 300.0)
    w.truth.put(Data("d2"))
    yield stable(w, "A", "d2")


@scenario(ends("A", "d2"))
def listed_objects_gone(w: World) -> Script:
    """What was listed is replaced before it is built: listed again, though polling is off."""
    w.apply()
    yield phase(w, "A", "Building")
    w.truth.put(Data("d2", replaced=True))
    yield stable(w, "A", "d2")


@scenario(ends("B", builds=2))
def held_by_live_queries(w: World) -> Script:
    """What A's users ask holds B, which is never rejected for it, until a person no longer asks for it."""
    w.truth.live_recall = 0.90
    w.apply(gate={"queries": {"live": {}}})
    yield stable(w, "A")
    w.apply(index__factory="B")
    yield lambda: w.status().get("reason") in ("LiveRecallBelowMin", "GateInconclusive")
    yield w.rng.uniform(0.0, 100.0)
    assert w.phase_of(w.name_of("B")) == "Validating"
    w.apply(gate={"recall": {"min": 0.95}})
    yield stable(w, "B")


@scenario(ends("A", "d3"))
def undecided_gate_then_data(w: World) -> Script:
    """d2 can neither be proven nor refuted, and is held; it must not hold up d3."""
    set_quality(w, "A@d2", Quality(recall=0.952))
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_100))
    yield lambda: w.status().get("reason") in ("RecallUncertain", "GateInconclusive")
    yield w.rng.uniform(0.0, 60.0)
    w.truth.put(Data("d3", rows=10_200))
    yield stable(w, "A", "d3")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A", "d1", builds=1))
def queries_come_late(w: World) -> Script:
    w.truth.queries_missing = True
    w.apply()
    yield phase(w, "A", "Validating")
    yield w.rng.uniform(60.0, 400.0)
    w.truth.queries_missing = False
    yield stable(w, "A")


@scenario(ends("A", "d2"))
def no_queries_then_data(w: World) -> Script:
    """A revision that cannot be measured does not hold up new data."""
    w.apply(source__poll="30s")
    w.truth.queries_missing = True
    yield phase(w, "A", "Validating")
    yield w.rng.uniform(60.0, 400.0)
    w.truth.put(Data("d2", rows=10_200))
    yield lambda: w.phase_of(w.name_of("A", "d2")) != ""
    w.truth.queries_missing = False
    yield stable(w, "A", "d2")
    w.apply(source__poll="0")
    yield 5.0


@scenario(ends("A"))
def polling(w: World) -> Script:
    """A source that does not change costs no write: stable's searchers say so."""
    w.apply(source__poll="30s")
    yield stable(w, "A")
    yield 100.0


@scenario(ends("A", "d2"))
def polling_finds_new_data(w: World) -> Script:
    """Searchers see it, a Job lists it, and it is built and rolled out; also where it was taken back meanwhile."""
    w.apply(source__poll="30s")
    yield stable(w, "A")
    for data in ("d2", "d1", "d2"):
        w.truth.put(Data(data, rows=10_000 if data == "d1" else 10_200))
        yield w.rng.uniform(0.0, 40.0)
    yield stable(w, "A", "d2")
    yield 60.0


@scenario(ends("A", "d2"), seeds=2)
def schedule_missed(w: World) -> Script:
    """Nobody is there at the time at which the source is looked at: it is looked at once somebody is."""
    w.apply(source__schedule={"cron": "*/20 * * * *"})
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_200))
    w.nobody_until = w.now + 1500.0
    yield stable(w, "A", "d2")
    yield 60.0


def _one_job_a_poll(w: World) -> list[str]:
    """At most, besides those that follow faults."""
    most = (w.now - START) / 30.0 + 20
    return [] if w.listings <= most else [f"{w.listings} Jobs listed the source"]


@scenario(ends("A", extra=_one_job_a_poll), polls=True)
def polling_by_liars(w: World) -> Script:
    """Searchers that always say that the source changed cost a Job a poll, and nothing else."""
    w.truth.source_lies = True
    w.apply(source__poll="30s")
    yield stable(w, "A")
    yield 600.0


@scenario(ends("A", "d2", extra=_one_job_a_poll), polls=True)
def polling_by_an_older_image(w: World) -> Script:
    """It does not know how to list: Jobs do, as before."""
    w.truth.lists_source = False
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_200))
    yield stable(w, "A", "d2")
    yield 300.0


@scenario(ends("A", "d2", extra=_one_job_a_poll), polls=True)
def polling_without_access(w: World) -> Script:
    """Searchers may not list the source: Jobs do, and find what is new."""
    w.truth.source_denied = True
    w.apply(source__poll="30s")
    yield stable(w, "A")
    w.truth.put(Data("d2", rows=10_200))
    yield stable(w, "A", "d2")
    yield 300.0


def _dimension_refused(w: World) -> list[str]:
    reasons = {c["reason"] for c in w.status().get("conditions", ()) if c["type"] == "Stalled"}
    return [] if reasons == {"DimensionChanged"} else [f"Stalled is {reasons}"]


@scenario(ends("A", phase="Stalled", stalled=True, extra=_dimension_refused), polls=True)
def dimension_changed(w: World) -> Script:
    w.apply(source__poll="1m")
    yield stable(w, "A")
    w.truth.put(Data("d2", dimension=16))
    yield lambda: w.condition("Stalled") == "True"
    yield 60.0
    w.apply(source__poll="1h")
    yield 5.0
