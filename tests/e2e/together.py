"""Tests of a module that run side by side: a rollout is mostly waiting (builds, soaks, drains of 45 s).

The first of them to be called starts all; each reports its own outcome when its turn comes. They share nothing but the
operator, as indexes of different teams do.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest

MARK = "together"
_running = pytest.StashKey[dict[str, Future[None]]]()


def marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def outcome(item: pytest.Function, others: Iterable[pytest.Item], argument: Callable[[str, str], Any]) -> None:
    """Ends as the test `item` ends; those of `others` in its module are started with it.

    `argument`: the value of a test's argument, by the names of both; asked in the test's own thread.
    """
    module = item.getparent(pytest.Module)
    assert module is not None
    if _running not in module.stash:
        tests = [one for one in others if isinstance(one, pytest.Function) and one.getparent(pytest.Module) is module]
        module.stash[_running] = {one.name: _start(one, argument) for one in tests if marked(one)}
    module.stash[_running][item.name].result()


def _start(item: pytest.Function, argument: Callable[[str, str], Any]) -> Future[None]:
    future: Future[None] = Future()

    def run() -> None:
        try:
            item.obj(**{name: argument(item.name, name) for name in inspect.signature(item.obj).parameters})
            future.set_result(None)
        except BaseException as error:  # also pytest's skip and fail, which are no Exception
            future.set_exception(error)

    threading.Thread(target=run, name=item.name, daemon=True).start()
    return future
