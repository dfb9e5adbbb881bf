"""Object stores that are not what they should be: each a real HTTP server with one fault, found out and named."""

from __future__ import annotations

import io
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import trustme
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    SSLError,
)

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.build.task import build
from vectorindex_searcher.cli.flag_names import for_a_person
from vectorindex_searcher.cli.flags import parser
from vectorindex_searcher.contract import S3, BuildTask, CollectTask, ExitCode, Identity, IndexSpec, Location
from vectorindex_searcher.errors import BadSpec, SourceChanged, TaskError
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.s3 import S3Store
from vectorindex_searcher.storage.store import Role, open_store, parse_location, require_exclusive_put


class FaultyS3:
    """Objects in memory, as S3 answers them, but for the fault that a test switches on."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuses: tuple[int, str] | None = None
        self.ignores: frozenset[str] = frozenset()
        self.breaks_after = 0
        self.without_conditions = False
        self.seen: list[tuple[str, str, bool]] = []
        """Method, path without its query, and whether it was signed."""
        self.uploads: list[str] = []
        """Keys of unfinished uploads, begun in 2020."""
        self.aborted: list[str] = []
        self.locked: set[str] = set()
        """Keys of objects that nobody may remove."""
        self.taken: set[str] = set()
        """Keys of objects and uploads that somebody else removes at the very moment."""
        self.batches: list[int] = []
        """Sizes of the lists of objects that were to be removed at once."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[tuple[FaultyS3, str]]:
    state = FaultyS3()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, code: int, body: bytes = b"", cut: int = 0, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: cut or None])
            if cut:
                self.close_connection = True

        def error(self, status: int, code: str) -> None:
            self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

        def do(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.seen.append((self.command, path, "Authorization" in self.headers))
            if state.refuses:
                return self.error(*state.refuses)
            return getattr(self, f"do_{self.command.lower()}")(path, query, body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do  # noqa: N815 - http.server's names

        def do_put(self, path: str, query: str, body: bytes) -> None:
            if self.headers.get("If-None-Match") and "If-None-Match" not in state.ignores:
                if state.without_conditions:
                    return self.error(501, "NotImplemented")
                if path in state.objects:
                    return self.error(412, "PreconditionFailed")
            state.objects[path] = body
            return self.answer(200, ETag='"v1"')

        def do_get(self, path: str, query: str, body: bytes) -> None:
            if "uploads" in query:
                rows = "".join(
                    f"<Upload><Key>{key}</Key><UploadId>u</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload>"
                    for key in state.uploads
                )
                return self.answer(200, f"<ListMultipartUploadsResult>{rows}</ListMultipartUploadsResult>".encode())
            if "list-type" in query:
                return self.answer(200, page_of(state, parse_qs(query)))
            if path not in state.objects:
                return self.error(404, "NoSuchKey")
            data, asked = state.objects[path], self.headers.get("Range", "")
            cut, state.breaks_after = state.breaks_after, 0
            if not asked or "Range" in state.ignores:
                return self.answer(200, data, cut, ETag='"v1"')
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            said = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            return self.answer(206, part, cut, ETag='"v1"', Content_Range=said)

        def do_head(self, path: str, query: str, body: bytes) -> None:
            self.answer(200 if path in state.objects else 404, ETag='"v1"')

        def do_post(self, path: str, query: str, body: bytes) -> None:
            asked = re.findall("<Key>(.*?)</Key>", body.decode())
            state.batches.append(len(asked))
            if "DeleteObjects" in state.ignores:
                return self.error(501, "NotImplemented")
            for key in set(asked) - state.locked:
                state.objects.pop(f"/bucket/{key}", None)
            rows = "".join(
                f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
                for key in asked
                if key in state.locked
            )
            return self.answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())

        def do_delete(self, path: str, query: str, body: bytes) -> None:
            if path.removeprefix("/bucket/") in state.taken:
                return self.error(404, "NoSuchUpload" if "uploadId" in query else "NoSuchKey")
            if "uploadId" in query:
                state.aborted.append(path)
            if path.removeprefix("/bucket/") in state.locked:
                return self.error(403, "AccessDenied")
            state.objects.pop(path, None)
            return self.answer(204)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state, f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def page_of(state: FaultyS3, query: dict[str, list[str]]) -> bytes:
    """A page of 1,000 keys, as S3 lists them."""
    prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    found = sorted(key.removeprefix("/bucket/") for key in list(state.objects) if key.startswith(f"/bucket/{prefix}"))
    found = [key for key in found if key > after]
    rows = "".join(f'<Contents><Key>{key}</Key><Size>1</Size><ETag>"v1"</ETag></Contents>' for key in found[:1000])
    more = f"<NextContinuationToken>{found[999]}</NextContinuationToken>" if len(found) > 1000 else ""
    truncated = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
    return f"<ListBucketResult>{truncated}{more}{rows}</ListBucketResult>".encode()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FaultyS3, str]]:
    keys(monkeypatch)
    with serving() as found:
        yield found


