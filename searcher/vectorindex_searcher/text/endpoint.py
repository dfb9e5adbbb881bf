"""Texts encoded by a server with the embeddings API of OpenAI: TEI, vLLM, Ollama, KServe and others.

A request has a time budget in all, whatever drips; the answer is bounded in size and checked: as many vectors as texts,
of the index's dimension. No redirect is followed and no proxy used: texts, and the token, go to the URL that the
manifest names and nowhere else.
"""

from __future__ import annotations

import http.client
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np
import orjson

from ..contract import EmbeddingsEndpoint
from ..errors import BadSpec
from .breaker import NOT_ASKED, Breaker
from .encoder import Encoded, EncoderError, EncoderUnavailableError, Side, Vectors

BUDGET_SECONDS = 2.0
"""Of all calls for a query's texts, from the connection to the last byte. Of each call for texts of rows."""
MOST_TEXTS = 32
"""Of one call: what servers take by default."""
MOST_CHARACTERS = 8192
"""Of one call, unless a single text has more: as much as one text of a query may have."""
PROBE = "a text"
"""Of ours: what shows whether the server fails, or only somebody's texts do."""
SHORT_CHARACTERS = 256
"""Of a call that no server may fail at: without a probe it counts as a failure."""
LONGEST_WAIT = 30
"""Seconds that a server may ask for by Retry-After."""
NUMBER_BYTES = 32
"""That a number of the answer may take, as text with all around it."""
_SPARE_BYTES = 64 << 10
_TEXT_FAULTS = frozenset({400, 413, 422})
"""Answers by which a server refuses a text; every other one is about the server."""


class _RefusedError(Exception):
    """The server took the texts for wrong."""


class _BusyError(EncoderUnavailableError):
    """The server is well, and has too much to do: 429."""


