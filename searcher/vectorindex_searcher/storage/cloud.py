"""The adapter of store.Store for clouds that do not speak S3 (obstore): credentials from the environment.

What obstore does otherwise than a Store stops in this module: quotes around an ETag, a folder's marker that has lost
its slash, and messages that hold whole addresses and answers, with the signature of a SAS token in them.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore

from ..contract import GCS, Azure
from ..errors import SourceChanged, StoreUnavailable, TaskError
from .store import CHUNK_BYTES, ObjectInfo, Role

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

PAGE = 1000
RANGE_BYTES = 8 << 20
PART_BYTES = 64 << 20
PARTS_AT_ONCE = 4
DELETES_AT_ONCE = 8
RETRIES = 5
RETRY_SECONDS = 60
BODY_ATTEMPTS = 5
"""Of a body that breaks off; what is refused, or not answered at all, obstore itself tries again."""
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")
"""In what stands behind a message, which only says that a request could not be sent. Its word: what is wrong."""
_NO_TOKEN = re.compile("token request|token file")
"""In messages about what an identity, or a client's secret, is exchanged for."""
_FAILURES = (BaseError, OSError, ValueError)

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cloud:
    """What differs between clouds."""

    open: Callable[[Any, Callable[[str], str | None], Config], Any]
    """obstore's client of a place, with a look-up of the role's variables and options of how it is reached."""
    holder: str
    """The field that names what holds the objects, and what people call that."""
    no_holder: str
    """The code of an answer that there is none of that name."""
    wrong_credentials: tuple[str, ...]
    """Codes of answers with 401 or 403 that mean the key or token itself, not what it may do."""
    grant: tuple[str, str]
    """What lets somebody read, and write."""


