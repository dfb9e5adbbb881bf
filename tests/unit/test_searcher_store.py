"""Object stores: the folder adapter for real, the S3 adapter's decisions against botocore's Stubber."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from vectorindex_searcher.artifact.layout import Layout
from vectorindex_searcher.contract import GCS, S3, Azure, ExitCode, Identity, Location
from vectorindex_searcher.dataset import listing as listing_module
from vectorindex_searcher.dataset.listing import list_source, load_listing, save_listing
from vectorindex_searcher.dataset.tombstones import list_tombstones
from vectorindex_searcher.errors import BadData, BadSpec, RetryableError, SourceChanged, TaskError
from vectorindex_searcher.storage import store as store_module
from vectorindex_searcher.storage.folder import FolderStore
from vectorindex_searcher.storage.s3 import S3Store
from vectorindex_searcher.storage.store import Role, join_key, open_store, parse_location


def test_folder_lists_below_a_prefix_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, Role.SOURCE)
    for key in ("v1/a.parquet", "v1/sub/b.parquet", "v10/c.parquet", "v1/.hidden"):
        store.put(key, b"x")
    assert [item.key for item in store.list("v1")] == ["v1/a.parquet", "v1/sub/b.parquet"]
    assert len(list(store.list(""))) == 3


def test_folder_exclusive_put_creates_once_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, Role.ARTIFACTS)
    assert store.put("d/manifest.json", b"first", exclusive=True)
    assert not store.put("d/manifest.json", b"second", exclusive=True)
    assert store.read("d/manifest.json") == b"first"
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["manifest.json"]


def test_folder_uploads_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store", Role.ARTIFACTS)
    path = tmp_path / "index.faiss"
    path.write_bytes(b"whole")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"wh")
        assert store.head("a/index.faiss") is None
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("vectorindex_searcher.storage.folder.shutil.copyfile", full)
        with pytest.raises(TaskError):
            store.upload("a/index.faiss", path)
    assert not [one for one in (tmp_path / "store").rglob("*") if one.is_file()], "room for the next try"
    store.upload("a/index.faiss", path)
    assert store.read("a/index.faiss") == b"whole"


def test_folder_refuses_another_content_than_was_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, Role.SOURCE)
    store.put("a", b"one")
    (item,) = store.list("")
    assert store.read("a", etag=item.etag, offset=1, length=1) == b"n"
    store.put("a", b"two")
    with pytest.raises(SourceChanged) as caught:
        store.read("a", etag=item.etag)
    assert caught.value.exit_code == ExitCode.RETRY
    (tmp_path / "a").unlink()
    with pytest.raises(SourceChanged):
        b"".join(store.stream("a", etag=item.etag))


def test_folder_keys_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "in", Role.SOURCE)
    for key in ("../out", "/etc/hostname", "a/../../out"):
        with pytest.raises(BadSpec):
            store.read(key)


@pytest.mark.parametrize("role", [Role.SOURCE, Role.QUERIES, Role.TOMBSTONES])
def test_more_objects_than_a_process_should_hold_are_refused_where_they_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    """A stranger's bucket may hold any number, and whoever lists them keeps each in memory."""
    monkeypatch.setattr(store_module, "MAX_OBJECTS", 3)
    store = FolderStore(tmp_path, role)
    read = list_tombstones if role is Role.TOMBSTONES else list_source
    for number in range(3):
        (tmp_path / f"{number}.parquet").touch()
    read(store)
    (tmp_path / "_3").touch()  # hidden ones are listed, too
    with pytest.raises(BadData) as caught:
        read(store)
    failure = caught.value.failure
    assert (failure.reason, failure.field) == ("TooManyObjects", role.field)
    assert "more than 3 objects" in failure.message
    assert failure.remedy


def test_a_stored_listing_is_read_up_to_what_a_listing_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, layout = FolderStore(tmp_path, Role.ARTIFACTS), Layout("", Identity(name="n"))
    (tmp_path / "a.npy").touch()
    listing = list_source(FolderStore(tmp_path, Role.SOURCE))
    save_listing(store, layout, listing)
    assert load_listing(store, layout, listing.fingerprint) == listing
    monkeypatch.setattr(listing_module, "STORED_BYTES", 50)
    with pytest.raises(RetryableError) as caught:
        load_listing(store, layout, listing.fingerprint)
    assert caught.value.reason == "BadListing"
    assert "larger than 50 bytes" in str(caught.value)


def test_missing_source_folder_is_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        list(FolderStore(tmp_path / "none", Role.SOURCE).list(""))
    assert (caught.value.reason, caught.value.exit_code) == ("FolderNotFound", ExitCode.SOURCE_MISSING)


def test_locations_as_people_type_them(tmp_path: Path) -> None:
    assert parse_location("s3://bucket/a/b").s3 == S3(bucket="bucket", prefix="a/b")
    assert parse_location("az://acme/vectors/a/b").azure == Azure(account="acme", container="vectors", prefix="a/b")
    assert parse_location("gs://vectors/a/b").gcs == GCS(bucket="vectors", prefix="a/b")
    assert parse_location("./x") == Location(folder="./x")
    with pytest.raises(BadSpec):
        parse_location("s3:///nothing")
    with pytest.raises(BadSpec):
        parse_location("az://acme")
    with pytest.raises(BadSpec, match="gs://"):
        parse_location("gs://Bad_Name!/x")
    with pytest.raises(BadSpec):
        open_store(Location(), Role.SOURCE)
    assert join_key("", "/a/", "b") == "a/b"


