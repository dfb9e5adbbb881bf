"""`--output json`: facts as JSON, with the names of the API. Fields are only ever added."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from typing import Any

from pydantic.alias_generators import to_camel


def document(value: Any) -> Any:
    """The JSON form of facts: camelCase; a field without a value (None) is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {to_camel(name.rstrip("_")): document(part) for name, part in pairs if part is not None}
    if isinstance(value, dict):
        return {str(key): document(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [document(part) for part in value]
    return value.value if isinstance(value, Enum) else value


def text(value: Any) -> str:
    """The document as it is printed."""
    return json.dumps(document(value), indent=2, ensure_ascii=False)