def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in Role:
        monkeypatch.setenv(f"{role.env_prefix}AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv(f"{role.env_prefix}AWS_SECRET_ACCESS_KEY", "key")


def store(endpoint: str, role: Role = Role.ARTIFACTS, **more: object) -> S3Store:
    return S3Store(S3(bucket="bucket", endpoint=endpoint, **more), role)  # type: ignore[arg-type]


# ---------------------------------------------------------------- refusals that pass by themselves


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "QuotaExceeded"])
def test_a_refusal_that_is_no_question_of_rights_is_tried_again_and_says_what_to_do(
    faulty: tuple[FaultyS3, str], code: str
) -> None:
    faulty[0].refuses = (403, code)
    with pytest.raises(TaskError) as caught:
        store(faulty[1]).put("k", b"x")
    assert (caught.value.reason, caught.value.exit_code) == (code, ExitCode.STORE_UNAVAILABLE)
    assert caught.value.failure.remedy


def test_a_refusal_that_nobody_knows_is_named(faulty: tuple[FaultyS3, str]) -> None:
    faulty[0].refuses = (403, "MethodNotAllowedByPolicy")
    with pytest.raises(TaskError, match="MethodNotAllowedByPolicy") as caught:
        store(faulty[1]).put("k", b"x")
    assert caught.value.reason == "AccessDenied"


# ---------------------------------------------------------------- ranges


