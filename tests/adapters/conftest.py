"""A searcher process that the adapters ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from adapters.rows import DATA, row
from searcher_process import built_and_served

from vectorindex_client import Client


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An exact index, so that what is found is decided by filters alone."""
    rows = (row(number) for number in range(len(DATA)))
    columns = ["text", "section", "year", "tags"]
    folder = tmp_path_factory.mktemp("adapters")
    with built_and_served(folder, rows, metadata=columns, factory="Flat") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client
