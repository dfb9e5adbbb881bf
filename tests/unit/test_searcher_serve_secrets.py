"""A token opens the port for the request that carries it: for no other client, from no cache, not once withdrawn."""

from __future__ import annotations

import gc
import socket
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until
from wire import Serving, get, post, serving

from vectorindex_searcher.serve.http.auth import Tokens

TOKEN, OTHER = "a-token-of-somebody-0123456789", "another-token-0123456789"
AUTHORIZATION = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    (tmp_path / "site").write_text(TOKEN)
    (tmp_path / "other").write_text(OTHER)
    return Tokens(tmp_path)


@pytest.fixture
def server(tokens: Tokens) -> Iterator[Serving]:
    with serving(guard=tokens) as started:
        yield started


def withdraw(tokens: Tokens, server: Serving) -> None:
    (tokens._path / "site").unlink()
    server.call(tokens.refresh)
    assert tokens.names == ("other",)


@pytest.mark.parametrize("between", [b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n\r\n"])
def test_an_empty_line_is_not_the_request_before_it(server: Serving, between: bytes) -> None:
    """It was learnt as a known head together with the last request's method, target and headers: whoever then sent an
    empty line was answered as if he had sent that request, with its token.
    """
    for request in (get(b"/secret", AUTHORIZATION), post(b"", b"/secret", AUTHORIZATION)):
        holder = server.connect().send(request)
        assert holder.answer()[0] == 200
        holder.send(between)
        answered = len(server.seen())
        stranger = server.connect().send(between)
        stranger.sock.shutdown(socket.SHUT_WR)
        assert b"/secret" not in b"".join(iter(lambda s=stranger: s.sock.recv(1 << 16), b""))
        assert all(target == b"" for target, _ in server.seen()[answered:])


def reachable(root: object) -> Iterator[object]:
    """All objects that `root` leads to, without modules, functions and classes."""
    seen, left = {id(root)}, [root]
    while left:
        one = left.pop()
        yield one
        for further in gc.get_referents(one):
            if id(further) not in seen and not isinstance(further, types.ModuleType | types.FunctionType | type):
                seen.add(id(further))
                left.append(further)


def test_nothing_of_a_port_holds_a_token_or_another_secret(server: Serving) -> None:
    """Not its caches, not its connections: idle, answered, half sent or waiting."""
    secrets = AUTHORIZATION + b"Cookie: session=" + TOKEN.encode() + b"\r\nX-Api-Key: " + TOKEN.encode() + b"\r\n"
    idle, half, waiting, busy = (server.connect() for _ in range(4))
    for _ in range(3):
        assert idle.send(post(b"abc", extra=secrets)).answer()[0] == 200
    half.send(post(b"abc", extra=secrets)[:-1])
    busy.send(get(b"/later", secrets))
    waiting.send(get(b"/later", secrets) + get(b"/waits", secrets))
    until(lambda: bool(server.call(lambda: len(server.listener.heads) >= 3 and server.listener.in_flight == 2)))

    def holding() -> list[object]:
        texts = [one for one in reachable(server.listener) if isinstance(one, bytes | bytearray | str)]
        assert len(texts) > 10
        return [one for one in texts if TOKEN in (one if isinstance(one, str) else one.decode("latin-1"))]

    assert server.call(holding) == []


def test_a_withdrawn_token_stops_working_at_once_on_open_connections(server: Serving, tokens: Tokens) -> None:
    kept, half, waiting = (server.connect() for _ in range(3))
    for _ in range(2):
        assert kept.send(post(b"abc", extra=AUTHORIZATION)).answer()[0] == 200
    half.send(post(b"abc", b"/half", extra=AUTHORIZATION)[:-1])
    waiting.send(get(b"/later", AUTHORIZATION) + get(b"/waits", AUTHORIZATION))
    until(lambda: server.listener.in_flight == 1)
    until(lambda: bool(server.call(lambda: any(one._head for one in server.listener._connections))))
    withdraw(tokens, server)
    assert kept.send(post(b"abc", extra=AUTHORIZATION)).answer()[0] == 401
    assert kept.closed()
    assert half.send(b"c").answer()[0] == 401, "its body came after the token was withdrawn"
    server.app.gate.set()
    assert waiting.answer()[2] == b"/later", "it was being answered before"
    assert waiting.answer()[0] == 401
    assert server.connect().send(get(extra=AUTHORIZATION.replace(TOKEN.encode(), OTHER.encode()))).answer()[0] == 200
    assert tokens.uses == {"site": 3, "other": 1}
