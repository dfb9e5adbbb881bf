"""Leases and evidence: whom a request is for and who sent it, in the contract and by two real searchers in turn."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from searcher_process import Searcher, started
from served import Published, publish_all

from vectorindex_operator.adapters import evidence
from vectorindex_operator.adapters.signing import Signer
from vectorindex_operator.core.internal_keys import Addressee, InternalKeys
from vectorindex_operator.core.judging.questions import Purpose, Question
from vectorindex_searcher import contract
from vectorindex_searcher.contract import InternalRequest, Sender, Target, revision_key, sign, verify
from vectorindex_searcher.serve.http.internal import InternalRequests
from vectorindex_searcher.serve.http.messages import Problem, Request
from vectorindex_searcher.serve.settings import Settings

MASTER = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
ME = Target("uid-docs", "docs-1a2b3c")
KEY = revision_key(MASTER, "uid-of-the-revision")
LEASE = InternalRequest("POST", "/v1/lease", b'{"state": "Draining", "ttlSeconds": 30}')


def sent(request: InternalRequest = LEASE, key: str = KEY, target: Target = ME, at: float = NOW) -> tuple[str, str]:
    headers = sign(key, request, target, at)
    return headers[contract.TARGET_HEADER], headers.get(contract.SIGNATURE_HEADER, "")


# ---------------------------------------------------------------- the contract


def test_keys_and_signatures_are_the_ones_in_the_documentation() -> None:
    """An image of one release checks what an operator of another signs, so these never change. Made with openssl."""
    assert KEY == "0353d5d69e3d208601c5a3da068f3bfe006eddf6d7f41465ccf2ada7b677f626"
    assert contract.key_id(MASTER) == "211fe45ef650"
    signature = "47cafe2e51e81b841b63a7a2fe4762db292a7de6513e7017379518de34c76946"
    assert sign(KEY, LEASE, ME, NOW + 0.9) == {
        "X-VectorIndex-Target": "uid-docs/docs-1a2b3c/0",
        "X-VectorIndex-Signature": f"v1 1800000000 {signature}",
    }


def test_what_is_signed_for_this_pod_is_genuine() -> None:
    target, signature = sent()
    assert target == "uid-docs/docs-1a2b3c/0"
    for late in (0, 299.9, -299.9):
        assert verify(KEY, LEASE, ME, target, signature, NOW + late) is Sender.GENUINE


@pytest.mark.parametrize("late", [301.5, -301.5, 1e9, -1e9])
def test_what_was_signed_at_another_time_is_stale(late: float) -> None:
    assert verify(KEY, LEASE, ME, *sent(), NOW + late) is Sender.STALE


@pytest.mark.parametrize(
    "me", [Target("uid-docs", "docs-other"), Target("uid-new", "docs-1a2b3c"), Target("uid-docs", "docs-1a2b3c", 1)]
)
def test_another_index_revision_or_shard_is_misdirected_also_with_its_own_key(me: Target) -> None:
    for key in (KEY, revision_key(MASTER, "another"), ""):
        assert verify(key, LEASE, me, *sent(), NOW) is Sender.MISDIRECTED


@pytest.mark.parametrize(
    "changed",
    [
        InternalRequest("GET", LEASE.path, LEASE.body),
        InternalRequest("POST", "/v1/lease?x", LEASE.body),
        InternalRequest("POST", LEASE.path, LEASE.body + b" "),
        InternalRequest("POST", LEASE.path),
        InternalRequest("POST\n/v1/lease", "", LEASE.body),
    ],
)
def test_every_part_of_the_request_is_signed(changed: InternalRequest) -> None:
    assert verify(KEY, changed, ME, *sent(), NOW) is Sender.FORGED


def test_a_signature_is_good_for_one_key_one_target_and_one_time() -> None:
    target, signature = sent()
    assert verify(revision_key(MASTER, "another"), LEASE, ME, target, signature, NOW) is Sender.FORGED
    assert verify("", LEASE, ME, target, signature, NOW) is Sender.FORGED
    other = Target("uid-docs", "docs-other")
    assert verify(KEY, LEASE, other, str(other), signature, NOW) is Sender.FORGED
    assert verify(KEY, LEASE, ME, target, signature.replace("v1 18", "v1 19"), NOW + 1e8) is Sender.FORGED


@pytest.mark.parametrize(
    "signature",
    ["", "v1", "v1 1800000000", "v2 1800000000 " + "0" * 64, "v1 now " + "0" * 64, "v1 1800000000 " + "0" * 63,
     "v1 1800000000 " + "G" * 64, "v1 -1 " + "0" * 64, "v1 " + "9" * 13 + " " + "0" * 64, "x" * 100_000],
)  # fmt: skip
def test_what_is_no_signature_counts_as_none(signature: str) -> None:
    assert verify(KEY, LEASE, ME, str(ME), signature, NOW) is Sender.UNSIGNED
    assert verify(KEY, LEASE, ME, "", sent()[1], NOW) is Sender.UNSIGNED


def test_revisions_have_keys_that_tell_nothing_of_each_other_or_of_the_master() -> None:
    keys = {revision_key(MASTER, uid) for uid in ("a", "b", "")} | {contract.key_id(MASTER)}
    assert len(keys) == 4
    assert not [key for key in keys if MASTER in key]


# ---------------------------------------------------------------- the check of a searcher


def task(target: Target = ME) -> contract.ServeTask:
    return contract.ServeTask(
        identity=contract.Identity(name="docs", uid=target.index_uid),
        revision=target.revision,
        digest="d1",
        manifest_sha256="",
        artifacts=contract.Location(folder="/nowhere"),
    )


def arrived(path: str = "/v1/lease", target: str = "", signature: str = "") -> Request:
    headers = {b"x-vectorindex-target": target.encode(), b"x-vectorindex-signature": signature.encode()}
    headers = {name: value for name, value in headers.items() if value}
    return Request(b"POST", path.encode(), headers, LEASE.body, keep_alive=True, completed=0.0)


def refusal(checks: InternalRequests, request: Request) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        checks.check(request)
    return caught.value.status, caught.value.kind


def test_with_a_key_only_what_is_signed_passes_and_probes_and_metrics_are_open() -> None:
    checks = InternalRequests(task(), KEY, clock=lambda: NOW)
    checks.check(arrived("/v1/lease", *sent()))
    for path in ("/livez", "/readyz", "/metrics", "/metrics?x=1"):
        checks.check(arrived(path))
    for path in ("/", "/v1", "/v2/anything", "/metrics/more", "/livez/..", "/%6Divez"):  # none is public by mistake
        assert refusal(checks, arrived(path)) == (401, "SignatureNeeded"), path
    for path in ("/v1/lease", "/v1/evidence", "/v1/evidence?since=0", "/v1/later", "/", "/metrics/"):
        assert refusal(checks, arrived(path)) == (401, "SignatureNeeded")
    assert refusal(checks, arrived("/v1/lease", *sent(at=NOW - 400))) == (403, "StaleSignature")
    assert refusal(checks, arrived("/v1/lease", *sent(key=MASTER))) == (403, "ForgedSignature")
    assert refusal(checks, arrived("/v1/lease", *sent(key=""))) == (401, "SignatureNeeded")
    assert refusal(checks, arrived("/v1/lease", *sent(target=Target("x", "y")))) == (421, "MisdirectedRequest")


def test_without_a_key_unsigned_requests_pass_and_misdirected_ones_do_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    checks = InternalRequests(task())
    checks.announce()
    assert "whoever reaches the admin port" in caplog.text
    for headers in (("", ""), sent(key=""), sent(), (str(ME), "nonsense")):
        checks.check(arrived("/v1/lease", *headers))
    assert refusal(checks, arrived("/v1/lease", *sent(target=Target("x", "y")))) == (421, "MisdirectedRequest")


@pytest.mark.parametrize("path", ["/v1/live-queries?age=0&pod=10.0.0.1", "/v1/mirror", "/v1/shadow"])
def test_without_a_key_nothing_goes_out_or_comes_in_of_what_users_ask(path: str) -> None:
    asked = InternalRequest("POST", path, LEASE.body)
    for headers in (("", ""), *(sent(asked, key) for key in ("", KEY, contract.shadow_key(""), contract.live_key("")))):
        assert refusal(InternalRequests(task()), arrived(path, *headers)) == (403, "KeyNeeded")


def test_a_key_shows_in_no_log_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    settings = Settings.from_environment({contract.INTERNAL_KEY_ENV: KEY})
    assert settings.internal_key == KEY
    assert KEY not in repr(settings)
    checks = InternalRequests(task(), KEY, clock=lambda: NOW)
    checks.announce()
    for headers in (("", ""), sent(key=MASTER), sent(at=0), sent(target=Target("x", "y"))):
        with pytest.raises(Problem) as caught:
            checks.check(arrived("/v1/lease", *headers))
        right = sign(KEY, LEASE, ME, NOW)[contract.SIGNATURE_HEADER].split()[-1]
        assert KEY.encode() not in caught.value.response("r").body
        assert right.encode() not in caught.value.response("r").body
    assert KEY not in caplog.text + str([vars(record) for record in caplog.records])


# ---------------------------------------------------------------- two searchers, one address


@contextmanager
def serving(published: Published, target: Target, key: str, admin_port: int = 0, **more: str) -> Iterator[Searcher]:
    identity = published.task.identity.model_copy(update={"uid": target.index_uid})
    asked = published.task.model_copy(update={"identity": identity, "revision": target.revision})
    environment = {contract.INTERNAL_KEY_ENV: key, "VECTORINDEX_ADMIN_PORT": str(admin_port)} | more
    with started(asked, **environment) as searcher:
        searcher.port()
        yield searcher


def ask(port: int, request: InternalRequest, headers: dict[str, str]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_all(tmp_path_factory.mktemp("artifact"), ef_search=300)


def test_a_pod_that_got_the_address_of_another_takes_none_of_its_requests(published: Published) -> None:
    """An operator whose list of pods lags behind tells "you lost the traffic" to whoever has the address now."""
    old, new = Target("uid-a", "a-1"), Target("uid-b", "b-1")
    old_key, new_key = revision_key(MASTER, "a"), revision_key(MASTER, "b")
    counts = InternalRequest("GET", "/v1/evidence?since=0")
    with serving(published, old, old_key) as searcher:
        port = searcher.port("admin port open")
        for request in (LEASE, counts):
            status, answer = ask(port, request, sign(old_key, request, old, time.time()))
            assert (status, answer["revision"]) == (200, "a-1")
            assert ask(port, request, {})[0] == 401
    with serving(published, new, new_key, admin_port=port) as searcher:
        assert searcher.port("admin port open") == port
        for request in (LEASE, counts):
            for key in (old_key, new_key, ""):
                status, answer = ask(port, request, sign(key, request, old, time.time()))
                assert (status, answer["type"]) == (421, "urn:vectorindex:problem:MisdirectedRequest")
                assert "uid-b/b-1/0" in answer["detail"]
        assert ask(port, InternalRequest("GET", "/readyz"), {})[1]["lease"] == "Serving"
        assert ask(port, counts, sign(new_key, counts, new, time.time()))[0] == 200


def test_the_operator_gets_evidence_and_delivers_leases_by_its_key_alone(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    """Operator and searcher as they are, over a real connection."""
    caplog.set_level("INFO")
    keys, name = InternalKeys(MASTER, "o" * 32), contract.key_id(MASTER)
    pods = [("pod-1", "127.0.0.1")]

    def lease(port: int) -> str:
        return str(ask(port, InternalRequest("GET", "/readyz"), {})[1]["lease"])

    with serving(published, ME, revision_key(MASTER, "uid-1")) as searcher:
        port = searcher.port("admin port open")
        operator = evidence.HttpSearchers(Signer(keys), admin_port=port)
        question = Question(ME.revision, 0.0, Purpose.SOAK)
        draining = contract.TrafficLease(state=contract.LeaseState.DRAINING)
        for stranger in (
            Addressee(ME, "uid-2", name),
            Addressee(ME, "uid-1", contract.key_id("o" * 32)),
            Addressee(ME, "uid-1"),
            Addressee(Target("uid-docs", "docs-other"), "uid-1", name),
        ):
            (silent,) = operator.evidence(stranger, pods, question).result()
            assert silent.evidence is None or silent.evidence.revision != ME.revision
            operator.tell(stranger, ["127.0.0.1"], draining).result()
            assert lease(port) == "Serving"
        for said in ("ForgedSignature", "SignatureNeeded", "MisdirectedRequest"):
            assert said in caplog.text  # an operator that is refused must be able to find out why
        right = Addressee(ME, "uid-1", name)
        (answer,) = operator.evidence(right, pods, question).result()
        assert answer.evidence is not None
        assert answer.evidence.revision == ME.revision
        operator.tell(right, ["127.0.0.1"], draining).result()
        assert lease(port) == "Draining"