@pytest.fixture
def stubbed() -> Iterator[tuple[S3Store, Stubber]]:
    client = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        yield S3Store(S3(bucket="vectors", prefix="p/"), Role.SOURCE, client), stubber


@pytest.mark.parametrize(
    ("code", "status", "reason", "exit_code"),
    [
        ("NoSuchBucket", 404, "BucketNotFound", ExitCode.SOURCE_MISSING),
        ("AccessDenied", 403, "AccessDenied", ExitCode.SOURCE_MISSING),
        ("InvalidAccessKeyId", 403, "InvalidCredentials", ExitCode.SOURCE_MISSING),
        ("SignatureDoesNotMatch", 403, "InvalidCredentials", ExitCode.SOURCE_MISSING),
        ("PermanentRedirect", 301, "WrongRegion", ExitCode.SOURCE_MISSING),
        ("InternalError", 500, "StoreUnavailable", ExitCode.STORE_UNAVAILABLE),
    ],
)
def test_s3_listing_errors_say_what_to_do(
    stubbed: tuple[S3Store, Stubber], code: str, status: int, reason: str, exit_code: ExitCode
) -> None:
    store, stubber = stubbed
    stubber.add_client_error("list_objects_v2", code, http_status_code=status)
    with pytest.raises(TaskError) as caught:
        list(store.list("p"))
    assert (caught.value.reason, caught.value.exit_code) == (reason, exit_code)
    assert (caught.value.failure.field or "").startswith("spec.source.s3")


def test_s3_bucket_of_artifacts_is_named_as_such(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    store.role = Role.ARTIFACTS
    stubber.add_client_error("put_object", "NoSuchBucket", http_status_code=404)
    with pytest.raises(TaskError) as caught:
        store.put("k", b"", exclusive=True)
    assert caught.value.failure.field == "spec.artifacts.s3.bucket"
    assert caught.value.exit_code == ExitCode.STORE_UNAVAILABLE


def test_s3_reads_are_pinned_and_ranged(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    expected = {"Bucket": "vectors", "Key": "k", "IfMatch": '"abc"', "Range": "bytes=10-13"}
    body = StreamingBody(io.BytesIO(b"1234"), 4)
    stubber.add_response("get_object", {"Body": body, "ETag": '"abc"', "ContentRange": "bytes 10-13/99"}, expected)
    assert store.read("k", etag="abc", offset=10, length=4) == b"1234"
    stubber.add_client_error("get_object", "PreconditionFailed", http_status_code=412)
    with pytest.raises(SourceChanged):
        store.read("k", etag="abc")
    stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    with pytest.raises(SourceChanged):
        store.read("k", etag="abc")
    stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    with pytest.raises(FileNotFoundError):
        store.read("k")


def test_s3_exclusive_put_loses_to_another_writer(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    stubber.add_response("put_object", {}, {"Bucket": "vectors", "Key": "k", "Body": b"x", "IfNoneMatch": "*"})
    stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    stubber.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    assert [store.put("k", b"x", exclusive=True) for _ in range(3)] == [True, False, False]


def test_s3_listing_skips_neighbours_and_markers(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    keys = ("p/a.parquet", "p10/b.parquet", "p/")
    stubber.add_response(
        "list_objects_v2",
        {"Contents": [{"Key": key, "Size": 1, "ETag": '"e"'} for key in keys], "IsTruncated": False},
    )
    assert [(item.key, item.etag) for item in store.list(store.prefix)] == [("p/a.parquet", "e")]


class _BreakingClient:
    """get_object whose body breaks off after 3 bytes, twice."""

    def __init__(self, data: bytes) -> None:
        self.data, self.ranges = data, []

    def get_object(self, **options: str) -> dict[str, object]:
        self.ranges.append((options.get("Range"), options.get("IfMatch")))
        start = int(options.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest, breaks = self.data[start:], len(self.ranges) < 3

        class Body:
            def iter_chunks(self, size: int) -> Iterator[bytes]:
                yield rest[:3] if breaks else rest
                if breaks:
                    raise ConnectionResetError

        return {"Body": Body(), "ETag": '"v1"', "ContentRange": f"bytes {start}-9/10"}


def test_s3_stream_resumes_where_it_broke_off_and_stays_on_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    client = _BreakingClient(b"0123456789")
    store = S3Store(S3(bucket="vectors"), Role.SOURCE, client)
    assert b"".join(store.stream("k")) == b"0123456789"
    assert client.ranges == [(None, None), ("bytes=3-", '"v1"'), ("bytes=6-", '"v1"')]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoCredentialsError(), "InvalidCredentials"),
        (EndpointConnectionError(endpoint_url="http://nowhere"), "StoreUnavailable"),
    ],
)
def test_s3_without_credentials_or_network(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    class Client:
        def get_object(self, **options: str) -> None:
            raise error

    with pytest.raises(TaskError) as caught:
        S3Store(S3(bucket="vectors"), Role.SOURCE, Client()).read("k")
    assert caught.value.reason == reason


def test_s3_credentials_come_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERIES_AWS_ACCESS_KEY_ID", "AKQUERIES")
    monkeypatch.setenv("QUERIES_AWS_SECRET_ACCESS_KEY", "secret")
    store = S3Store(S3(bucket="vectors", endpoint="http://s3.test:9000"), Role.QUERIES)
    client = store._client
    assert client._request_signer._credentials.access_key == "AKQUERIES"
    assert client.meta.config.s3 == {"addressing_style": "path"}
    assert client.meta.config.request_checksum_calculation == "when_required"
