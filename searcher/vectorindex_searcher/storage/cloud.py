"""The adapter of store.Store for Azure Blob Storage (obstore): credentials from the environment.

obstore names keys without a leading slash and blobs with quotes around their ETag here and without there; its messages
hold whole addresses, with the signature of a SAS token in them. Both stop in this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore

from ..contract import Azure
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
_NO_CONTAINER = "ContainerNotFound"
_CREDENTIALS = (
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "AuthorizationFailure",
    "NoAuthenticationInformation",
)
"""Codes of answers with 401 or 403 that mean the key or token itself, not what it may do."""
_FAILURES = (BaseError, FileNotFoundError, PermissionError, OSError)


class CloudStore:
    """One container. `prefix` is the location's; keys given to the methods are whole names of blobs."""

    def __init__(self, place: Azure, role: Role) -> None:
        self.prefix = place.prefix.strip("/")
        self.role = role
        self._place = place
        self._store = _azure(place, role)

    def describe(self, key: str) -> str:
        return self._place.url(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            if prefix and (one := self.head(prefix)) is not None:
                yield one
            for page in obstore.list(self._store, prefix=prefix or None, chunk_size=PAGE):
                yield from (_info(item) for item in page)
        except _FAILURES as error:
            raise self._failed(prefix, error) from error

    def head(self, key: str) -> ObjectInfo | None:
        try:
            return _info(obstore.head(self._store, key))
        except FileNotFoundError:
            return None
        except _FAILURES as error:
            raise self._failed(key, error) from error

    def read(self, key: str, *, etag: str | None = None, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        options: GetOptions = {} if etag is None else {"if_match": f'"{etag}"'}
        if length is not None:
            options["range"] = (offset, offset + length)
        elif offset:
            options["range"] = {"offset": offset}
        try:
            return bytes(obstore.get(self._store, key, options=options).bytes())
        except FileNotFoundError as error:
            if _NO_CONTAINER in str(error):
                raise self._failed(key, error) from error
            if etag is not None:
                raise SourceChanged(key) from None
            raise FileNotFoundError(self.describe(key)) from None
        except PreconditionError:
            raise SourceChanged(key) from None
        except _FAILURES as error:
            if options.get("range") is not None and self._ends_at(key, etag, offset):
                return b""
            raise self._failed(key, error) from error

    def _ends_at(self, key: str, etag: str | None, offset: int) -> bool:
        """Whether there is nothing at or after an offset: asked only when a range was refused."""
        found = self.head(key)
        if found is not None and etag is not None and found.etag != etag:
            raise SourceChanged(key)
        return found is not None and found.size <= offset

    def stream(self, key: str, *, etag: str | None = None) -> Iterator[bytes]:
        found = self.head(key)
        if found is None:
            if etag is not None:
                raise SourceChanged(key)
            raise FileNotFoundError(self.describe(key))
        etag, position = etag or found.etag, 0  # what is asked for later must be of the same blob
        while data := self.read(key, etag=etag, offset=position, length=RANGE_BYTES):
            position += len(data)
            yield from (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))
            if position >= found.size:
                return

    def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        try:
            obstore.put(self._store, key, data, mode="create" if exclusive else "overwrite", use_multipart=False)
        except AlreadyExistsError:
            return False
        except _FAILURES as error:
            raise self._failed(key, error) from error
        return True

    def upload(self, key: str, path: Path) -> None:
        try:
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except _FAILURES as error:
            raise self._failed(key, error) from error

    def delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError as error:
            if _NO_CONTAINER in str(error):
                raise self._failed(key, error) from error
        except _FAILURES as error:
            raise self._failed(key, error) from error

    def delete_many(self, keys: Sequence[str]) -> dict[str, str]:
        def one(key: str) -> str:
            try:
                self.delete(key)
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
        """Azure drops blocks that were never put together by itself, after a week."""
        return 0

    def _failed(self, key: str, error: BaseException) -> TaskError:
        if isinstance(error, TaskError):
            return error
        field, where, why = f"{self.role.field}.{self._place.kind}", self.describe(key), brief(error)
        if _NO_CONTAINER in str(error):
            container, at = self._place.container, self._place.endpoint
            remedy = f"Create the container or correct {field}.container."
            message = f"container {container!r} does not exist at {at}"
            return self._refused("BucketNotFound", message, f"{field}.container", remedy)
        if isinstance(error, UnauthenticatedError) or any(code in str(error) for code in _CREDENTIALS):
            remedy = f"Check the keys of the Secret in {field}.secretRef; for a public container say anonymous: true."
            return self._refused(
                "InvalidCredentials", f"{where}: the store refuses the credentials ({why})", field, remedy
            )
        if isinstance(error, PermissionDeniedError | PermissionError):
            writing = "Contributor" if self.role is Role.ARTIFACTS else "Reader"
            remedy = f"Grant the role Storage Blob Data {writing} on the container."
            return self._refused("AccessDenied", f"{where}: access denied ({why})", field, remedy)
        message = f"{where}: {self._place.endpoint} did not answer as it should ({why})"
        remedy = f"Check {field}.endpoint, and that it is reached from here."
        return StoreUnavailable("StoreUnavailable", message, object=key, field=f"{field}.endpoint", remedy=remedy)

    def _refused(self, reason: str, message: str, field: str, remedy: str) -> TaskError:
        return TaskError(reason, message, field=field, remedy=remedy, exit_code=self.role.refusal_code)


def brief(error: BaseException) -> str:
    """Type and message of one line: what stands after a ? in an address may be a signature."""
    text = str(error).partition("Debug source")[0]
    return f"{type(error).__name__}: {' '.join(re.sub(r'[?][^ )]*', '?...', text).split())}"[:300]


def _info(item: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(item["path"], item["size"], (item["e_tag"] or "").strip('"'), item["last_modified"].timestamp())


def _azure(place: Azure, role: Role) -> AzureStore:
    def env(name: str) -> str | None:
        return os.environ.get(role.env_prefix + name) or None

    names = {
        "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "sas_key": "AZURE_STORAGE_SAS_TOKEN",
        "tenant_id": "AZURE_TENANT_ID",
        "client_id": "AZURE_CLIENT_ID",
        "client_secret": "AZURE_CLIENT_SECRET",
    }
    config: Any = {field: value for field, name in names.items() if (value := env(name))}
    pem = env("CA_PEM")
    client: Any = {
        "allow_http": place.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=RETRY_SECONDS),
        **({"root_certificate": pem.encode()} if pem else {}),
    }
    return AzureStore(
        place.container,
        account_name=place.account,
        endpoint=place.endpoint.rstrip("/"),
        skip_signature=bool(place.anonymous),
        config=config,
        client_options=client,
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )
