"""kopf as trigger: its watches are seen to live, and seen to be gone."""

from __future__ import annotations

import asyncio

from vectorindex_operator import handlers
from vectorindex_operator.adapters import kube
from vectorindex_operator.reconcile.cache import INDEX_KIND
from vectorindex_operator.reconcile.observe import CHILD_KINDS
from vectorindex_operator.reconcile.watches import WATCHED, WATCHER, Watches, watches


async def _beat_once(alive: Watches) -> None:
    beat = asyncio.create_task(alive.beat())
    await asyncio.sleep(0)
    beat.cancel()


def test_a_watch_that_ended_is_missed() -> None:
    now = [1000.0]

    async def story() -> None:
        alive = Watches(expected=2, clock=lambda: now[0])
        assert alive.stuck(300.0) == "", "a standby watches nothing"
        tasks = [asyncio.create_task(asyncio.Event().wait(), name=f"{WATCHER}{kind}") for kind in ("pods", "jobs")]
        await _beat_once(alive)
        now[0] += 299.0
        assert alive.stuck(300.0) == ""
        await _beat_once(alive)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        beat = asyncio.create_task(alive.beat())
        await asyncio.sleep(0)
        alive._complete_at = now[0] - 300.0
        assert alive.stuck(300.0) == "1 of 2 watches run"
        beat.cancel()
        tasks[1].cancel()

    asyncio.run(story())


def test_an_event_loop_that_hangs_is_missed() -> None:
    now = [1000.0]
    alive = Watches(expected=0, clock=lambda: now[0])
    asyncio.run(_beat_once(alive))
    now[0] += 300.0
    assert alive.stuck(300.0) == "the watches' event loop has not turned for 300 s"


def test_each_kind_is_watched_in_each_namespace() -> None:
    assert watches(()).expected == len(WATCHED)
    assert watches(("team-a", "team-b")).expected == 2 * len(WATCHED)
    assert len(handlers.operator_settings().watching.label_selectors) == len(WATCHED) - 1


def test_what_is_read_is_watched_and_found_where_it_is() -> None:
    """A kind that a pass reads and no watch tells of would be read from the cache, where it never is."""
    watched = {one.kind: one for one in WATCHED}
    assert set(CHILD_KINDS) <= set(watched)
    for kind, one in watched.items():
        prefix = f"/apis/{one.group}/{one.version}" if one.group else f"/api/{one.version}"
        assert kube._PATHS[kind] == (prefix, one.plural)
    assert WATCHED[0].kind == INDEX_KIND, "children of an index that is not known are not kept"
