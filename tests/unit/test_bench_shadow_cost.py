"""What bench/shadow_cost.py makes of its turns, and whether its stand-in is one that a sender takes for a searcher."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from vectorindex_searcher.serve.shadow.link import head_of
from vectorindex_searcher.serve.shadow.sender import _told

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shadow_judged
from shadow_cost import TURNS, Measured


def test_the_rise_is_that_of_a_tenth_of_the_queries_whatever_share_was_sent() -> None:
    """The loop was twice as slow in the second round, and a fifth of its queries were sent."""
    assert sorted(TURNS) == [(0, 1), (1, 0)], "each is once the one and once the other"
    found = Measured("Flat", 8, off=[100, 102, 200, 200], on=[103, 103, 208, 208], mirrored=[0.1, 0.1, 0.2, 0.2])
    assert found.rises() == pytest.approx([0.0198, 0.02], abs=1e-4)


def test_the_stand_in_answers_as_a_searcher_whose_pod_answered_everything() -> None:
    async def ask() -> tuple[bytes, bytes]:
        server = await asyncio.start_server(shadow_judged.answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(2):  # on one connection, as the sender keeps it
            writer.write(b"POST /v1/shadow HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + bytes(70000))
            head = await reader.readuntil(b"\r\n\r\n")
            _, length, _ = head_of(head)
            body = await reader.readexactly(length)
        writer.close()
        server.close()
        return head, body

    head, body = asyncio.run(ask())
    assert head_of(head)[::2] == (200, False)
    assert _told(body, 10) == (frozenset(), False)
