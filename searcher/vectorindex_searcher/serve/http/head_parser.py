"""From the bytes of a head to a Head: RFC 9112 by the letter, and a Problem for everything else.

A proxy in front may read sloppily what is not plainly right, and take two requests for one: so nothing is repaired
here, nothing is guessed, and of two readings neither is chosen. Each refusal ends the connection.
"""

from __future__ import annotations

import re

from .auth import credential_of
from .head import Head
from .limits import Limits
from .messages import READ_HEADERS, Problem, body_too_large, head_too_large

END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
HEADER_LINES = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*")
_NAME = re.compile(_TOKEN)
_STRAY = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no head may hold: half a line end, or a control character."""
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)((?:[/?].*)?)")
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))
_ONCE = READ_HEADERS - {b"accept"} | {b"host", b"content-length", b"authorization"}
"""Headers that are no list: sent twice, a proxy may have judged the other one."""
NO_TRAILERS = _ONCE | {b"transfer-encoding", b"connection", b"expect", b"content-encoding"}
"""Whoever reads trailers into headers would take another request for this one."""
JUDGED = NO_TRAILERS | READ_HEADERS
"""Headers that say something here. All others have to be lines of the grammar, and nothing more is asked of them."""
_NAMES = b"|".join(map(re.escape, sorted(JUDGED)))
_UNREAD_LINE = re.compile(rb"\r\n(?!(?i:" + _NAMES + rb"):)" + _TOKEN + rb":" + _VALUE + rb"(?=\r\n)")
_MAX_LENGTH_DIGITS = 20


def parse_head(raw: bytes, limits: Limits) -> Head:
    """The head of a request, from its first byte to the empty line that ends it. Raises Problem."""
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise _bad_request_line(raw)
    if HEADER_LINES.fullmatch(raw, line.end(), len(raw) - 2) is None:
        raise _bad_header(raw, line.end())
    method, target, major, minor = line.groups()
    if major != b"1":
        raise Problem(505, "VersionNotSupported", "only HTTP/1.1 and HTTP/1.0 are spoken here", field="HTTP version")
    if method not in _METHODS:
        raise Problem(501, "MethodNotImplemented", "the method is not known here", "method", method.decode("ascii"))
    modern = minor != b"0"
    headers = _headers(raw[line.end() : -4], limits)
    host = headers.get(b"host")
    if (host is None and modern) or (host is not None and _HOST.fullmatch(host) is None):
        said = "needs a Host header" if host is None else "has a Host header that names no host"
        raise malformed(f"a HTTP/1.1 request {said}", "Host")
    target = _target(method, target)
    credential = credential_of(headers.pop(b"authorization", None))
    length = _length(headers, limits, modern)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Problem(
            415,
            "UnsupportedEncoding",
            "the body's content encoding is not understood",
            field="Content-Encoding",
            value=headers[b"content-encoding"].decode("latin-1"),
            remedy="send the body uncompressed",
        )
    expected = headers.get(b"expect", b"").lower()
    if expected not in (b"", b"100-continue"):
        raise Problem(417, "UnknownExpectation", "only 100-continue is understood", field="Expect")
    closes = b"close" in (token.strip(b" \t").lower() for token in headers.get(b"connection", b"").split(b","))
    read = {name: value for name, value in headers.items() if name in READ_HEADERS}
    # A client of HTTP/1.0 may not be sent 100, and one that sends no body waits for none.
    expects = modern and expected != b"" and length != 0
    return Head(method, target, read, length, modern and not closes, expects, credential)


def without_unread(raw: bytes) -> tuple[bytes, int]:
    """A head without the lines of headers that nobody here reads (traceparent, User-Agent), and how many these were.

    A line is left out whole, with one line end, and only if the grammar allows it: the other lines stay what they are.
    So what is left means what `raw` means, or is refused as `raw` is, but for the number of its lines.
    """
    return _UNREAD_LINE.subn(b"", raw)


def check_beginning(part: bytearray, checked: int) -> None:
    """Raises Problem as soon as what came of a head cannot become one. `checked`: bytes that were looked at before."""
    if _STRAY.search(part, max(0, checked - 1)) is not None:
        raise malformed("a head has a control character, or half of a line end")
    end = part.find(b"\r\n") + 2
    if (end >= 2 and checked < end and _REQUEST_LINE.match(part) is None) or _NAME.match(part) is None:
        raise _bad_request_line(bytes(part[: max(end, 1)]))


def too_long(part: bytearray, limits: Limits) -> Problem:
    """414 or 431, for more bytes than a head may have."""
    if b"\r\n" in part[: limits.header_bytes]:
        return head_too_large(limits.header_bytes)
    detail = f"the request line exceeds {limits.header_bytes} bytes"
    return Problem(414, "TargetTooLong", detail, "target", remedy="send the fields in a JSON body")


def malformed(detail: str, field: str | None = None) -> Problem:
    """400 for what is not HTTP/1.1. Says nothing of the bytes: they may be another client's, or a token."""
    return Problem(400, "MalformedRequest", f"not valid HTTP/1.1: {detail}", field)


