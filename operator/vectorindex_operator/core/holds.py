"""What keeps a revision's object until its artifact is removed: a finalizer, with `artifacts.deletionPolicy: Delete`.

It stands on revisions alone. A VectorIndex is gone as soon as its user deletes it, and no role lets the operator write
one. Its name says which class of operator takes it off: the VectorIndex that said so is gone by then.
"""

from __future__ import annotations

from collections.abc import Iterable

from vectorindex_operator.api.v1alpha1 import GROUP

FINALIZER = f"{GROUP}/artifacts"
"""Of the default class; other classes are added to it (reconcile/claims.py: finalizer_of)."""


def ours(finalizers: Iterable[str]) -> frozenset[str]:
    """Those of operators of any class."""
    return frozenset(one for one in finalizers if one == FINALIZER or one.startswith(f"{FINALIZER}."))
