"""A pytest plugin: tests in another order, the same for the same seed (`-p shuffled`, SHUFFLE_SEED=number).

Modules change places, and the tests within each, so that what a module sets up is still set up once.
"""

from __future__ import annotations

import os
import random

import pytest

SEED = "SHUFFLE_SEED"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_other_order(items, int(os.environ[SEED]))


def pytest_report_header() -> str:
    return f"shuffled with {SEED}={os.environ[SEED]}"


def in_other_order(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Sorted first: what came before must not matter."""
    modules: dict[str, list[pytest.Item]] = {}
    for item in sorted(items, key=lambda one: one.nodeid):
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    order, randomly = list(modules.values()), random.Random(seed)
    randomly.shuffle(order)
    for tests in order:
        randomly.shuffle(tests)
    return [item for tests in order for item in tests]
