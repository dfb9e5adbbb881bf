"""An ONNX file, looked through before it is run: no tensor of it may lie in another file.

ONNX can name a path from which ONNX Runtime reads a tensor's bytes, wherever it points; only the file itself was
verified. The format is protobuf; what is walked here are the parts that can hold a tensor, by the numbers of
onnx.proto. Whatever cannot be followed is refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import BadData
from .folder import ENCODER, Kind

_MOST_MESSAGES = 2_000_000
_DEEPEST = 32
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_TENSOR = "TensorProto"
_PARTS: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: _TENSOR, 6: "GraphProto", 10: _TENSOR, 11: "GraphProto", 22: "SparseTensorProto",
                       23: "SparseTensorProto"},
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}  # fmt: skip
"""Message -> number of a field -> the message in it; other fields hold no tensor."""


class _MalformedError(Exception):
    """No protobuf, or more of it than any model has."""


def refuse_external_data(path: Path, kind: Kind = ENCODER) -> None:
    """Raises BadData/EncoderUnsafe for an ONNX file that names other files, or that cannot be looked through."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            external = _has_external(memoryview(data))
    except (_MalformedError, ValueError) as error:
        raise _unsafe(path, kind, f"cannot be looked through: {error}") from None
    if external:
        raise _unsafe(path, kind, "has tensors in other files (external data)")


def _unsafe(path: Path, kind: Kind, problem: str) -> BadData:
    remedy = "Save the model as one file of less than 2 GiB (onnx.save with save_as_external_data=False)."
    return BadData(f"{kind.word}Unsafe", f"{path.name} {problem}", object=path.name, field=kind.field, remedy=remedy)


def _has_external(data: memoryview) -> bool:
    """Whether any tensor says that it lies elsewhere. `data` is released here, and all that was cut from it."""
    waiting: list[tuple[str, memoryview, int]] = [("ModelProto", data, 0)]
    seen = 0
    try:
        while waiting:
            kind, message, depth = waiting.pop()
            with message:
                seen += 1
                if seen > _MOST_MESSAGES or depth > _DEEPEST:
                    raise _MalformedError("it is nested too deeply, or has too many parts")
                for number, value in _fields(message):
                    if kind == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                        return True
                    part = _PARTS[kind].get(number)
                    if part is not None:
                        if not isinstance(value, tuple):
                            raise _MalformedError(f"field {number} of {kind} is no message")
                        waiting.append((part, message[value[0] : value[1]], depth + 1))
        return False
    finally:
        for _, message, _ in waiting:
            message.release()


def _fields(message: memoryview) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Number of each field, and its value, or where its bytes are."""
    at, size = 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > size:
                raise _MalformedError("a field is longer than what holds it")
            yield number, (at, at + length)
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            if at > size:
                raise _MalformedError("a number is cut off")
            yield number, 0
        else:
            raise _MalformedError("it is no protobuf of this kind")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _MalformedError("a number is cut off")
