"""Builds that fail, places that lack, searchers that refuse."""

from __future__ import annotations

from collections.abc import Callable

from simulator.clock import START
from simulator.scenarios.scenario import Script, edited, ends, first_is_stable, phase, scenario, set_quality, stable
from simulator.truth import Quality
from simulator.world import World


@scenario(ends("A", builds=1))
def out_of_memory_once(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137, 69, 137)))
    yield from first_is_stable(w)


@scenario(ends("A", builds=1))
def out_of_memory_backs_off(w: World) -> Script:
    """Three tries at once, and then none for ten minutes."""
    set_quality(w, "A", Quality(build_exits=(137,) * 7))
    yield from first_is_stable(w)
    assert w.now - START > 600.0, f"stable after {w.now - START:.0f} s"


@scenario(ends("A", builds=1))
def more_memory(w: World) -> Script:
    set_quality(w, "A", Quality(build_exits=(137,) * 6))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield 60.0
    w.apply(build__resources={"requests": {"cpu": "1", "memory": "8Gi"}})
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def retry_of_a_failed_build(w: World) -> Script:
    """A build that failed for good is tried again when a person says so, at once and only then."""
    set_quality(w, "A", Quality(build_exits=(64,)))
    w.apply()
    yield phase(w, "A", "BuildFailed")
    yield w.rng.uniform(5.0, 200.0)
    w.ask("retry", "n1")
    asked = w.now
    yield stable(w, "A")
    assert w.now - asked < 1500, f"retry took {w.now - asked:.0f} s"


def _built_on(device: str) -> Callable[[World], list[str]]:
    def check(w: World) -> list[str]:
        found = {(str(b.device), bool(b.device_reason)) for b in w.truth.published.values()}
        return [] if found == {(device, device == "CPU")} else [f"built on {found}"]

    return check


@scenario(ends("A", builds=1, extra=_built_on("CPU")))
def gpu_falls_back(w: World) -> Script:
    w.truth.gpu = False
    w.apply(build__device="PreferGPU")
    yield stable(w, "A")


@scenario(ends("A", builds=1, extra=_built_on("GPU")))
def gpu_comes_late(w: World) -> Script:
    w.truth.gpu = False
    w.apply(build__device="GPU")
    yield phase(w, "A", "Building")
    yield 400.0
    w.truth.gpu = True
    yield stable(w, "A")


@scenario(ends("A", builds=1))
def secret_comes_late(w: World) -> Script:
    w.truth.secret = False
    w.apply()
    yield 60.0
    w.truth.secret = True
    yield phase(w, "A", "Surging")
    w.truth.secret = False
    yield 200.0
    w.truth.secret = True
    yield stable(w, "A")


@scenario(ends("B"))
def no_room_for_searchers(w: World) -> Script:
    """Longer than progressDeadline, which does not run meanwhile."""
    yield from first_is_stable(w)
    w.truth.room = False
    w.apply(index__factory="B")
    yield phase(w, "B", "Surging")
    yield 300.0
    w.truth.room = True
    yield stable(w, "B")


def _refused(w: World, reason: str, ends_as: str) -> Script:
    set_quality(w, "B", Quality(refuses=reason))
    yield from edited(w)
    yield phase(w, "B", ends_as)


@scenario(
    ends("A", phase="SurgeFailed", reason="ChecksumMismatch", rolled_out=False, stalled=True, failed="B", builds=2)
)
def corrupt_artifact(w: World) -> Script:
    return _refused(w, "ChecksumMismatch", "SurgeFailed")


@scenario(ends("A", phase="Rejected", reason="CanaryRecall", rolled_out=False, stalled=True, failed="B", builds=2))
def canary_refuses(w: World) -> Script:
    return _refused(w, "CanaryRecall", "Rejected")


@scenario(ends("B", builds=2))
def retry_after_refusal(w: World) -> Script:
    yield from _refused(w, "ChecksumMismatch", "SurgeFailed")
    set_quality(w, "B", Quality())
    yield w.rng.uniform(0.0, 30.0)
    w.ask("retry", "n1")
    yield stable(w, "B")