class CloudStore:
    """One container, or bucket. `prefix` is the location's; keys given to the methods are whole names of objects."""

    def __init__(self, place: Azure | GCS, role: Role) -> None:
        self.prefix = place.prefix.strip("/")
        self.role = role
        self._place = place
        self._cloud = CLOUDS[place.kind]
        pem = _variables(role)("CA_PEM") or ""
        if pem and not _has_certificates(pem):
            raise self._not_trusted(f"{place.url(self.prefix)}: CA_PEM holds no certificate in PEM")
        try:
            self._store = self._cloud.open(place, _variables(role), _client(place.endpoint, pem))
        except _FAILURES:  # its message is about parts of a key
            raise self._no_credentials(place.url(self.prefix), "they cannot be read") from None

    def describe(self, key: str) -> str:
        return self._place.url(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            if prefix and (one := self.head(prefix)) is not None:
                yield one
            for page in obstore.list(self._store, prefix=prefix or None, chunk_size=PAGE):
                for item in map(_info, page):
                    # The marker "folder/" is told as "folder", and there is no such object.
                    if item.size or self.head(item.key) is not None:
                        yield item
        except _FAILURES as error:
            raise self._failed(prefix, error) from None

    def head(self, key: str) -> ObjectInfo | None:
        try:
            return _info(obstore.head(self._store, key))
        except FileNotFoundError:
            return None
        except _FAILURES as error:
            raise self._failed(key, error) from None

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        return b"" if length == 0 else self._read(key, etag, offset, length)[0]

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        position, size = 0, 1  # its size, once an answer has told it
        while position < size:
            data, of = self._read(key, etag, position, RANGE_BYTES)
            etag, size = etag or of.etag, of.size  # what is asked for later must be of the same object
            position += len(data)
            yield from (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))

    def _read(self, key: str, etag: str | None, offset: int, length: int | None) -> tuple[bytes, ObjectInfo]:
        """Bytes of a range, and what object they are of."""
        options: GetOptions = {} if etag is None else {"if_match": f'"{etag}"'}
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        try:
            return self._body(key, options, etag)
        except FileNotFoundError as error:
            if self._cloud.no_holder in str(error):
                raise self._failed(key, error) from None
            if etag is not None:
                raise SourceChanged(key) from None
            raise FileNotFoundError(self.describe(key)) from None
        except PreconditionError:
            raise SourceChanged(key) from None
        except _FAILURES as error:
            # A range that begins at the end, or after it, is refused.
            found = self.head(key) if "range" in options else None
            if found is None or found.size > offset:
                raise self._failed(key, error) from None
            if etag is not None and found.etag != etag:
                raise SourceChanged(key) from None
            return b"", found

    def _body(self, key: str, options: GetOptions, etag: str | None) -> tuple[bytes, ObjectInfo]:
        for attempt in range(1, BODY_ATTEMPTS + 1):
            answer = obstore.get(self._store, key, options=options)
            of = _info(answer.meta)
            if etag is not None and of.etag != etag:  # a server or a proxy may ignore If-Match
                raise SourceChanged(key)
            try:
                return bytes(answer.bytes()), of
            except _FAILURES:
                if attempt == BODY_ATTEMPTS:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        try:
            obstore.put(self._store, key, data, mode="create" if exclusive else "overwrite", use_multipart=False)
        except AlreadyExistsError:
            return False
        except _FAILURES as error:
            raise self._failed(key, error) from None
        return True

    def upload(self, key: str, path: Path) -> None:
        try:
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except _FAILURES as error:
            raise self._failed(key, error) from None

    def delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError as error:
            if self._cloud.no_holder in str(error):
                raise self._failed(key, error) from None
        except _FAILURES as error:
            raise self._failed(key, error) from None

    def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
        def one(key: str) -> str:
            try:
                self.delete(key)
            except StoreUnavailable:
                raise
            except TaskError as error:
                return f"{error.reason}: {error}"
            return ""

        with ThreadPoolExecutor(DELETES_AT_ONCE, thread_name_prefix="delete") as pool:
            return {key: why for key, why in zip(keys, pool.map(one, keys), strict=True) if why}

    def discard_unfinished(
        self,
        prefix: str,  # noqa: ARG002
        older_than: float,  # noqa: ARG002
        *,
        ours: Callable[[str], bool],  # noqa: ARG002
        dry_run: bool = False,  # noqa: ARG002
    ) -> int:
        """Azure drops by itself, after a week, blocks that were never put together; GCS by a rule of the bucket."""
        return 0

    def _failed(self, key: str, error: BaseException) -> TaskError:
        """What an error of obstore means: the reasons and fields are those of S3."""
        if isinstance(error, TaskError):
            return error
        field, where, why = f"{self.role.field}.{self._place.kind}", self.describe(key), brief(error)
        holder, at = self._cloud.holder, self._place.endpoint or "the cloud's endpoint"
        if self._cloud.no_holder in why:
            name = getattr(self._place, holder)
            remedy = f"Create the {holder} or correct {field}.{holder}."
            return self._refused(
                "BucketNotFound", f"{holder} {name!r} does not exist at {at}", f"{field}.{holder}", remedy
            )
        if _NO_TOKEN.search(str(error)):
            if why.startswith("4") or "file" in why:
                return self._no_credentials(where, f"no token for them: {why}")
            return self._outage(key, f"no token for its credentials ({why})")
        # By the status: of a listing obstore's error has no type that says it.
        if why.startswith("401") or any(code in why for code in self._cloud.wrong_credentials):
            return self._no_credentials(where, why)
        if why.startswith("403"):
            remedy = f"Grant {self._cloud.grant[self.role is Role.ARTIFACTS]} on the {holder}."
            return self._refused("AccessDenied", f"{where}: access denied ({why})", field, remedy)
        if (flaw := _CERTIFICATE.search(str(error))) is not None:
            return self._not_trusted(f"{where}: the certificate of {at} is not trusted ({flaw[1]})")
        return self._outage(key, f"{at} did not answer as it should ({why})")

    def _outage(self, key: str, what: str) -> TaskError:
        field = f"{self.role.field}.{self._place.kind}.endpoint"
        remedy = f"Check {field}, and that it is reached from here."
        message = f"{self.describe(key)}: {what}"
        return StoreUnavailable("StoreUnavailable", message, object=key, field=field, remedy=remedy)

    def _not_trusted(self, message: str) -> TaskError:
        remedy = (
            "Put the PEM of its CA into the Secret as CA_PEM, or into the installation's trustBundle (on a laptop: the "
            "variable SSL_CERT_FILE names a file of it)."
        )
        field = f"{self.role.field}.{self._place.kind}.endpoint"
        return self._refused("CertificateNotTrusted", message, field, remedy)

    def _no_credentials(self, where: str, why: str) -> TaskError:
        field, holder = f"{self.role.field}.{self._place.kind}", self._cloud.holder
        remedy = f"Name a Secret with keys in {field}.secretRef; for a public {holder} say {field}.anonymous: true."
        return self._refused("InvalidCredentials", f"{where}: no usable credentials ({why})", field, remedy)

    def _refused(self, reason: str, message: str, field: str, remedy: str) -> TaskError:
        return TaskError(reason, message, field=field, remedy=remedy, exit_code=self.role.refusal_code)


