"""How text becomes vectors: what a searcher and the gate are told of an index's encoder."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from .model import Model
from .places import Location

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Prefix = Annotated[str, Field(max_length=256)]

_HOST = r"([0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(/[!\"\x24->A-~]*)?"
"""ASCII that is printed, without what ends a path, and no @, before which somebody could read a name. (A dollar sign is
written so: in a schema's pattern it is the end for whoever reads it in another dialect.)"""


def _can_be_connected_to(url: str) -> str:
    """Raises ValueError for what the pattern lets pass and no connection takes: brackets around no IPv6 address."""
    host = urlsplit(url).hostname or ""
    if ":" in host or "[" in url:
        IPv6Address(host)
    return url


class OnnxFolder(Model):
    """A model's folder as sentence-transformers lays it out, with its ONNX file: the pods run it themselves."""

    location: Location
    sha256: Sha256
    """Of the files that are read: text/folder.py says how it is made."""


class EmbeddingsEndpoint(Model):
    """A server that speaks the embeddings API of OpenAI. Its token never travels here: see ENCODER_ENV_PREFIX."""

    url: Annotated[
        str,
        Field(min_length=1, max_length=512, pattern=f"^https?://{_HOST}{_PORT}{_PATH}$"),
        AfterValidator(_can_be_connected_to),
    ]
    """Of the embeddings themselves, as in http://tei.ml.svc/v1/embeddings."""
    model: Annotated[str, Field(max_length=256)] = ""
    """What the request calls it; empty: it is not named."""


class EncoderTask(Model):
    """What encodes texts for one index: one of `onnx` and `endpoint`."""

    onnx: OnnxFolder | None = None
    endpoint: EmbeddingsEndpoint | None = None
    text_column: Annotated[str, Field(max_length=128)] = ""
    """Metadata column of the texts that the rows' vectors were made of: what the gate compares. Empty: nothing."""
    query_prefix: Prefix | None = None
    """Stands before each query; None: what the folder itself says."""
    document_prefix: Prefix | None = None
    """Stands before each text of a row; None: what the folder itself says."""
