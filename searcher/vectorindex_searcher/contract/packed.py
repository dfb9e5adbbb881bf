"""A result that is longer than a termination message may be: the kubelet would cut it, and half a JSON is no verdict.

Standard library only. What fits is never packed, so that people and operators from before this read it as ever.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping

PACKED = "Packed"
"""The kind of what is packed."""
_MOST_BYTES = 64 << 10
"""Of what was packed: nobody makes an operator unpack more."""


def pack(document: bytes) -> bytes:
    """JSON that holds the JSON `document`, shorter."""
    return json.dumps({"kind": PACKED, "zlib": base64.b85encode(zlib.compress(document, 9)).decode()}).encode()


def unpack(said: Mapping[str, object]) -> object:
    """The JSON value that was packed. Raises ValueError for what nobody packed, and for what is too long."""
    text = said.get("zlib")
    if not isinstance(text, str):
        raise ValueError("nothing is packed")
    unpacking = zlib.decompressobj()
    try:
        document = unpacking.decompress(base64.b85decode(text), _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"what is packed is damaged: {error}") from None
    if not unpacking.eof:
        raise ValueError(f"what is packed has no end within {_MOST_BYTES} bytes")
    return json.loads(document)
