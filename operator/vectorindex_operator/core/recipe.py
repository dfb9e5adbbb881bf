"""What a revision is made of, compared with what the spec asks for. One comparison, by the digest itself.

A digest says which bytes are built from which data (core/identity.py). Computed again from today's spec and a
revision's own data it tells whether the user's part is still the same: no second list of fields can disagree.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import S3
from vectorindex_operator.core import identity
from vectorindex_operator.core.state import ReconcileState


def is_desired(state: ReconcileState, name: str) -> bool:
    """Whether a revision is what the spec asks for, of the data that was listed last."""
    source = state.source
    return source is not None and state.revision(name).spec.digest == identity.digest(state.spec, source.fingerprint)


def same_but_for_data(state: ReconcileState, name: str) -> bool:
    """Whether a revision is what the spec asks for, apart from the data: polls, not a person, made it differ."""
    frozen = state.revision(name).spec
    same_place = place(frozen.source) == place(state.spec.source.s3)
    return same_place and frozen.digest == identity.digest(state.spec, frozen.fingerprint)


def place(s3: S3) -> tuple[str, str]:
    """Where data is, without how to reach it: another endpoint or Secret is no other place."""
    return s3.bucket, s3.prefix
