"""Small JSON documents of an artifact (manifest, report, points): bounded, checked by SHA-256, then parsed."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from pydantic import ValidationError

from ..contract import Model
from ..errors import BadData, ChecksumMismatch
from ..storage.store import Store

DOCUMENT_LIMIT_BYTES = 1 << 20
REMEDY = "Use the version that wrote it, or delete the revision's artifacts and build it again."

AnyModel = TypeVar("AnyModel", bound=Model)


def read_document(store: Store, key: str, expected_sha256: str = "") -> tuple[bytes, str] | None:
    """The bytes under `key`, one more than DOCUMENT_LIMIT_BYTES at most, and their SHA-256; None when there are none.

    Raises ChecksumMismatch when others were expected.
    """
    try:
        data = store.read(key, length=DOCUMENT_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    if expected_sha256 and sha256 != expected_sha256:
        raise ChecksumMismatch(key.rsplit("/", 1)[-1], f"SHA-256 is {sha256}, expected {expected_sha256}")
    return data, sha256


def parse_document(model: type[AnyModel], data: bytes, where: str, bad: str) -> AnyModel:
    """Raises BadData/`bad`, naming the first field that is wrong, when it is too large or cannot be read."""
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise bad_document(bad, where, f"is larger than {DOCUMENT_LIMIT_BYTES} bytes")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise bad_document(bad, where, f"is not one that this version reads: {problem}") from None


def bad_document(bad: str, where: str, problem: str) -> BadData:
    """The error for a document that is there and of no use."""
    return BadData(bad, f"{where} {problem}", object=where, remedy=REMEDY)
