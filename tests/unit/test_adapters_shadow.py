"""Shadows over real sockets: what is asked of pods and how it is signed, and what is made of their answers."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from pods_on_sockets import Handler, answering, dripping, received, server

from vectorindex_operator.adapters.admin_port import AdminPort
from vectorindex_operator.adapters.evidence import HttpSearchers
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.judging.shadow import PodPairs
from vectorindex_searcher.contract import (
    MIRROR_PATH,
    PAIRS_BYTES,
    SIGNATURE_HEADER,
    TARGET_HEADER,
    InternalRequest,
    MirrorLease,
    Sender,
    Target,
    key_id,
    open_shadow_key,
    revision_key,
    shadow_key,
    verify,
)

MASTER = "a master key of 32 characters..."
SHADOW = "docs-1a2b-1800000000"


def addressee(revision: str) -> Addressee:
    return Addressee(Target("uid-docs", revision), f"uid-{revision}", key_id(MASTER))


STABLE, CANDIDATE = addressee("docs-stable"), addressee("docs-candidate")


def searchers(port: int, held: int = 64 << 20) -> HttpSearchers:
    return HttpSearchers(Signer(InternalKeys(MASTER)), AdminPort(held_bytes=held), admin_port=port)


def rows(count: int) -> list[Any]:
    return [{"bucket": int(time.time() // 5) - number, "segment": "", "pairs": 7} for number in range(count)]


def document(counted: list[Any] | None = None, **changes: Any) -> bytes:
    whole = {"pod": "p", "revision": "docs-candidate", "incarnation": "i", "now": time.time(), "shadow": SHADOW}
    return json.dumps(whole | {"rows": rows(1) if counted is None else counted} | changes).encode()


def asked(handler: Handler, held: int = 64 << 20) -> PodPairs:
    """What one pod of the candidate tells."""
    with server(handler) as port:
        (one,) = searchers(port, held).pairs(CANDIDATE, [("pod-1", "127.0.0.1")], SHADOW).result(60)
    return one


def header(head: bytes, name: str) -> str:
    lines = (line.partition(b": ") for line in head.split(b"\r\n"))
    return next(value.decode() for key, _, value in lines if key.decode().lower() == name.lower())


def test_pairs_are_asked_for_by_the_shadow_and_signed_for_the_revision() -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        answering(document())(connection, head)

    one = asked(handle)
    assert one.counts is not None
    ((_, sums),) = one.counts[""]
    assert (one.pod, one.problem, sums.pairs) == ("pod-1", "", 7)
    (head,) = heads
    path = head.split(b" ")[1].decode()
    assert path == f"/v1/pairs?shadow={SHADOW}"
    sent = header(head, TARGET_HEADER), header(head, SIGNATURE_HEADER)
    key = revision_key(MASTER, "uid-docs-candidate")
    assert verify(key, InternalRequest("GET", path), CANDIDATE.target, *sent, time.time()) is Sender.GENUINE


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -100.0])
def test_a_clock_of_its_own_moves_no_pair_to_another_time(ahead: float) -> None:
    now = time.time()
    counted = [{"bucket": int((now + ahead) // 5), "segment": "", "pairs": 1}]
    one = asked(answering(document(counted, now=now + ahead)))
    assert one.counts is not None
    ((at, _),) = one.counts[""]
    assert abs(at - int(now // 5)) <= 1


def test_a_pod_that_knows_no_shadow_is_told_from_one_that_is_silent() -> None:
    old = asked(answering(b'{"title": "NotFound"}', status="404 Not Found"))
    assert (old.counts, old.unable) == (None, True)
    busy = asked(answering(b"{}", status="503 Service Unavailable"))
    assert (busy.counts, busy.unable, "503" in busy.problem) == (None, False, True)


@pytest.mark.parametrize(("body", "said"), [
    (document(revision="docs-another"), "docs-another"),
    (document(shadow="of yesterday"), "of yesterday"),
    (document(now=float("nan")), "clock"),
    (document(pod=7), "pod"),
    (b"[1, 2]", "not an object"),
    (b'{"rows": [' + b"{}," * 30_000 + b"{}]}", "objects and lists"),
])  # fmt: skip
def test_what_is_no_evidence_of_this_shadow_is_none(body: bytes, said: str) -> None:
    one = asked(answering(body))
    assert (one.counts, one.unable) == (None, False)
    assert said in one.problem


def test_an_answer_that_is_too_long_or_too_slow_is_none() -> None:
    assert "larger than" in asked(answering(b" " * (PAIRS_BYTES + 1))).problem
    began = time.monotonic()
    assert "no whole answer" in asked(dripping()).problem
    assert time.monotonic() - began < 10.0


def test_what_pods_tell_is_bounded_together() -> None:
    one = asked(answering(document(rows(3000))), held=1 << 20)
    assert (one.counts, "left for it" in one.problem) == (None, True)


def test_the_lease_brings_the_key_for_those_who_send_and_for_nobody_else() -> None:
    heard: list[tuple[bytes, bytes]] = []

    def handle(connection: socket.socket, head: bytes) -> None:
        head, _, body = head.partition(b"\r\n\r\n")
        while not body.endswith(b"}"):
            body = received(connection, body, b"}")
        heard.append((head, body))
        answering(b"{}")(connection, head)

    lease = MirrorLease(revision="docs-candidate", addresses=("10.0.0.1",), max_per_second=25.0, shadow=SHADOW)
    with server(handle) as port:
        searchers(port).mirror(STABLE, ["127.0.0.1"], CANDIDATE, lease).result(60)
    ((head, body),) = heard
    sent = MirrorLease.model_validate_json(body)
    mine = revision_key(MASTER, "uid-docs-stable")
    assert open_shadow_key(sent.sealed_key, mine) == shadow_key(revision_key(MASTER, "uid-docs-candidate"))
    assert sent == lease.model_copy(update={"sealed_key": sent.sealed_key})
    assert "senderJudged" not in json.loads(body), "images of before refuse it"
    assert shadow_key(revision_key(MASTER, "uid-docs-candidate")) not in body.decode()
    signed = header(head, TARGET_HEADER), header(head, SIGNATURE_HEADER)
    request = InternalRequest("POST", MIRROR_PATH, body)
    assert verify(mine, request, STABLE.target, *signed, time.time()) is Sender.GENUINE


def test_without_a_master_key_nothing_is_sealed() -> None:
    plain = Addressee(Target("uid-docs", "r"), "uid-r")
    assert Signer().seal(plain, plain) == ""


def test_revisions_speak_to_each_other_if_each_has_a_key() -> None:
    keys = InternalKeys(MASTER)
    old = Addressee(Target("uid-docs", "old"), "uid-old")
    assert (keys.has_all(STABLE, CANDIDATE), keys.has_all(old, CANDIDATE), keys.has_all(old, old)) == (
        True,
        False,
        False,
    )
