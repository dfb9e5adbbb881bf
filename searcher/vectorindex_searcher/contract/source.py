"""What a searcher tells of the source, which it lists when the operator asks for it, and how it learns where that is.

The operator has no key of any store. A Job for each look at a source that did not change would cost the cluster writes
and pods; a searcher runs anyway. Its answer decides only whether a Job looks: see docs/adr/0034-searchers-poll.md.
With it a searcher tells whether an artifact is there, which a rollback would be loaded from.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from .fresh import FreshLook
from .model import Model

SOURCE_ENV = "VECTORINDEX_SOURCE"
"""Environment variable with the ResolveTask of what a searcher lists, as far as the listing depends on it. Without it,
or in an image that does not know it, the path is not there."""
SOURCE_PATH = "/v1/source"
"""Of the admin port, with ?maxAge=SECONDS: an older listing is made anew. A pod whose look says `artifacts` takes
&artifact=DIGEST besides: whether this artifact of its index is there."""
ARTIFACT_DIGEST = re.compile(r"[0-9a-f]{64}")
"""What may be asked for, as a whole: a digest as the operator makes them, never a path."""


def source_id(text: str) -> str:
    """Names what a searcher was told to list, by the very text of SOURCE_ENV."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Found(StrEnum):
    """What a look at an artifact came to."""

    PRESENT = "Present"
    """Its manifest is there."""
    ABSENT = "Absent"
    """The store says that it is not: whoever loads it now fails."""
    UNKNOWN = "Unknown"
    """Neither can be told: no answer, no access, no bucket."""


class ArtifactLook(Model):
    """Whether an artifact is there, by its manifest."""

    model_config = ConfigDict(extra="ignore")

    digest: Annotated[str, Field(max_length=64)]
    found: Annotated[str, Field(max_length=16)]
    """One of Found; another word is as good as Unknown."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why it cannot be told (AccessDenied, NotYet ...)."""
    message: Annotated[str, Field(max_length=300)] = ""


class SourceLook(Model):
    """Answer of GET SOURCE_PATH: the last listing, and what became of the one that was asked for."""

    model_config = ConfigDict(extra="ignore")

    pod: Annotated[str, Field(max_length=253)]
    revision: Annotated[str, Field(max_length=253)]
    source: Annotated[str, Field(max_length=64)]
    """source_id of what this pod was told to list."""
    fingerprint: Annotated[str, Field(max_length=64)] = ""
    """Of the last listing, as `resolve` makes it; empty: none succeeded."""
    age_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Since that listing began."""
    under_way: bool = False
    """A listing takes longer than an answer may: ask again."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why the newest listing failed (AccessDenied, TooManyObjects ...); empty: it did not."""
    message: Annotated[str, Field(max_length=300)] = ""
    artifacts: bool = False
    """Whether this pod can be asked for an artifact as well."""
    artifact: ArtifactLook | None = None
    """Of the one that was asked for."""
    fresh: FreshLook | None = None
    """None: this pod was told of no fresh rows, or its image knows none."""
