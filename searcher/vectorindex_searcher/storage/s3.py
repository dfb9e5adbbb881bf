"""The S3 adapter of store.Store (boto3): any server that speaks S3, credentials from the environment."""

from __future__ import annotations

import http.client
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, SSLError

from ..contract import S3
from ..errors import SourceChanged, StoreUnavailable, TaskError
from .store import CHUNK_BYTES, DELETE_BATCH, ObjectInfo, Role, UnsupportedByStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 64 << 20
STREAM_ATTEMPTS = 5
_log = logging.getLogger(__name__)

_HOPELESS = (NoCredentialsError, PartialCredentialsError, SSLError)
_MISSING_KEY = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}
_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "XAdminUserNotFound",
    "TokenRefreshRequired",
}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem", "InvalidObjectState"}
_PRECONDITION = {"PreconditionFailed", "412"}
_NO_CONDITIONS = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest"}
"""What stores without If-None-Match answer to it."""
_NO_BATCHES = _NO_CONDITIONS | {
    "MethodNotAllowed",
    "405",
    "MissingContentMD5",
    "InvalidDigest",
    "BadDigest",
    "MalformedXML",
}
"""What stores answer that remove one object a request, or want another checksum of a list than ours."""
_LATER = {
    "RequestTimeTooSkewed": "Set the clock of the node that the pod runs on, or of the store.",
    "QuotaExceeded": "Make room in the store, or raise its quota.",
    "XMinioStorageFull": "Make room in the store.",
    "ServiceQuotaExceeded": "Make room in the store, or raise its quota.",
}
"""Refusals with 403 or 4xx that pass once somebody has acted outside of the spec: worth another try."""
_WRONG_REGION = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class S3Store:
    """One bucket. `prefix` is the location's; keys given to the methods are full keys of the bucket."""

    def __init__(self, s3: S3, role: Role, client: S3Client | None = None) -> None:
        self.bucket = s3.bucket
        self.prefix = s3.prefix.strip("/")
        self.role = role
        self._endpoint = s3.endpoint
        self._client = client or _client(s3, role)

    def describe(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = f"{prefix}/" if prefix else ""
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    key = item["Key"]
                    # "data/v1" must not bring in "data/v10/...", and "folder/" markers are no data.
                    if (key == prefix or key.startswith(folder)) and not key.endswith("/"):
                        yield ObjectInfo(key, item["Size"], item["ETag"].strip('"'), _unix(item.get("LastModified")))
        except (ClientError, BotoCoreError) as error:
            raise self._failed(prefix, error) from error

    def head(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if _code(error) in _MISSING_KEY:
                return None
            raise self._failed(key, error) from error
        except BotoCoreError as error:
            raise self._failed(key, error) from error
        modified = _unix(answer.get("LastModified"))
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'), modified)

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        return b"".join(self._stream(key, etag, offset, length))

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        return self._stream(key, etag, 0, None)

    def _stream(self, key: str, etag: str | None, offset: int, length: int | None) -> Iterator[bytes]:
        """Bytes of a range, resumed at the last byte received: botocore retries requests, not broken bodies."""
        end = None if length is None else offset + length
        position, failures = offset, 0
        while True:
            try:
                answer = self._get(key, etag, position, end)
                etag = etag or answer["ETag"].strip('"')  # a resumed body must be of the same object
                self._check_answer(key, answer, etag, position, ranged=bool(position) or end is not None)
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    position += len(chunk)
                    failures = 0
                    yield chunk
                return
            except ClientError as error:
                if _code(error) == "InvalidRange":  # nothing at or after the offset
                    return
                raise self._failed(key, error, etag) from error
            except (BotoCoreError, http.client.HTTPException, OSError) as error:
                failures += 1
                if failures >= STREAM_ATTEMPTS or isinstance(error, _HOPELESS):
                    raise self._failed(key, error) from error
                time.sleep(0.2 * 2**failures)

    def _check_answer(self, key: str, answer: Any, etag: str, position: int, *, ranged: bool) -> None:
        """Refuse a body that is not what was asked for: a store or a proxy may ignore Range and If-Match."""
        if answer["ETag"].strip('"') != etag:
            raise SourceChanged(key)
        if not ranged:
            return
        begins = str(answer.get("ContentRange", "")).removeprefix("bytes ").partition("-")[0]
        if begins != str(position):
            message = f"{self.describe(key)}: {self._endpoint or 'the S3 endpoint'} ignores the header Range"
            remedy = f"Name a store that answers byte ranges in {self.role.field}.s3.endpoint."
            raise self._refused("NoByteRanges", message, f"{self.role.field}.s3.endpoint", remedy)

    def _get(self, key: str, etag: str | None, position: int, end: int | None) -> Any:
        options: dict[str, Any] = {"Bucket": self.bucket, "Key": key}
        if etag is not None:
            options["IfMatch"] = f'"{etag}"'
        if position or end is not None:
            options["Range"] = f"bytes={position}-{'' if end is None else end - 1}"
        return self._client.get_object(**options)

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        try:
            if exclusive:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
            else:
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
        except ClientError as error:
            # 409: another conditional write of this key is under way; whoever wins, we lost.
            if exclusive and _code(error) in _PRECONDITION | {"ConditionalRequestConflict", "409"}:
                return False
            if exclusive and _code(error) in _NO_CONDITIONS:
                raise UnsupportedByStore(_brief(error)) from error
            raise self._failed(key, error) from error
        except BotoCoreError as error:
            raise self._failed(key, error) from error
        return True

    def upload(self, key: str, path: Path) -> None:
        config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
        try:
            self._client.upload_file(str(path), self.bucket, key, Config=config)
        except Exception as error:
            # boto3 wraps a part's failure in S3UploadFailedError and keeps the reason as the context.
            cause = error.__cause__ or error.__context__ or error
            raise self._failed(key, cause if isinstance(cause, ClientError) else error) from error

    def delete(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self.bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            # S3 does not tell; others do, of what somebody else removes at the same moment.
            if not (isinstance(error, ClientError) and _code(error) in _MISSING_KEY):
                raise self._failed(key, error) from error

    def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for start in range(0, len(keys), DELETE_BATCH):
            refused |= self._delete_batch(keys[start : start + DELETE_BATCH])
        return refused

    def _delete_batch(self, keys: Sequence[str]) -> dict[str, str]:
        try:
            answer = self._client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        except ClientError as error:
            if _code(error) in _NO_BATCHES:
                return self._delete_each(keys)
            raise self._failed(self.prefix, error) from error
        except BotoCoreError as error:
            raise self._failed(self.prefix, error) from error
        rows = [row for row in answer.get("Errors", []) if row.get("Code") not in _MISSING_KEY]
        return {row["Key"]: f"{row.get('Code', '')}: {row.get('Message', '')}" for row in rows}

    def _delete_each(self, keys: Sequence[str]) -> dict[str, str]:
        refused = {}
        for key in keys:
            try:
                self.delete(key)
            except StoreUnavailable:
                raise
            except TaskError as error:
                refused[key] = f"{error.reason}: {error}"
        return refused

    def discard_unfinished(
        self, prefix: str, older_than: float, *, ours: Callable[[str], bool], dry_run: bool = False
    ) -> int:
        found = 0
        try:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                # By the store's clock, where it tells it.
                now = _date(page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
                for upload in page.get("Uploads", []):
                    key = upload["Key"]
                    if not key.startswith(f"{prefix}/") or not ours(key):
                        continue
                    if now - _unix(upload.get("Initiated")) < older_than:
                        continue
                    found += dry_run or self._abort(key, upload["UploadId"])
        except (ClientError, BotoCoreError) as error:
            _log.debug("unfinished uploads stay", extra={"bucket": self.bucket, "why": _brief(error)})
        return found

    def _abort(self, key: str, upload: str) -> bool:
        """Whether it was there to be ended: somebody else may end it at the same moment."""
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":
                raise
            return False
        return True

    def _failed(self, key: str, error: BaseException, etag: str | None = None) -> TaskError:
        where, field = self.describe(key), f"{self.role.field}.s3"
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            remedy = f"Name a Secret with keys in {field}.secretRef; for a public bucket say {field}.anonymous: true."
            return self._refused("InvalidCredentials", f"{where}: no usable credentials ({error})", field, remedy)
        if isinstance(error, SSLError):
            remedy = "Put the PEM of its CA into the Secret as CA_PEM (on a laptop: the variable AWS_CA_BUNDLE)."
            message = (
                f"{where}: the certificate of {self._endpoint or 'the S3 endpoint'} is not trusted ({_brief(error)})"
            )
            return self._refused("CertificateNotTrusted", message, f"{field}.endpoint", remedy)
        if not isinstance(error, ClientError):
            message = f"{where}: {self._endpoint or 'the S3 endpoint'} did not answer ({_brief(error)})"
            remedy = f"Check {field}.endpoint, and that it is reached from here."
            return StoreUnavailable("StoreUnavailable", message, object=key, field=f"{field}.endpoint", remedy=remedy)
        code = _code(error)
        if code in _LATER:
            return StoreUnavailable(code, f"{where}: {_brief(error)}", object=key, field=field, remedy=_LATER[code])
        if code == "NoSuchBucket":
            return self._refused(
                "BucketNotFound",
                f"bucket {self.bucket!r} does not exist at {self._endpoint or 'AWS'}",
                f"{field}.bucket",
                f"Create the bucket or correct {field}.bucket.",
            )
        if code in _WRONG_CREDENTIALS:
            return self._refused("InvalidCredentials", f"{where}: the store refuses the credentials ({code})", field)
        if code in _WRONG_REGION:
            return self._refused("WrongRegion", f"{where}: wrong region or endpoint ({code})", f"{field}.region")
        if code in _PRECONDITION or (etag is not None and code in _MISSING_KEY):
            return SourceChanged(key)
        if code in _DENIED or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (401, 403):
            writing = ", s3:PutObject and s3:DeleteObject" if self.role is Role.ARTIFACTS else ""
            remedy = f"Grant s3:GetObject and s3:ListBucket{writing}"
            return self._refused("AccessDenied", f"{where}: access denied ({code})", field, f"{remedy} on the bucket.")
        if code in _MISSING_KEY:
            raise FileNotFoundError(where) from error
        return StoreUnavailable("StoreUnavailable", f"{where}: {_brief(error)}", object=key, field=field)

    def _refused(self, reason: str, message: str, field: str, remedy: str | None = None) -> TaskError:
        remedy = remedy or f"Check {self.role.field}.s3 and the Secret or ServiceAccount it takes credentials from."
        return TaskError(reason, message, field=field, remedy=remedy, exit_code=self.role.refusal_code)


def _unix(moment: datetime | None) -> float:
    """Unix seconds; 0 from a server that does not tell: then nothing is older than anything else."""
    return 0.0 if moment is None else moment.timestamp()


def _date(header: str) -> float:
    """Unix seconds of an HTTP date; this machine's without one."""
    try:
        return parsedate_to_datetime(header).timestamp()
    except (TypeError, ValueError):
        return time.time()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _brief(error: BaseException) -> str:
    """Type and message without line breaks; botocore's messages hold no credentials."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _client(s3: S3, role: Role) -> S3Client:
    def env(name: str) -> str | None:
        return os.environ.get(role.env_prefix + name) or None

    pem = env("CA_PEM")
    session = boto3.session.Session(
        aws_access_key_id=env("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=env("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=env("AWS_SESSION_TOKEN"),
        # Servers other than AWS ignore the region, but signing needs one.
        region_name=s3.region or env("AWS_REGION") or ("us-east-1" if s3.endpoint else None),
    )
    config = Config(
        request_checksum_calculation="when_required",  # many S3 servers refuse botocore's default checksums
        response_checksum_validation="when_required",
        retries={"mode": "adaptive", "total_max_attempts": 6},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        s3={"addressing_style": "path" if s3.endpoint else "auto"},
        **({"signature_version": UNSIGNED} if s3.anonymous else {}),
    )
    client: S3Client = session.client(
        "s3", endpoint_url=s3.endpoint.rstrip("/") or None, config=config, verify=_ca_file(pem) if pem else None
    )
    return client


def _ca_file(pem: str) -> str:
    """botocore wants a path. The file lives as long as the process (pods: /tmp is a tmpfs)."""
    with tempfile.NamedTemporaryFile("w", prefix="ca-", suffix=".pem", delete=False) as file:
        file.write(pem)
    return file.name
