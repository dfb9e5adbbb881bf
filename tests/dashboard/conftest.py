"""One browser for all tests of the layer, and a tab with the dashboard for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsers import Tab, running, tabs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write", action="store_true", help="set `dashboard.axe_serious` of bench/results/summary.json")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with running() as found:
        yield found


@pytest.fixture
def shown(browser: Any) -> Iterator[Callable[..., Tab]]:
    with tabs(browser) as show:
        yield show