class EndpointEncoder:
    """A server by its URL. Connections are kept, and belong to one call at a time and to one process."""

    max_tokens = 0
    nbytes = 0

    def __init__(
        self,
        place: EmbeddingsEndpoint,
        prefixes: Mapping[Side, str | None],
        dimension: int,
        *,
        token: str = "",
        ca_pem: str = "",
        budget: float = BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ca_pem`: whom to trust besides the system's; empty: nobody. Raises BadSpec for a bad token or CA."""
        self.dimension = dimension
        self._model, self._budget, self._clock = place.model, budget, clock
        self._prefixes = {side: prefixes.get(side) or "" for side in Side}
        parts = urlsplit(place.url)
        self._address, self._path = (parts.hostname or "", parts.port), parts.path or "/"
        self._tls = _tls(ca_pem) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            if not token.isascii() or not token.isprintable():
                raise _bad("TOKEN", "is no word of printable ASCII")
            self._headers["Authorization"] = f"Bearer {token}"
        self._breaker = Breaker(clock)
        self._idle: list[http.client.HTTPConnection] = []
        self._process = os.getpid()

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """As Encoder. A text that the server refuses has a vector of NaN."""
        prefix = self._prefixes[side]
        ends, parts = self._end(), []
        for call in _calls([prefix + text for text in texts]):
            parts.append(self._encode(call, ends))
            if side is Side.DOCUMENT:
                ends = self._end()  # of a Job: nobody waits for an answer
        return Encoded(np.concatenate(parts), (False,) * len(texts))

    def _end(self) -> float:
        return time.monotonic() + self._budget

    def _encode(self, texts: list[str], ends: float) -> Vectors:
        try:
            return self._ask(texts, ends)
        except _RefusedError:
            if len(texts) == 1:
                return np.full((1, self.dimension), np.nan, np.float32)
        # One of them is at fault: the others shall not be refused with it.
        half = len(texts) // 2
        return np.concatenate([self._encode(texts[:half], ends), self._encode(texts[half:], ends)])

    def _ask(self, texts: list[str], ends: float) -> Vectors:
        """One call. Only a server that fails at short texts has failed: nobody's long ones keep others from it."""
        if self._breaker.enter() and not self._tried(ends):
            raise EncoderUnavailableError(NOT_ASKED)
        left = ends - time.monotonic()
        if left <= 0:
            raise EncoderUnavailableError(f"no answer within {self._budget:g} s")
        short = sum(map(len, texts)) <= SHORT_CHARACTERS and left > self._budget / 2
        try:
            found = self._call(texts, ends)
        except _RefusedError:
            self._breaker.succeeded()
            raise
        except _BusyError:
            raise
        except BaseException:
            if short:
                self._breaker.failed()
            else:
                self._tried(self._end())
            raise
        self._breaker.succeeded()
        return found

    def _tried(self, ends: float) -> bool:
        """Whether the server answers a text of ours; the breaker knows then."""
        try:
            self._call([PROBE], ends)
        except (_RefusedError, _BusyError):
            pass
        except (EncoderError, EncoderUnavailableError):
            self._breaker.failed()
            return False
        except BaseException:
            self._breaker.failed()
            raise
        self._breaker.succeeded()
        return True

    def _call(self, texts: list[str], ends: float) -> Vectors:
        """Raises _RefusedError, _BusyError, EncoderError, EncoderUnavailableError."""
        try:
            status, body, wait = self._exchange(self._request(texts), len(texts), ends)
        except (OSError, http.client.HTTPException) as error:
            raise EncoderUnavailableError(f"the encoder's endpoint: {type(error).__name__}: {error}") from None
        if status in _TEXT_FAULTS:
            raise _RefusedError
        if status == 429:
            raise _BusyError("the encoder's endpoint answers 429", _wait(wait))
        if status != 200:
            raise EncoderUnavailableError(f"the encoder's endpoint answers {status}")
        return self._read(body, len(texts))

    def _request(self, texts: list[str]) -> bytes:
        named = {"model": self._model} if self._model else {}
        return orjson.dumps({**named, "input": texts, "encoding_format": "float"})

    def close(self) -> None:
        """Close what is idle."""
        while (kept := self._kept()) is not None:
            kept.close()

    # ------------------------------------------------------------ the wire

    def _exchange(self, body: bytes, count: int, ends: float) -> tuple[int, bytes, str]:
        """Status, body and Retry-After of an answer, by the end. A kept connection that the server has closed meanwhile
        is made anew, once: to encode the same again changes nothing."""
        kept = self._kept()
        if kept is not None:
            with suppress(http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                return self._once(kept, body, count, ends)
        return self._once(self._new(), body, count, ends)

    def _kept(self) -> http.client.HTTPConnection | None:
        if self._process != os.getpid():
            # After a fork: two processes on one connection would get each other's vectors.
            self._idle, self._process = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._budget)
        return http.client.HTTPSConnection(host, port, timeout=self._budget, context=self._tls)

    def _once(
        self, connection: http.client.HTTPConnection, body: bytes, count: int, ends: float
    ) -> tuple[int, bytes, str]:
        most = count * self.dimension * NUMBER_BYTES + _SPARE_BYTES
        late = threading.Timer(max(ends - time.monotonic(), 0.001), _cut, (connection,))
        late.daemon = True
        late.start()
        keep = False
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            data = response.read(most + 1)
            if len(data) > most:
                raise EncoderError(f"the encoder's endpoint answers more than {most} bytes")
            if time.monotonic() >= ends:
                raise TimeoutError
            keep = not response.will_close
            return response.status, data, response.getheader("Retry-After", "")
        except (OSError, http.client.HTTPException):
            if time.monotonic() >= ends:
                raise TimeoutError(f"no answer within {self._budget:g} s") from None
            raise
        finally:
            late.cancel()
            if keep:
                self._idle.append(connection)
            else:
                connection.close()

    # ------------------------------------------------------------ the answer

    def _read(self, body: bytes, count: int) -> Vectors:
        try:
            rows = orjson.loads(body)["data"]
            places = [row["index"] for row in rows]
            numbers = [row["embedding"] for row in rows]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise EncoderError("the encoder's endpoint answers no embeddings in the form of OpenAI's API") from None
        if sorted(places) != list(range(count)):
            raise EncoderError(f"the encoder's endpoint answers {len(places)} embeddings to {count} texts")
        vectors = np.empty((count, self.dimension), np.float32)
        for place, row in zip(places, numbers, strict=True):
            if not isinstance(row, list) or len(row) != self.dimension:
                size = len(row) if isinstance(row, list) else 0
                raise EncoderError(f"the encoder's endpoint answers {size} numbers, the index has {self.dimension}")
            try:
                vectors[place] = row
            except (TypeError, ValueError):
                raise EncoderError("the encoder's endpoint answers vectors that are not of numbers") from None
        return vectors


def _calls(texts: list[str]) -> Iterator[list[str]]:
    """The texts of each call, in their order."""
    call: list[str] = []
    for text in texts:
        if call and (len(call) == MOST_TEXTS or sum(map(len, call)) + len(text) > MOST_CHARACTERS):
            yield call
            call = []
        call.append(text)
    yield call


def _wait(said: str) -> float:
    """Seconds of a Retry-After; a date counts as none."""
    return float(min(max(int(said), 1), LONGEST_WAIT)) if said.isascii() and said.isdigit() and len(said) < 9 else 1.0


def _cut(connection: http.client.HTTPConnection) -> None:
    """The budget is spent: whoever reads or writes finds an end."""
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _tls(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_pem:
        try:
            context.load_verify_locations(cadata=ca_pem)
        except (ssl.SSLError, ValueError):
            raise _bad("CA_PEM", "is no certificate in PEM") from None
    return context


def _bad(name: str, problem: str) -> BadSpec:
    field = "spec.embedding.encoder.endpoint.tokenSecretRef"
    return BadSpec(
        "BadEndpoint", f"{name} of the encoder's Secret {problem}", field=field, remedy=f"Write {name} anew."
    )


class Rechecked:
    """An endpoint that is compared with the gate's vectors again and again: behind its URL there may be another model
    tomorrow. While it deviates, nobody gets its vectors."""

    def __init__(
        self,
        encoder: EndpointEncoder,
        check: Callable[[], object],
        *,
        seconds: float = 300.0,
        again: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check`: raises an Exception where it deviates. Was just called. `seconds`: until it is called again, by who
        comes then; `again`: while it deviates."""
        self._encoder, self._check, self._clock = encoder, check, clock
        self._seconds, self._again = seconds, again
        self.dimension, self.max_tokens, self.nbytes = encoder.dimension, encoder.max_tokens, encoder.nbytes
        self._lock = threading.Lock()
        self._due = clock() + seconds
        self._wrong = ""

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """As Encoder."""
        if self._clock() >= self._due and self._lock.acquire(blocking=False):
            try:
                self._compare()
            finally:
                self._lock.release()
        if self._wrong:
            left = math.ceil(max(self._due - self._clock(), 1.0))
            raise EncoderUnavailableError(f"the encoder is another one than the gate proved: {self._wrong}", left)
        return self._encoder.encode(texts, side)

    def close(self) -> None:
        """As Encoder."""
        self._encoder.close()

    def _compare(self) -> None:
        try:
            self._check()
        except EncoderUnavailableError:
            self._due = self._clock() + self._again  # nothing was seen
            raise
        except Exception as error:
            self._wrong, self._due = str(error)[:300], self._clock() + self._again
        else:
            self._wrong, self._due = "", self._clock() + self._seconds