def brief(error: BaseException) -> str:
    """What happened, in one line: the status and code of an answer, never its body, which tells what was signed, and
    nothing that stood after a ? in an address, which may be a signature."""
    text = " ".join(str(error).partition("Debug source")[0].split())
    status = re.search(r"status code: (\d{3}[\w ]*)", text)
    if status is not None:
        code = re.search(r"<Code>(\w+)</Code>", text)
        return f"{status[1].strip()} {code[1]}" if code is not None else status[1].strip()
    return f"{type(error).__name__}: {re.sub(r'[?][^ )]*', '?...', text)}"[:300]


def _info(item: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(item["path"], item["size"], (item["e_tag"] or "").strip('"'), item["last_modified"].timestamp())


def _variables(role: Role) -> Callable[[str], str | None]:
    return lambda name: os.environ.get(role.env_prefix + name) or None


def _has_certificates(pem: str) -> bool:
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _client(endpoint: str, pem: str) -> Config:
    """How a store is reached, in obstore's words. pem: certificates to trust besides those of SSL_CERT_FILE, which
    obstore reads itself, or else of the system."""
    seconds = timedelta(seconds=RETRY_SECONDS)
    options = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "timeout": seconds,
        **({"root_certificate": pem} if pem else {}),
    }
    return {"client_options": options, "retry_config": {"max_retries": RETRIES, "retry_timeout": seconds}}


def _azure(place: Azure, given: Callable[[str], str | None], client: Config) -> AzureStore:
    """The kind of credentials is always named: the identity that a node gives every pod would win over a SAS token."""
    key, token, secret = map(given, ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"))
    config: Any = {}  # obstore's type, which no name of a variable can be checked against
    if place.anonymous:
        config = {"skip_signature": True}
    elif key:
        config = {"credential_type": "access_key", "account_key": key}
    elif token:
        config = {"credential_type": "sas_token", "sas_key": token}
    elif secret:
        ids = {"client_id": given("AZURE_CLIENT_ID") or "", "tenant_id": given("AZURE_TENANT_ID") or ""}
        config = {"credential_type": "client_secret", "client_secret": secret, **ids}
    if place.endpoint:
        config["endpoint"] = place.endpoint.rstrip("/")
    return AzureStore(place.container, account_name=place.account, config=config, **client)


def _gcs(place: GCS, given: Callable[[str], str | None], client: Config) -> GCSStore:
    """The endpoint is always named: a key's own words would lead elsewhere."""
    config: Any = {"base_url": place.endpoint.rstrip("/") or "https://storage.googleapis.com"}
    key = given("GOOGLE_SERVICE_ACCOUNT_KEY")
    if place.anonymous:
        config["skip_signature"] = True
    elif key:
        config["service_account_key"] = key
    return GCSStore(place.bucket, config=config, **client)


CLOUDS = {
    Azure.kind: Cloud(
        open=_azure,
        holder="container",
        no_holder="ContainerNotFound",
        wrong_credentials=(
            "AuthenticationFailed",
            "InvalidAuthenticationInfo",
            "AuthorizationFailure",
            "NoAuthenticationInformation",
        ),
        grant=("the role Storage Blob Data Reader", "the role Storage Blob Data Contributor"),
    ),
    GCS.kind: Cloud(
        open=_gcs,
        holder="bucket",
        no_holder="NoSuchBucket",
        wrong_credentials=("AuthenticationRequired", "InvalidSecurity", "ExpiredToken"),
        grant=("the role Storage Object Viewer", "the role Storage Object User"),
    ),
}
"""Every cloud, by the kind of its places."""
