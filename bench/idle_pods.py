"""The admin ports of every searcher of idle.py, in one process: what an honest pod would answer.

A line of JSON in, a line of JSON out: {"load": REVISION, "segments": [...]}, {"fail": REVISION} (its pods answer errors
from the next bucket on), {"asked": REVISION} -> when its pods were asked for evidence since it fails. The end of input
ends it. It listens on ADDRESSES at the searchers' own port; which revision is meant stands in each request.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from played_pods import Pods

from vectorindex_searcher.contract import ADMIN_PORT

ADDRESSES = tuple(f"127.77.0.{number}" for number in range(1, 65))
"""Of pods, in turn: more than one, so that as many connections are possible as with real pods. Others are arguments."""


async def serve(pods: Pods, addresses: Sequence[str]) -> None:
    """Answer on all addresses; one request a connection."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = first.split()
            kind, body = pods.answer(method, path, headers)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the operator hung up
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(one, list(addresses), ADMIN_PORT, backlog=1024)
    except OSError as error:  # another run of idle.py has the addresses
        sys.stderr.write(f"the fake searchers cannot listen: {error}\n")
        os._exit(1)
    sys.stdout.write('{"listening": true}\n')
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it by the end of its input
    pods = Pods()
    threading.Thread(target=lambda: asyncio.run(serve(pods, sys.argv[1:] or ADDRESSES)), daemon=True).start()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(pods.obey(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
