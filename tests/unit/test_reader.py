"""Reading answers: who has little to tell does not wait for those who have much."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from vectorindex_operator.adapters.reader import Reader


def test_what_has_been_read_least_is_read_next() -> None:
    async def run() -> list[str]:
        reader, order, begun, go = Reader(), list[str](), threading.Event(), threading.Event()

        def first() -> None:
            begun.set()
            assert go.wait(60)

        held = asyncio.create_task(reader.read(10**9, first))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        wanted = [("long", 500_000), ("longer", 900_000), ("long too", 500_000), ("short", 1_000)]
        tasks = [asyncio.create_task(reader.read(size, partial(order.append, name))) for name, size in wanted]
        await asyncio.sleep(0)  # all of them wait now
        go.set()
        await asyncio.gather(held, *tasks)
        return order

    assert asyncio.run(run()) == ["short", "long", "long too", "longer"]


def test_what_fails_is_told_and_the_next_is_read() -> None:
    async def run() -> int:
        reader = Reader()
        with pytest.raises(ZeroDivisionError):
            await reader.read(1, lambda: 1 // 0)
        return await reader.read(1, lambda: 7)

    assert asyncio.run(run()) == 7
