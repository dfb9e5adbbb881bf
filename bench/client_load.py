"""The programs of bench/client.py that ask a searcher, in a process of their own whose CPU is measured.

Standard input: one JSON command a line; standard output: one JSON answer each.

    {"do": "open", "port": 8080}                              which searcher the following ask
    {"do": "bare", "count": 500}                              a socket, written and read, and the answer's arrays
    {"do": "bare-asyncio", "count": 500, "tasks": 32}         the same over asyncio's transports
    {"do": "sync", "count": 500, "threads": 1}                vectorindex_client.Client
    {"do": "async", "count": 500, "tasks": 32}                vectorindex_client.AsyncClient
    {"do": "capacity", "seconds": 3, "tasks": 32}             AsyncClient, each task asks again once it is answered
    {"do": "offer", "seconds": 5, "rate": 900, "timeout": 1}  AsyncClient, so many a second, whatever comes back

Everything asks for the 10 nearest of one vector, binary both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorindex_client import AsyncClient, Client, DeadlineExceeded, VectorIndexError

K = 10
WARM = 20


class Load:
    """Asks one searcher. Each method does `count` searches, or as many as fit, and says what became of them."""

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        self._queries = queries
        self._numbers = itertools.count()
        self._port = 0

    def open(self, port: int) -> dict[str, Any]:
        self._port = port
        return {}

    def _next(self) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._queries[next(self._numbers) % len(self._queries)]
        return found

    def _whole(self) -> bytes:
        """One request as bytes."""
        body = self._next().astype("<f4").tobytes()
        head = (
            f"POST /v1/search?k={K}&dimension={len(body) // 4} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Accept: application/octet-stream\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    # ------------------------------------------------------------ bare

    def bare(self, count: int) -> dict[str, Any]:
        with socket.create_connection(("127.0.0.1", self._port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def one() -> None:
                connection.sendall(self._whole())
                _arrays(connection.recv(1 << 16))

            return _timed(count, one)

    def bare_asyncio(self, count: int, tasks: int) -> dict[str, Any]:
        return asyncio.run(self._bare_asyncio(count, tasks))

    async def _bare_asyncio(self, count: int, tasks: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(_Bare, "127.0.0.1", self._port) for _ in range(tasks)]
        free = [protocol for _, protocol in made]

        async def one() -> None:
            protocol = free.pop()
            _arrays(await protocol.ask(self._whole()))
            free.append(protocol)

        try:
            return await _timed_tasks(count, tasks, one)
        finally:
            for transport, _ in made:
                transport.abort()

    # ------------------------------------------------------------ the client

    def sync(self, count: int, threads: int) -> dict[str, Any]:
        with Client(f"http://127.0.0.1:{self._port}") as client:

            def one() -> None:
                client.search(self._next(), K)

            if threads == 1:
                return _timed(count, one)
            for _ in range(WARM):
                one()
            several = [
                threading.Thread(target=lambda: [one() for _ in range(count // threads)]) for _ in range(threads)
            ]
            began = time.process_time()
            for thread in several:
                thread.start()
            for thread in several:
                thread.join()
            return {"count": count // threads * threads, "cpu": time.process_time() - began}

    def asynchronous(self, count: int, tasks: int) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with AsyncClient(f"http://127.0.0.1:{self._port}") as client:

                async def one() -> None:
                    await client.search(self._next(), K)

                return await _timed_tasks(count, tasks, one)

        return asyncio.run(main())

    # ------------------------------------------------------------ too much

    def capacity(self, seconds: float, tasks: int) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            async with AsyncClient(f"http://127.0.0.1:{self._port}") as client:
                return await self._closed(client, seconds, tasks)

        return asyncio.run(main())

    async def _closed(self, client: AsyncClient, seconds: float, tasks: int) -> dict[str, Any]:
        began = time.monotonic()
        count = 0

        async def one() -> None:
            nonlocal count
            while time.monotonic() < began + seconds:
                with contextlib.suppress(DeadlineExceeded):
                    await client.search(self._next(), K)
                    count += 1

        await asyncio.gather(*(one() for _ in range(tasks)))
        return {"count": count, "rate": count / (time.monotonic() - began)}

    def offer(self, seconds: float, rate: float, timeout: float, tasks: int) -> dict[str, Any]:
        """`after`: what the same client answers a second once the load is gone, as `capacity`."""

        async def main() -> dict[str, Any]:
            async with AsyncClient(f"http://127.0.0.1:{self._port}", timeout=timeout) as client:
                cpu = time.process_time()
                found = await self._offer(client, seconds, rate)
                found["cpu"] = time.process_time() - cpu
                found["after"] = (await self._closed(client, seconds, tasks))["rate"]
                return found

        return asyncio.run(main())

    async def _offer(self, client: AsyncClient, seconds: float, rate: float) -> dict[str, Any]:
        became: Counter[str] = Counter()
        took: list[float] = []
        in_time: list[bool] = []
        ends = time.monotonic() + seconds
        tasks: set[asyncio.Task[None]] = set()

        async def one() -> None:
            began = time.monotonic()
            try:
                await client.search(self._next(), K)
                became["answered"] += 1
                took.append(time.monotonic() - began)
                in_time.append(time.monotonic() <= ends)
            except VectorIndexError as error:
                became[error.kind or str(error.status)] += 1

        began, made = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            due = int(passed * rate)
            for _ in range(due - made):
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            made = due
            await asyncio.sleep(0.002)
        offered = time.monotonic() - began
        await asyncio.gather(*tasks)
        drained = time.monotonic() - began - offered
        p50, p99 = np.quantile(took, [0.5, 0.99]) if took else (0.0, 0.0)
        return {
            "offered": made, "seconds": offered, "drained": drained, "became": became, "inTime": sum(in_time),
            "p50": float(p50) * 1e3, "p99": float(p99) * 1e3,
        }  # fmt: skip


class _Bare(asyncio.Protocol):
    """Writes a request; whatever is read next is its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, data: bytes) -> asyncio.Future[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(data)


def _arrays(answer: bytes) -> tuple[Any, ...]:
    """Ids and scores, as the client gives them; ends the benchmark for anything but an answer."""
    at = answer.find(b"VXA1")
    if not answer.startswith(b"HTTP/1.1 200") or at < 0:
        raise SystemExit(f"not answered: {answer[:400]!r}")
    _, n, m, kind = struct.unpack_from("<4sIII", answer, at)
    return struct.unpack_from(f"<{m}{'I' if kind else 'q'}{n}I{m}f", answer, at + 16)


def _timed(count: int, one: Callable[[], None]) -> dict[str, Any]:
    for _ in range(WARM):
        one()
    began = time.process_time()
    for _ in range(count):
        one()
    return {"count": count, "cpu": time.process_time() - began}


async def _timed_tasks(count: int, tasks: int, one: Callable[[], Any]) -> dict[str, Any]:
    numbers: Iterator[int] = iter(range(count))

    async def several() -> None:
        for _ in numbers:
            await one()

    await asyncio.gather(*(one() for _ in range(tasks)))
    began = time.process_time()
    await asyncio.gather(*(several() for _ in range(tasks)))
    return {"count": count, "cpu": time.process_time() - began}


def main() -> None:
    load = Load(np.load(Path(sys.argv[1])))
    does = {
        "open": load.open, "bare": load.bare, "bare-asyncio": load.bare_asyncio, "sync": load.sync,
        "async": load.asynchronous, "capacity": load.capacity, "offer": load.offer,
    }  # fmt: skip
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        print(json.dumps(does[command.pop("do")](**command)), flush=True)


if __name__ == "__main__":
    main()
