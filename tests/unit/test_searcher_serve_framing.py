"""Where a request begins and ends: RFC 9112 by the letter, since a proxy in front may read it otherwise.

Whatever two readers could take for different requests is refused with the status that the RFC names, and the connection
ends: nothing that comes behind it is read.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import orjson
import pytest
from waiting import until
from wire import Serving, get, post, serving

from vectorindex_searcher.serve.http.limits import Limits

SECOND = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(Limits(body_bytes=1000, header_bytes=2000)) as started:
        yield started


def head(*lines: bytes, request_line: bytes = b"GET /x HTTP/1.1") -> bytes:
    return b"\r\n".join((request_line, *lines)) + b"\r\n\r\n"


def posted(*lines: bytes) -> bytes:
    return head(b"Host: x", *lines, request_line=b"POST /x HTTP/1.1")


REFUSED: dict[str, tuple[int, bytes]] = {
    # ---- request line
    "no HTTP": (400, b"\x16\x03\x01\x02\x00\x01"),
    "a line of no HTTP": (400, b"EHLO mail.example.com\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /x\r\n\r\n"),
    "HTTP/2.0": (505, head(b"Host: x", request_line=b"GET /x HTTP/2.0")),
    "HTTP/3.0": (505, head(b"Host: x", request_line=b"GET /x HTTP/3.0")),
    "lower case http/1.1": (400, head(b"Host: x", request_line=b"GET /x http/1.1")),
    "HTTP/1.10": (400, head(b"Host: x", request_line=b"GET /x HTTP/1.10")),
    "HTTP/1": (400, head(b"Host: x", request_line=b"GET /x HTTP/1")),
    "unknown method": (501, head(b"Host: x", request_line=b"FOO /x HTTP/1.1")),
    "lower case method": (501, head(b"Host: x", request_line=b"get /x HTTP/1.1")),
    "CONNECT": (501, head(b"Host: x:443", request_line=b"CONNECT x:443 HTTP/1.1")),
    "method with a colon": (400, head(b"Host: x", request_line=b"GE:T /x HTTP/1.1")),
    "two spaces": (400, head(b"Host: x", request_line=b"GET  /x HTTP/1.1")),
    "tab for a space": (400, head(b"Host: x", request_line=b"GET\t/x HTTP/1.1")),
    "space in front": (400, head(b"Host: x", request_line=b" GET /x HTTP/1.1")),
    "space behind": (400, head(b"Host: x", request_line=b"GET /x HTTP/1.1 ")),
    "two targets": (400, head(b"Host: x", request_line=b"GET /x /y HTTP/1.1")),
    "two empty lines in front": (400, b"\r\n\r\n" + get()),
    "bare line feeds in front": (400, b"\n\n" + get()),
    "half of a line end in front": (400, b"\r" + get()),
    # ---- target
    "target without a slash": (400, head(b"Host: x", request_line=b"GET x HTTP/1.1")),
    "target *": (400, head(b"Host: x", request_line=b"GET * HTTP/1.1")),
    "target host:port": (400, head(b"Host: x", request_line=b"GET x:80 HTTP/1.1")),
    "target of another scheme": (400, head(b"Host: x", request_line=b"GET ftp://x/x HTTP/1.1")),
    "absolute target without host": (400, head(b"Host: x", request_line=b"GET http:///x HTTP/1.1")),
    "absolute target with a user": (400, head(b"Host: x", request_line=b"GET http://u@x/x HTTP/1.1")),
    "absolute target, no Host": (400, head(request_line=b"GET http://x/x HTTP/1.1")),
    "fragment": (400, head(b"Host: x", request_line=b"GET /x#y HTTP/1.1")),
    "byte above ASCII in the target": (400, head(b"Host: x", request_line=b"GET /\xc3\xa9 HTTP/1.1")),
    "NUL in the target": (400, head(b"Host: x", request_line=b"GET /x\0 HTTP/1.1")),
    # ---- Host
    "no Host": (400, head()),
    "two Hosts": (400, head(b"Host: x", b"Host: y")),
    "the same Host twice": (400, head(b"Host: x", b"host: x")),
    "two Hosts in HTTP/1.0": (400, head(b"Host: x", b"Host: y", request_line=b"GET /x HTTP/1.0")),
    "Host with a space": (400, head(b"Host: x y")),
    "Host with a path": (400, head(b"Host: x/y")),
    "Host with a user": (400, head(b"Host: u@x")),
    "two Hosts in one": (400, head(b"Host: x, y, [")),
    "Host with a bad port": (400, head(b"Host: x:y")),
    # ---- header lines
    "folded header": (400, head(b"Host: x", b"X-A: 1", b" 2")),
    "folded with a tab": (400, head(b"Host: x", b"X-A: 1", b"\tContent-Length: 5")),
    "folded first line": (400, head(b" Host: x", b"Host: x")),
    "space before the colon": (400, posted(b"Content-Length : 3") + b"abc"),
    "tab before the colon": (400, posted(b"Content-Length\t: 3") + b"abc"),
    "no colon": (400, head(b"Host: x", b"X-A")),
    "no name": (400, head(b"Host: x", b": 1")),
    "quotes in a name": (400, head(b"Host: x", b'"X-A": 1')),
    "byte above ASCII in a name": (400, head(b"Host: x", b"X-\xe9: 1")),
    "NUL in a value": (400, head(b"Host: x", b"X-A: 1\0")),
    "bare CR in a value": (400, head(b"Host: x", b"X-A: 1\rContent-Length: 5")),
    "bare LF between headers": (400, b"GET /x HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n"),
    "bare LF everywhere": (400, b"GET /x HTTP/1.1\nHost: x\n\n"),
    "CR CR LF": (400, b"GET /x HTTP/1.1\r\r\nHost: x\r\n\r\n"),
    "bell in a value": (400, head(b"Host: x", b"X-A: \x07")),
    "delete in a value": (400, head(b"Host: x", b"X-A: \x7f")),
    "two Authorizations": (400, head(b"Host: x", b"Authorization: Bearer a", b"Authorization: Bearer b")),
    "two Content-Types": (400, posted(b"Content-Type: text/plain", b"Content-Type: text/plain")),
    "two deadlines": (400, posted(b"X-Request-Timeout-Ms: 1", b"X-Request-Timeout-Ms: 1000")),
    # ---- length
    "two lengths": (400, posted(b"Content-Length: 3", b"Content-Length: 4") + b"abcd"),
    "the same length twice": (400, posted(b"Content-Length: 3", b"Content-Length: 3") + b"abc"),
    "a list of lengths": (400, posted(b"Content-Length: 3, 3") + b"abc"),
    "empty length": (400, posted(b"Content-Length:")),
    "negative length": (400, posted(b"Content-Length: -1")),
    "length with a plus": (400, posted(b"Content-Length: +3") + b"abc"),
    "hexadecimal length": (400, posted(b"Content-Length: 0x3") + b"abc"),
    "length with an underscore": (400, posted(b"Content-Length: 1_0") + b"abcdefghij"),
    "length with a fraction": (400, posted(b"Content-Length: 3.0") + b"abc"),
    "length of other digits": (400, posted("Content-Length: \u0663".encode()) + b"abc"),
    "superscript length": (400, posted(b"Content-Length: \xb3") + b"abc"),
    "length of 30 digits": (400, posted(b"Content-Length: " + b"0" * 29 + b"3") + b"abc"),
    "length above 64 bits": (413, posted(b"Content-Length: 18446744073709551619") + b"abc"),
    # ---- transfer coding
    "length and chunked": (400, posted(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "chunked and length": (400, posted(b"Transfer-Encoding: chunked", b"Content-Length: 0") + b"0\r\n\r\n"),
    "gzip, chunked": (501, posted(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "gzip and chunked on two lines": (501, posted(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked")),
    "chunked, gzip": (400, posted(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
    "gzip": (400, posted(b"Transfer-Encoding: gzip") + b"0\r\n\r\n"),
    "identity": (400, posted(b"Transfer-Encoding: identity") + b"0\r\n\r\n"),
    "identity, chunked": (501, posted(b"Transfer-Encoding: identity, chunked") + b"0\r\n\r\n"),
    "chunked twice": (400, posted(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
    "chunked on two lines": (400, posted(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "chunked with a parameter": (400, posted(b"Transfer-Encoding: chunked;q=1") + b"0\r\n\r\n"),
    "quoted chunked": (400, posted(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n"),
    "xchunked": (400, posted(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    "vertical tab before chunked": (400, posted(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
    "no coding": (400, posted(b"Transfer-Encoding:") + b"0\r\n\r\n"),
    "chunked and a comma": (400, posted(b"Transfer-Encoding: chunked,") + b"0\r\n\r\n"),
    "chunked in HTTP/1.0": (
        400,
        head(b"Host: x", b"Transfer-Encoding: chunked", request_line=b"POST /x HTTP/1.0") + b"0\r\n\r\n",
    ),
    # ---- chunks
    "size of no digits": (400, CHUNKED + b"zz\r\n"),
    "empty size": (400, CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    "size with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "size with a plus": (400, CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    "negative size": (400, CHUNKED + b"-1\r\n\r\n0\r\n\r\n"),
    "size with an underscore": (400, CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "space before the size": (400, CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    "space behind the size": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "space before an extension": (400, CHUNKED + b"3 ;a\r\nabc\r\n0\r\n\r\n"),
    "size of 17 digits": (400, CHUNKED + b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
    "size that wraps at 64 bits": (400, CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "size above the limit": (413, CHUNKED + b"ffffffffffffffff\r\nabc"),
    "bare LF behind the size": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "bare LF behind the data": (400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    "more data than said": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "no line end behind the data": (400, CHUNKED + b"3\r\nabc0\r\n\r\n"),
    "bare CR in an extension": (400, CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "bare LF in an extension": (400, CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "NUL in an extension": (400, CHUNKED + b"3;a\0\r\nabc\r\n0\r\n\r\n"),
    "length in a trailer": (400, CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    "host in a trailer": (400, CHUNKED + b"0\r\nhost: y\r\n\r\n"),
    "coding in a trailer": (400, CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "token in a trailer": (400, CHUNKED + b"0\r\nAUTHORIZATION: Bearer x\r\n\r\n"),
    "trailer without a colon": (400, CHUNKED + b"0\r\nabc\r\n\r\n"),
    "folded trailer": (400, CHUNKED + b"0\r\nX-A: 1\r\n 2\r\n\r\n"),
    "bare LF in a trailer": (400, CHUNKED + b"0\r\nX-A: 1\nX-B: 2\r\n\r\n"),
    "bare LF for the end": (400, CHUNKED + b"0\r\n\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("pieces", ["at once", "byte by byte"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_two_readers_could_take_for_different_requests_is_refused(server: Serving, case: str, pieces: str) -> None:
    status, data = REFUSED[case]
    if b"Transfer-Encoding: chunked\r\n\r\n" not in data or status != 413:
        data += SECOND
    client = server.connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seen = len(server.seen())
    try:
        for piece in [data] if pieces == "at once" else [data[n : n + 1] for n in range(len(data))]:
            client.send(piece)
    except OSError:
        pass  # refused in the middle
    found, headers, body = client.answer()
    assert (found, headers["connection"]) == (status, "close")
    assert headers["content-type"] == "application/problem+json"
    assert orjson.loads(body)["status"] == status
    assert client.closed(), "nothing behind it may be answered"
    assert [target for target, _ in server.seen()[seen:]] in ([b""], [b"/x"])


TAKEN: dict[str, tuple[bytes, bytes]] = {
    # what the echo answers: the body, or the target
    "empty line in front": (b"\r\n" + get(b"/a"), b"/a"),
    "absolute target": (head(b"Host: y", request_line=b"GET http://x:80/a?b=c HTTP/1.1"), b"/a?b=c"),
    "absolute target of https": (head(b"Host: x", request_line=b"GET HTTPS://[::1]:8443/a HTTP/1.1"), b"/a"),
    "absolute target without a path": (head(b"Host: x", request_line=b"GET http://x HTTP/1.1"), b"/"),
    "absolute target with a query only": (head(b"Host: x", request_line=b"GET http://x?b=c HTTP/1.1"), b"/?b=c"),
    "OPTIONS *": (head(b"Host: x", request_line=b"OPTIONS * HTTP/1.1"), b"*"),
    "a later minor version": (head(b"Host: x", request_line=b"GET /a HTTP/1.9"), b"/a"),
    "empty Host": (head(b"Host:", request_line=b"GET /a HTTP/1.1"), b"/a"),
    "Host of IPv6": (head(b"Host: [::1]:80", request_line=b"GET /a HTTP/1.1"), b"/a"),
    "no space behind the colon, tabs around the value": (posted(b"Content-Length:\t3\t ") + b"abc", b"abc"),
    "zeros in front of the length": (posted(b"Content-Length: 003") + b"abc", b"abc"),
    "Latin-1 in a value": (posted(b"X-A: \xe9\xff", b"Content-Length: 3") + b"abc", b"abc"),
    "a list on two lines": (posted(b"Accept: a", b"Accept: b", b"Content-Length: 3") + b"abc", b"abc"),
    "Chunked in capitals": (posted(b"Transfer-Encoding: CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "sizes in capitals, with zeros": (CHUNKED + b"0A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
    "extensions": (CHUNKED + b'3;a="b\t;";c\r\nabc\r\n0;last\r\n\r\n', b"abc"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX-Digest: other\r\nX-Empty:\r\n\r\n", b"abc"),
    "line ends in the data": (CHUNKED + b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r"),
    "an offer of an upgrade": (posted(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3") + b"abc", b"abc"),
    "body of a GET": (head(b"Host: x", b"Content-Length: 3") + b"abc", b"abc"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_the_grammar_allows_is_taken_and_ends_where_it_ends(server: Serving, case: str) -> None:
    data, answer = TAKEN[case]
    for pieces in ([data + get(b"/next")], [bytes([byte]) for byte in data + get(b"/next")]):
        client = server.connect()
        for piece in pieces:
            client.send(piece)
        assert client.answer()[2] == answer
        assert client.answer()[2] == b"/next"


def test_a_refusal_says_nothing_of_what_came(server: Serving) -> None:
    """A proxy may send the requests of several people by one connection."""
    for line in (b"Authorization : Bearer secret", b"Authorization: Bearer secret\0", b"secret", b"X: 1\r\n secret"):
        client = server.connect().send(head(b"Host: x", line))
        _, _, body = client.answer()
        assert b"secret" not in body
    client = server.connect().send(head(b"Host: x", request_line=b"GET /?secret HTTP/1.1 x"))
    assert b"secret" not in client.answer()[2]


def test_no_body_in_the_answer_to_a_refused_head(server: Serving) -> None:
    """Whoever asks with HEAD takes no body for one: it would be the next answer."""
    for extra in (b"Host: y\r\n", b"Expect: 200-ok\r\n", b"Content-Length: x\r\n"):
        client = server.connect().send(b"HEAD /x HTTP/1.1\r\nHost: x\r\n" + extra + b"\r\n")
        status, headers, _ = client.answer(head_only=True)
        assert status in (400, 417)
        assert int(headers["content-length"]) > 0
        assert client.closed()


def test_100_continue_only_to_who_waits_for_it(server: Serving) -> None:
    expect = b"Expect: 100-continue\r\n"
    old = b"POST /x HTTP/1.0\r\nContent-Length: 3\r\n" + expect + b"\r\n"
    client = server.connect().send(old)
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.answer(head_only=True)
    client.sock.settimeout(60)
    assert client.send(b"abc").answer()[::2] == (200, b"abc")
    assert server.connect().send(get(b"/a", expect)).answer()[::2] == (200, b"/a")
    assert server.connect().send(post(b"abc", extra=expect)).answer()[::2] == (200, b"abc")
    chunked = CHUNKED.replace(b"\r\n\r\n", b"\r\n" + expect + b"\r\n")
    client = server.connect().send(chunked)
    assert client.answer(head_only=True)[0] == 100
    assert client.send(b"3\r\nabc\r\n0\r\n\r\n").answer()[::2] == (200, b"abc")


def test_more_chunks_than_any_client_needs_are_refused() -> None:
    with serving(Limits(chunks=100)) as few:
        assert few.connect().send(CHUNKED + b"1\r\na\r\n" * 99 + b"0\r\n\r\n").answer()[2] == b"a" * 99
        assert few.connect().send(CHUNKED + b"1\r\na\r\n" * 101).answer()[0] == 413


def test_chunked_requests_are_pipelined_with_others(server: Serving) -> None:
    one = CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    client = server.connect().send((one + post(b"def") + get(b"/g")) * 30)
    for _ in range(30):
        assert [client.answer()[2] for _ in range(3)] == [b"abc", b"def", b"/g"]


def test_the_end_of_a_half_sent_request_is_no_request() -> None:
    with serving() as started:
        for part in (post(b"abc")[:-1], get()[:-1], CHUNKED + b"3\r\nabc\r\n0\r\n"):
            client = started.connect().send(part)
            client.sock.shutdown(socket.SHUT_WR)
            assert client.sock.recv(100) == b""
        until(lambda: started.listener.connections == 0)
        assert started.seen() == []
        assert started.listener.held == 0
