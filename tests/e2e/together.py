"""Tests that run side by side: a rollout is mostly waiting (builds, soaks, drains of 45 s).

Marked `together`, those of a module do; `together("NAME")` names a group of several modules. The first test of a group
to be called starts all; each reports its own outcome when its turn comes. They share nothing but the operator, as
indexes of different teams do.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

MARK = "together"
_running = pytest.StashKey[dict[str, Future[None]]]()


def marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def group(item: pytest.Item) -> list[pytest.Item]:
    """The tests of the session that run beside `item`, in order, itself among them."""
    return [one for one in item.session.items if marked(one) and group_name(one) == group_name(item)]


def group_name(item: pytest.Item) -> str:
    """What `item` is marked with; else its module."""
    mark = item.get_closest_marker(MARK)
    return str(mark.args[0]) if mark is not None and mark.args else item.nodeid.partition("::")[0]


def outcome(item: pytest.Function, argument: Callable[[str, str], Any]) -> None:
    """Ends as the test `item` ends; those of its group are started with it.

    `argument`: the value of a test's argument, by the names of both; asked in the test's own thread.
    """
    running = item.session.stash.setdefault(_running, {})
    if item.nodeid not in running:
        running |= {one.nodeid: _start(one, argument) for one in group(item) if isinstance(one, pytest.Function)}
    running[item.nodeid].result()


def _start(item: pytest.Function, argument: Callable[[str, str], Any]) -> Future[None]:
    future: Future[None] = Future()

    def run() -> None:
        try:
            item.obj(**{name: argument(item.nodeid, name) for name in inspect.signature(item.obj).parameters})
            future.set_result(None)
        except BaseException as error:  # also pytest's skip and fail, which are no Exception
            future.set_exception(error)

    threading.Thread(target=run, name=item.name, daemon=True).start()
    return future
