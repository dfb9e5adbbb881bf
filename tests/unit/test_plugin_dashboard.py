"""The server of `kubectl vectorindex dashboard`: requests of others, and what it asks of a cluster."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import PAGE, Clock, looks
from recorded import Recorded

from vectorindex_plugin.app import run
from vectorindex_plugin.dashboard.server import HEADERS, Server, page
from vectorindex_plugin.exits import EndedError
from vectorindex_plugin.verbs.common import Session

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PROPFIND")
AS_HTML = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\sstyle=")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(looks(Recorded.at("soaking"))) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask_for(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """`path`: below the token, or with a slash in front a whole one."""
    whole = path if path.startswith("/") else f"/{server.site.token}/{path}"
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request(method, whole, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def raw_request(server: Server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(65536):
            said += part
    return said


# ---------------------------------------------------------------- who may ask


def test_with_the_token_there_is_a_page(server: Server) -> None:
    status, headers, body = ask_for(server, "")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"<title>vectorindex</title>" in body
    assert ask_for(server, "app.js")[1]["Content-Type"] == "text/javascript; charset=utf-8"
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.site.token}/"
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/x/", "//", "/api/indexes", "/index.html", "/%00/"])
def test_without_the_token_there_is_nothing(server: Server, path: str) -> None:
    status, headers, body = ask_for(server, path)
    assert status == 404
    assert b"vectorindex" not in body
    assert server.site.token.encode() not in body + repr(headers).encode()


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = set()
    for _ in range(3):
        with Server(looks(Recorded.at("at_rest"))) as made:
            tokens.add(made.site.token)
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""])
def test_another_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    """Otherwise a page of somebody whose name points to 127.0.0.1 would be of the same origin as we are."""
    given = host.format(port=server.server_port)
    request = f"GET /{server.site.token}/api/indexes HTTP/1.1\r\nHost: {given}\r\n\r\n".encode()
    said = raw_request(server, request)
    assert said.startswith(b"HTTP/1.0 421 ")
    assert b"products" not in said


def test_two_hosts_or_none_are_refused(server: Server) -> None:
    path = f"GET /{server.site.token}/api/indexes HTTP/1.1\r\n"
    assert b" 421 " in raw_request(server, f"{path}Host: {server.host}\r\nHost: evil.example\r\n\r\n".encode())
    assert b" 421 " in raw_request(server, f"{path}\r\n".encode())


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PROPFIND"]
)
def test_nothing_but_get(server: Server, method: str) -> None:
    status, headers, body = ask_for(server, "api/indexes", method, Origin="http://evil.example")
    assert (status, headers["Allow"]) == (405, "GET")
    assert b"products" not in body
    assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    "path",
    [
        "../server.py", "..%2fserver.py", "%2e%2e/server.py", "....//server.py", "/etc/passwd", "page/../server.py",
        "style.css/",
        "api/index/search/../../x", "api/index/search/..", "api/index/search/Products", "api/index/search/a%2fb",
        "api/index/kube-system/x", "api/index/search/" + "a" * 300, "api/index//products",
        "api/indexes/", "API/indexes",
    ],
)  # fmt: skip
def test_a_path_that_is_none_of_ours(server: Server, path: str) -> None:
    assert ask_for(server, f"/{server.site.token}/{path}")[0] == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b" 431 "),
        (b"\x16\x03\x01\x02\x00 \xff\xff\r\n\r\n", b" 400 "),
        (b"GET / HTTP/9.9\r\n\r\n", b" 505 "),
    ],
)
def test_what_is_no_request_gets_no_word_of_it_back(server: Server, request_: bytes, status: bytes) -> None:
    said = raw_request(server, request_)
    assert status in said.partition(b"\r\n")[0]
    assert b"aaaa" not in said
    assert b"Content-Security-Policy" in said
    assert ask_for(server, "")[0] == 200, "and goes on"


def test_each_answer_keeps_others_out(server: Server) -> None:
    for path in ("", "style.css", "api/indexes", "nothing", "/"):
        headers = ask_for(server, path)[1]
        assert HEADERS.items() <= headers.items()
        assert headers["Server"] == "vectorindex"
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'self';")


def test_nothing_is_logged(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    ask_for(server, "api/indexes")
    ask_for(server, "/x")
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        connection.sendall(f"GET /{server.site.token}/api/indexes HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
    assert capfd.readouterr() == ("", "")


def test_the_page_takes_nothing_from_elsewhere_and_reads_nothing_as_html() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"'` )]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\sstyle=", text
        )
    assert {path.name for path in PAGE.iterdir()} <= set(page())


# ---------------------------------------------------------------- what it asks


def test_requests_do_not_grow_with_the_number_of_indexes() -> None:
    cluster = Recorded.at("soaking")
    cluster.objects += [
        {**cluster.objects[0], "metadata": {**cluster.objects[0]["metadata"], "name": f"more-{n}"}} for n in range(50)
    ]
    made = looks(cluster)
    assert len(made.board()["rows"]) == 51
    assert cluster.asked == ["VectorIndex", "VectorIndexRevision"]


def test_an_answer_is_given_again_for_a_moment_and_revisions_are_listed_when_something_changed() -> None:
    cluster, clock = Recorded.at("soaking"), Clock()
    made = looks(cluster, clock=clock)
    made.board()
    made.board()
    assert cluster.asked == ["VectorIndex", "VectorIndexRevision"]
    clock.at += 15
    made.board()
    assert cluster.asked[2:] == ["VectorIndex"], "nothing changed"
    cluster.objects[0]["metadata"]["resourceVersion"] = "186"
    clock.at += 3
    made.board()
    assert cluster.asked[3:] == ["VectorIndex", "VectorIndexRevision"]
    clock.at += 31
    made.board()
    assert cluster.asked[5:] == ["VectorIndex", "VectorIndexRevision"], "also where nothing did, after a while"


def test_nobody_looks_and_nothing_is_asked() -> None:
    cluster = Recorded.at("soaking")
    with Server(looks(cluster)):
        assert cluster.asked == []


def test_a_cluster_that_is_away_leaves_the_last_answer_and_says_so() -> None:
    cluster, clock = Recorded.at("soaking"), Clock()
    made = looks(cluster, clock=clock)
    assert made.board()["error"] == ""
    assert made.index("search", "products")["error"] == ""
    cluster.down = True
    clock.at += 3
    for said in (made.board(), made.index("search", "products")):
        assert said["error"] == "connection refused"
    assert made.board()["rows"]
    cluster.down = False
    clock.at += 3
    assert made.board()["error"] == ""


def test_a_cluster_that_never_answered(server: Server) -> None:
    server.site.looks.eyes.down = True
    status, _, body = ask_for(server, "api/indexes")
    assert (status, json.loads(body)) == (502, {"error": "connection refused"})
    assert ask_for(server, "api/index/search/products")[0] == 502


def test_an_index_that_is_not_there_or_not_shown() -> None:
    made = looks(Recorded.at("soaking"))
    with pytest.raises(EndedError, match="there is no VectorIndex"):
        made.index("search", "nobody")
    with pytest.raises(EndedError, match="only namespace 'search' is shown"):
        made.index("kube-system", "products")
    assert looks(Recorded.at("soaking"), everywhere=True).index("search", "products")["index"]["name"] == "products"


def test_who_may_read_little_sees_the_rest_and_is_told() -> None:
    cluster = Recorded.at("soaking")
    cluster.refused = frozenset({"Event", "Pod", "VectorIndexRevision", "log"})
    made = looks(cluster)
    board, index = made.board(), made.index("search", "products")
    assert "VectorIndexRevision may not be listed" in board["hidden"]
    assert board["rows"][0]["row"]["phase"] == "Soaking"
    assert set(index["index"]["hidden"]) == {"Event", "Pod", "VectorIndexRevision"}


def test_the_address_is_printed_and_no_program_is_told_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []

    def serve(server: Server) -> None:
        opened.append(Path(opened[0].removeprefix("file://")).read_text(encoding="utf-8"))
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(Server, "serve_forever", serve)
    cluster = Recorded.at("soaking")
    assert run(["dashboard", "--open"], Session(cluster, "search", "screen", lambda: cluster.now)) == 130
    url = capsys.readouterr().out.strip()
    token = url.rstrip("/").rpartition("/")[2]
    assert token not in opened[0]
    assert token in opened[1]
    assert not Path(opened[0].removeprefix("file://")).exists()


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Recorded.at("soaking")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        session: Any = Session(cluster, "search", "screen", lambda: cluster.now)
        assert run(["dashboard", "--port", port], session) == 2
    assert f"port {port} of 127.0.0.1" in capsys.readouterr().err