def test_a_body_that_broke_off_is_not_continued_by_a_server_that_ignores_range(
    faulty: tuple[FaultyS3, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    state, endpoint = faulty
    state.objects["/bucket/k"] = b"0123456789"
    state.breaks_after, state.ignores = 4, frozenset({"Range"})
    with pytest.raises(TaskError) as caught:
        b"".join(store(endpoint).stream("k"))
    assert (caught.value.reason, caught.value.failure.field) == ("NoByteRanges", "spec.artifacts.s3.endpoint")
    state.breaks_after, state.ignores = 4, frozenset()
    assert b"".join(store(endpoint).stream("k")) == b"0123456789"


def test_a_part_is_not_taken_from_the_front_by_a_server_that_ignores_range(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    state.objects["/bucket/k"] = b"0123456789"
    assert store(endpoint).read("k", offset=2, length=3) == b"234"
    assert store(endpoint).read("k", offset=0, length=3) == b"012"
    state.ignores = frozenset({"Range"})
    for offset in (0, 2):
        with pytest.raises(TaskError) as caught:
            store(endpoint).read("k", offset=offset, length=3)
        assert caught.value.reason == "NoByteRanges"


def test_a_server_that_ignores_if_match_cannot_hand_over_another_version(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    state.objects["/bucket/k"] = b"new"
    with pytest.raises(SourceChanged):
        store(endpoint).read("k", etag="listed")


# ---------------------------------------------------------------- exclusive writes


@pytest.mark.parametrize("fault", ["refuses", "ignores"])
def test_a_store_without_conditional_writes_is_found_out_before_a_row_is_read(
    faulty: tuple[FaultyS3, str], tmp_path: Path, fault: str
) -> None:
    state, endpoint = faulty
    state.without_conditions = fault == "refuses"
    state.ignores = frozenset({"If-None-Match"}) if fault == "ignores" else frozenset()
    task = BuildTask(
        identity=Identity(name="n"),
        digest="d",
        source=Location(folder=str(tmp_path / "is read only later")),
        artifacts=Location(s3=S3(bucket="bucket", endpoint=endpoint)),
        index=IndexSpec(factory="Flat"),
    )
    with pytest.raises(BadSpec) as caught:
        build(task)
    assert (caught.value.reason, caught.value.exit_code) == ("NoConditionalWrites", ExitCode.BAD_SPEC)
    assert "If-None-Match" in str(caught.value)
    assert not state.objects


def test_a_store_with_conditional_writes_passes_and_nothing_stays(faulty: tuple[FaultyS3, str], tmp_path: Path) -> None:
    require_exclusive_put(store(faulty[1]), "x/probe")
    folder = FolderStore(tmp_path, Role.ARTIFACTS)
    require_exclusive_put(folder, "x/probe")
    assert (faulty[0].objects, list(folder.list(""))) == ({}, [])


# ---------------------------------------------------------------- leftovers of killed uploads


def anybody(key: str) -> bool:
    return bool(key)


def test_parts_of_killed_uploads_of_this_index_are_removed_and_no_others(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    state.uploads = ["team/docs/d/attempt/index.faiss", "team/docs2/d/attempt/index.faiss"]
    assert store(endpoint).discard_unfinished("team/docs", 86_400, ours=anybody) == 1
    assert state.aborted == ["/bucket/team/docs/d/attempt/index.faiss"]
    assert store(endpoint).discard_unfinished("team/docs", 1e10, ours=anybody) == 0  # not old enough


def test_what_somebody_else_removes_at_the_same_moment_is_gone_and_the_rest_goes_too(
    faulty: tuple[FaultyS3, str],
) -> None:
    """Two clusters that delete an index at once: S3 says 204 to both, others say to one that nothing is there."""
    state, endpoint = faulty
    state.uploads = ["team/docs/d/one/index.faiss", "team/docs/d/two/index.faiss"]
    state.taken = {"team/docs/d/one/index.faiss", "team/docs/d/manifest.json"}
    store(endpoint).delete("team/docs/d/manifest.json")
    assert store(endpoint).discard_unfinished("team/docs", 0, ours=anybody) == 1
    assert state.aborted == ["/bucket/team/docs/d/two/index.faiss"]


def test_a_build_removes_the_parts_that_killed_builds_of_its_index_left(
    faulty: tuple[FaultyS3, str], tmp_path: Path
) -> None:
    state, endpoint = faulty
    state.uploads = ["indexes/default/n/d/killed/index.faiss", "indexes/default/other/d/killed/index.faiss"]
    np.save(tmp_path / "x.npy", np.eye(8, dtype=np.float32))
    task = BuildTask(
        identity=Identity(namespace="default", name="n"),
        digest="d",
        source=Location(folder=str(tmp_path)),
        artifacts=Location(s3=S3(bucket="bucket", prefix="indexes", endpoint=endpoint)),
        index=IndexSpec(factory="Flat"),
    )
    build(task)
    assert "/bucket/indexes/default/n/d/manifest.json" in state.objects
    assert state.aborted == ["/bucket/indexes/default/n/d/killed/index.faiss"]


def test_a_store_that_does_not_allow_to_list_uploads_stops_nobody(faulty: tuple[FaultyS3, str]) -> None:
    faulty[0].refuses = (403, "AccessDenied")
    assert store(faulty[1]).discard_unfinished("team/docs", 0, ours=anybody) == 0


def test_temporary_files_of_killed_builds_are_removed_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "team" / "docs").mkdir(parents=True)
    (tmp_path / "team" / "docs" / ".index.faiss.x8d2").write_bytes(b"half")
    (tmp_path / "team" / "docs" / "index.faiss").write_bytes(b"whole")
    folder = FolderStore(tmp_path, Role.ARTIFACTS)
    assert folder.discard_unfinished("team/docs", 3600, ours=anybody) == 0
    assert folder.discard_unfinished("team/docs", -1, ours=anybody) == 1
    assert [item.key for item in folder.list("")] == ["team/docs/index.faiss"]


def test_uploads_that_are_not_ours_stay_and_a_dry_run_only_counts(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    state.uploads = [f"team/docs/{digest}/attempt/index.faiss" for digest in ("d1", "d10", "d2")]

    def ours(key: str) -> bool:
        return not key.startswith("team/docs/d1/")

    assert store(endpoint).discard_unfinished("team/docs", 0, ours=ours, dry_run=True) == 2
    assert state.aborted == []
    assert store(endpoint).discard_unfinished("team/docs", 0, ours=ours) == 2
    assert state.aborted == [f"/bucket/team/docs/{digest}/attempt/index.faiss" for digest in ("d10", "d2")]


# ---------------------------------------------------------------- many objects


def put_all(state: FaultyS3, *names: str) -> None:
    state.objects |= {f"/bucket/{name}": b"x" for name in names}


def test_objects_are_removed_by_the_thousand(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    names = [f"team/docs/{number:04}" for number in range(2_001)]
    put_all(state, *names, "team/other")
    assert store(endpoint).delete_many(names) == {}
    assert (state.batches, list(state.objects)) == ([1000, 1000, 1], ["/bucket/team/other"])
    assert store(endpoint).delete_many(names[:1]) == {}, "what is gone is gone"


@pytest.mark.parametrize("without", [frozenset(), frozenset({"DeleteObjects"})])
def test_what_cannot_be_removed_is_told_by_key_and_the_others_go(
    faulty: tuple[FaultyS3, str], without: frozenset[str]
) -> None:
    """Also by a server that removes one object a request."""
    state, endpoint = faulty
    state.ignores, state.locked = without, {"b"}
    put_all(state, "a", "b", "c")
    (row,) = store(endpoint).delete_many(["a", "b", "c", "never there"]).items()
    assert row[0] == "b"
    assert "AccessDenied" in row[1]
    assert list(state.objects) == ["/bucket/b"]


def test_an_index_of_no_one_goes_from_a_bucket_with_thousands_of_others(faulty: tuple[FaultyS3, str]) -> None:
    state, endpoint = faulty
    foreign = [f"team/docs{number}/d1/a-1/index.faiss" for number in range(2_500)]
    foreign += [f"team/docs/d1/notes/{number}.txt" for number in range(2_500)]
    mine = [f"team/docs/d1/a-{number}/index.faiss" for number in range(1_500)]
    put_all(state, *foreign, *mine, "team/docs/listings/f.json")
    task = CollectTask(
        identity=Identity(namespace="team", name="docs"),
        artifacts=Location(s3=S3(bucket="bucket", endpoint=endpoint)),
        everything=True,
    )
    done = collect(task)
    assert sorted(state.objects) == sorted(f"/bucket/{key}" for key in foreign)
    assert (done.artifacts, done.objects, done.left, done.unknown) == (1, 1_501, 0, 2_500)
    assert state.batches == [1000, 500, 1]
    state.refuses = (403, "AccessDenied")
    with pytest.raises(TaskError) as caught:
        collect(task)
    assert caught.value.reason == "AccessDenied"


# ---------------------------------------------------------------- endpoints and keys


@pytest.mark.parametrize("path", ["", "/", "/storage/v1/s3", "/storage/v1/s3/"])
def test_an_endpoint_may_end_in_a_slash_and_have_a_path(faulty: tuple[FaultyS3, str], path: str) -> None:
    state, endpoint = faulty
    found = parse_location("s3://bucket/p", endpoint=endpoint + path)
    open_store(found, Role.ARTIFACTS).put("p/k", b"x")
    assert [name for _, name, _ in state.seen] == [f"{path.rstrip('/')}/bucket/p/k"]


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio", "http://user:secret@minio", "http://minio?x=1"])
def test_an_endpoint_that_is_none_is_named_with_a_way_out(endpoint: str) -> None:
    with pytest.raises(BadSpec) as caught:
        parse_location("s3://bucket/p", endpoint=endpoint)
    failure = caught.value.failure
    assert (failure.reason, failure.field) == ("BadEndpoint", "--endpoint")
    assert "http://minio:9000" in (failure.remedy or "")
    assert "pattern" not in failure.message


def test_a_public_bucket_is_read_without_keys(faulty: tuple[FaultyS3, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, endpoint = faulty
    state.objects["/bucket/k"] = b"public"
    assert store(endpoint, Role.SOURCE, anonymous=True).read("k") == b"public"
    assert state.seen[-1][2] is False
    assert store(endpoint, Role.SOURCE).read("k") == b"public"
    assert state.seen[-1][2] is True


def test_without_keys_the_remedy_names_both_ways(faulty: tuple[FaultyS3, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(f"SOURCE_{name}", raising=False)
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(TaskError) as caught:
        store(faulty[1], Role.SOURCE).read("k")
    assert caught.value.reason == "InvalidCredentials"
    assert "secretRef" in (caught.value.failure.remedy or "")
    assert "anonymous" in (caught.value.failure.remedy or "")


def test_a_certificate_of_ones_own_is_refused_with_the_way_to_trust_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as (state, endpoint):
        with pytest.raises(TaskError) as caught:
            store(endpoint).put("k", b"x")
        assert (caught.value.reason, caught.value.failure.field) == (
            "CertificateNotTrusted",
            "spec.artifacts.s3.endpoint",
        )
        assert "CA_PEM" in (caught.value.failure.remedy or "")
        monkeypatch.setenv("ARTIFACTS_CA_PEM", authority.cert_pem.bytes().decode())
        store(endpoint).put("k", b"x")
        assert state.objects == {"/bucket/k": b"x"}


def test_the_field_report_of_a_store_without_if_none_match_leaves_nothing_behind(
    faulty: tuple[FaultyS3, str], tmp_path: Path
) -> None:
    """As it was reported: all was built and uploaded, then the manifest failed, and that for ever."""
    state, endpoint = faulty
    state.without_conditions = True
    buffer = io.BytesIO()
    np.save(buffer, np.eye(8, dtype=np.float32))
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    task = BuildTask(
        identity=Identity(name="n"),
        digest="d",
        source=Location(folder=str(tmp_path)),
        artifacts=Location(s3=S3(bucket="bucket", prefix="indexes", endpoint=endpoint)),
        index=IndexSpec(factory="Flat"),
    )
    with pytest.raises(BadSpec):
        build(task)
    assert not state.objects


# ---------------------------------------------------------------- what a person is told


STORE = "http://store:9000"
CODES = ("NoSuchBucket", "InvalidAccessKeyId", "PermanentRedirect", "AccessDenied", "QuotaExceeded", "Teapot")
REFUSALS: dict[str, BotoCoreError | ClientError] = {
    "no credentials": NoCredentialsError(),
    "unknown certificate": SSLError(endpoint_url=STORE, error="unknown CA"),
    "nobody there": EndpointConnectionError(endpoint_url=STORE),
    **{code: ClientError({"Error": {"Code": code, "Message": code}}, "GetObject") for code in CODES},
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", REFUSALS)
def test_a_person_at_a_terminal_is_told_flags_that_there_are(role: Role, name: str) -> None:
    """`--source.endpoint`, `--source.secretRef` and `--source.anonymous: true` were named: no verb has these."""
    verbs = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,index,call-overload]
    failure = store(STORE, role)._failed("k", REFUSALS[name]).failure
    for verb in ("build", "validate", "serve"):
        known = {flag for action in verbs[verb]._actions for flag in action.option_strings}
        known |= {"--source", "--tombstones", "--queries", "--encoder", "--rerank", "--fresh"}  # of another verb
        said = for_a_person(failure, verb)
        text = f"{said.message} {said.field} {said.remedy}"
        assert {flag.rstrip(".") for flag in re.findall(r"--[\w.-]+", text)} <= known, text
        assert not re.search(r"spec\.|secretRef|ServiceAccount|anonymous: true", text), text
        assert said.field
    assert failure.remedy or name == "Teapot"
    if name == "no credentials":
        assert "AWS_ACCESS_KEY_ID" in str(said.remedy)
        assert "--anonymous" in str(said.remedy)
