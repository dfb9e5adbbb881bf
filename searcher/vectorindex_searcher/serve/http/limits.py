"""What clients may take: of a port bytes, connections and seconds, of one request a budget of work; and how ports share
the process's descriptors.
"""

from __future__ import annotations

import errno
import logging
import resource
from dataclasses import dataclass, replace
from pathlib import Path

from ... import contract

MAX_K = 1000
MAX_VECTORS = 256
"""Vectors in one request: a batch is one piece of work and must not hold up the others for long."""
MAX_TEXTS = 32
"""Texts in one request: to encode one costs as much as a hundred searches."""
MAX_TEXT_CHARACTERS = 8192
"""Of one text. All of a request lie in a body of LOOP_BYTES."""
QUEUE_TEXTS = 256
"""That may wait to be encoded, of all requests together; one request is always let in when none waits."""
ENCODED_ENTRIES, ENCODED_BYTES = 4096, 16 << 20
"""Of the cache of texts and their vectors."""
MAX_DEADLINE_MS = 600_000
MAX_NAME_CHARACTERS = 256

CANDIDATES = 4 << 20
"""Of one request: rows that its search holds while it runs, vectors x k x refine factor (and, where lists are searched,
vectors x lists). A second or two of one core. A budget of work, not of counts: one vector may ask for what 256 may not.
"""
SLICE_CANDIDATES = 256 << 10
"""Searched in one call of FAISS: the budget bounds time, the slice memory."""
CANDIDATE_BYTES = 48
"""What FAISS and numpy hold of each: number and distance, twice."""
LIGHT_CANDIDATES = 20 << 10
"""In one call of searches that are in no budget: one thread holds a megabyte for them. Larger ones: WORK_BYTES."""
WORK_BYTES = 80 << 20
"""What all searches that run may hold: one of the greatest work with the longest answer, or many of the usual size."""
ANSWER_BYTES = 16 << 20
"""Body of one answer: 256 x 1000 hits with ids of 36 characters fit."""
LOOP_BYTES = 80 << 10
"""Of JSON that the event loop decodes by itself, in 0.2 ms (1 ms if it is nothing but empty objects): a vector of 3,072
numbers as people write them. A longer body is read on a search thread."""
FEEDBACK_BYTES = 8 << 10
"""Body of one feedback, which the event loop decodes: a query id and a thousand ranks fit."""
PLAN_ENTRIES = 2048
PLAN_BYTES = 8 << 20
"""Of the cache of plans: what was asked before, without vectors."""

ROWS_BYTES = 32 << 20
"""Of the cache of filters' rows (index/predicates.py), with their predicates."""
SHADOW_HELD_BYTES = 24 << 20
"""Of a shadow (serve/shadow/), on the one side or the other: what waits, what is under way, and its counts."""
SHADOW_WORKER_BYTES = 18 << 20
"""Of it in each of several processes: requests of which it answers its part, eight at once, as bytes and as parts."""
SPARE_BYTES = 64 << 20
"""For what the allocator keeps, and the objects of one long request while it is read."""

READING_TIMES = 4
"""What a long JSON body takes beside itself while it is read: two letters may be a number of four bytes, once in parts
and once together."""

SEND_BYTES = 64 << 10
"""Of a connection's answers that the kernel takes at once; it would take 4 MiB. Long answers cost no more CPU for it;
with half of it they wait 40 ms for each acknowledgement."""
RECEIVE_BYTES = 32 << 10
"""Of a connection's requests that lie in the kernel while they are not read; it would take 6 MiB."""
UNCOUNTED_BYTES = 16 << 10
"""What a connection may leave unread before it counts, and have read in advance: thousands of them may."""
CONNECTION_BYTES = 2 * (SEND_BYTES + RECEIVE_BYTES + UNCOUNTED_BYTES)
"""Of a connection at most, besides what is counted: Linux keeps twice the buffers that it was asked for."""

MOST_THREADS = 64
"""Of searches, unless they are said: so many have room in the memory that the operator gives."""
THREAD_BYTES = 2 << 20
"""What a search thread holds besides WORK_BYTES: light searches, and their answers."""