def _headers(lines: bytes, limits: Limits) -> dict[bytes, bytes]:
    """The headers of JUDGED; of those that came several times the list."""
    headers: dict[bytes, bytes] = {}
    split = lines.split(b"\r\n") if lines else []
    if len(split) > limits.header_lines:
        raise Problem(431, "HeaderTooLarge", f"more than {limits.header_lines} headers")
    for line in split:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name not in JUDGED:
            continue
        if name in headers:
            if name in _ONCE:
                raise malformed("a header that is no list came twice", name.decode("ascii"))
            value = headers[name] + b", " + value
        headers[name] = value
    return headers


def _target(method: bytes, target: bytes) -> bytes:
    """Path and query string."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        plain = target
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            raise malformed("the target is neither a path nor a http URL", "target")
        plain = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if b"#" in plain:
        raise malformed("the target has a fragment", "target")
    return plain


def _length(headers: dict[bytes, bytes], limits: Limits, modern: bool) -> int | None:
    """Bytes of the body, None for chunks. Raises Problem where two readers could disagree."""
    given, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if coding is not None:
        if given is not None:
            raise malformed("Content-Length and Transfer-Encoding in one request", "Transfer-Encoding")
        if not modern:
            raise malformed("Transfer-Encoding in a HTTP/1.0 request", "Transfer-Encoding")
        codings = [one.strip(b" \t").lower() for one in coding.split(b",")]
        if codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
            raise malformed("Transfer-Encoding must end with chunked, said once", "Transfer-Encoding")
        if len(codings) > 1:
            detail = "the body's transfer coding is not understood"
            raise Problem(501, "CodingNotImplemented", detail, "Transfer-Encoding", remedy="send chunked alone")
        return None
    if given is None:
        return 0
    if not given.isdigit() or len(given) > _MAX_LENGTH_DIGITS:
        raise malformed("Content-Length is no number", "Content-Length")
    if int(given) > limits.body_bytes:
        raise body_too_large(int(given), limits.body_bytes)
    return int(given)


def _bad_request_line(raw: bytes) -> Problem:
    line = raw.partition(b"\r\n")[0]
    if line.strip(b" \t") == b"":
        return malformed("more than one empty line before a request", "request line")
    return malformed("the request line is not METHOD, target and HTTP/1.1, with one space between", "request line")


def _bad_header(raw: bytes, start: int) -> Problem:
    """What is wrong with the first wrong header. Names it if it has a name; never tells its value."""
    good = HEADER_LINES.match(raw, start, len(raw) - 2)
    line = raw[good.end() if good is not None else start :].partition(b"\r\n")[0]
    name = _NAME.match(line)
    if line[:1] in (b" ", b"\t"):
        return malformed("a header is folded over two lines", "headers")
    if name is None or name.end() == len(line):
        return malformed("a header has no name, or no colon", "headers")
    shown = name[0].decode("ascii")
    if line[name.end() : name.end() + 1] != b":":
        return malformed("a header's name is not followed by its colon", shown)
    return malformed("a header's value has a control character, or half of a line end", shown)
