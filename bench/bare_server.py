"""The least that a server in Python can be: it reads, calls FAISS for each query, and writes.

    python bench/bare_server.py INDEX.faiss '{"efSearch": 48}'

Says {"port": 12345} when it listens on loopback, and ends with its standard input. It takes what load_client.py sends
as "binary" and looks at nothing of it but its length: no checks, no metrics, no limits, and no queries joined into one
call. What a query costs here beside FAISS in a loop is the price of sockets, and of waking up with cold caches.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from pathlib import Path

import numpy as np

from vectorindex_searcher.index.binding import faiss
from vectorindex_searcher.index.engine import read_index
from vectorindex_searcher.index.parameters import search_parameters

K = 10
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"


def main(index_file: str, params: str) -> None:
    faiss.omp_set_num_threads(1)
    index = read_index(Path(index_file))
    prepared, size = search_parameters(index, json.loads(params)), 4 * index.d
    listening = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
    poll = select.epoll()
    for wanted in (listening.fileno(), sys.stdin.fileno()):
        poll.register(wanted, select.EPOLLIN)
    clients: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready == sys.stdin.fileno():
                return
            if ready == listening.fileno():
                client, _ = listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(client.fileno(), select.EPOLLIN)
                clients[client.fileno()] = client, bytearray()
                continue
            client, held = clients[ready]
            data = client.recv(1 << 16)
            if not data:
                poll.unregister(ready)
                del clients[ready]
                client.close()
                continue
            held += data
            start = held.find(b"\r\n\r\n") + 4
            if start < 4 or len(held) < start + size:
                continue
            query = np.frombuffer(bytes(held[start : start + size]), np.float32)
            del held[: start + size]
            query = query / np.linalg.norm(query)
            scores, rows = index.search(query.reshape(1, -1), K, params=prepared)
            body = rows.tobytes() + scores.tobytes()
            client.sendall(HEAD % len(body) + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