SPARE_DESCRIPTORS = 96
"""For what is no connection: files, downloads, and connections that are closing while others are accepted."""
MAX_DESCRIPTORS = 65_536
"""More than two full ports need; some systems call their limit infinite."""
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept that pass once something else is closed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take. Bytes and seconds."""

    body_bytes: int = 8 << 20
    header_bytes: int = 16 << 10
    """Request line and headers; and, of a chunked body, all that is no data: sizes, extensions, trailers."""
    header_lines: int = 128
    chunks: int = 16_384
    """Of a body: each costs as much as a small request."""
    connections: int = 2048
    """When there are more, those that are least in use make room."""
    held_bytes: int = 64 << 20
    """Of requests that arrived, whole or in part, and are not answered; all connections together."""
    unread_bytes: int = 64 << 20
    """Of answers that clients have not taken yet; all connections together."""
    read_seconds: float = 15.0
    """From the first byte of a request to its last."""
    write_seconds: float = 30.0
    """How long a client may leave its answer unread."""
    age_seconds: float = contract.KEEP_ALIVE_SECONDS
    """Age at which a connection closes after its answer, with jitter so that they do not all return at once."""
    idle_seconds: float = 120.0
    """Longer than clients keep idle connections (Go 90 s): the server closing first can cross with a new query."""
    linger_seconds: float = 2.0
    """How long a connection whose last answer was taken goes on dropping the client's bytes, waiting for its end."""
    turn_seconds: float = 0.005
    """What all connections together may take of one turn of the event loop, give or take a request."""
    sweep_seconds: float = 1.0
    """How often the limits on time are looked at."""
    handshake_seconds: float = 10.0
    """TLS: from the connection to the end of its handshake."""


TLS_CONNECTIONS = 512
TLS_CONNECTION_BYTES = 448 << 10
"""Of memory that a connection by TLS keeps once it sent a long request, idle too: the event loop's buffers, 256 KiB of
them, and OpenSSL's. One in clear takes 4 KB."""

ADMIN = Limits(body_bytes=contract.SHADOW_BYTES, connections=256, held_bytes=16 << 20, unread_bytes=16 << 20)


def heap_bytes(threads: int, *, tls: bool = False, processes: int = 1, encodes: bool = False) -> int:
    """How much a searcher itself grows at most after its start, whatever is asked of it. `threads`: that search, of all
    processes together; `tls`: of its users; `processes`: that answer them; `encodes`: whether they take texts (what the
    model itself takes is not in it).

    A test keeps it to that, with one process and with several.
    """
    users = share_limits(Limits(), processes)
    ports = processes * (users.held_bytes + users.unread_bytes) + ADMIN.held_bytes + ADMIN.unread_bytes
    caches = processes * (PLAN_BYTES + SPARE_BYTES) + ROWS_BYTES + SHADOW_HELD_BYTES
    if processes > 1:
        caches += processes * SHADOW_WORKER_BYTES
    if encodes:
        caches += processes * ENCODED_BYTES
    by_tls = TLS_CONNECTIONS * TLS_CONNECTION_BYTES if tls else 0
    return ports + processes * WORK_BYTES + caches + threads * THREAD_BYTES + by_tls


def growth_bytes(threads: int, *, tls: bool = False, processes: int = 1) -> int:
    """The same with what the kernel holds for its connections, which counts as the pod's memory, too.

    With what a process needs by itself it stays below the limit of a pod whose memory the operator computes, for
    MOST_THREADS threads (a test compares).
    """
    users = TLS_CONNECTIONS if tls else Limits().connections
    return heap_bytes(threads, tls=tls, processes=processes) + (users + ADMIN.connections) * CONNECTION_BYTES


def raise_descriptors() -> int:
    """Raise the soft limit on open files to the hard one (at most MAX_DESCRIPTORS); the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            _log.warning("the limit on open files stays", extra={"limit": soft, "problem": str(error)})
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def share_descriptors(descriptors: int, used: int, *, tls: bool = False) -> tuple[Limits, Limits]:
    """Limits of the user port and of the admin port, so that both full ports still leave descriptors to spare.

    `descriptors`: the process's limit; `used`: open now; `tls`: of the user port. The admin port's come first:
    without them the kubelet takes a full pod for a dead one.
    """
    free = max(descriptors - used - SPARE_DESCRIPTORS, 16)
    admin = min(ADMIN.connections, free // 2)
    wanted = TLS_CONNECTIONS if tls else Limits().connections
    users = min(wanted, free - admin)
    if users < wanted:
        extra = {"connections": users, "openFiles": descriptors, "wanted": wanted}
        _log.warning("fewer connections than usual: the limit on open files (ulimit -n) is low", extra=extra)
    return replace(Limits(), connections=users), replace(ADMIN, connections=admin)


def share_limits(whole: Limits, processes: int) -> Limits:
    """What each of several processes may take of the limits of a port, so that they take no more together. Each has
    room for a few of the longest requests and answers."""
    return replace(
        whole,
        connections=-(-whole.connections // processes),
        held_bytes=max(whole.held_bytes // processes, 2 * whole.body_bytes),
        unread_bytes=max(whole.unread_bytes // processes, 2 * ANSWER_BYTES),
    )


def open_descriptors() -> int:
    """How many descriptors this process has open; a guess where the system does not tell."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:
        return 64
