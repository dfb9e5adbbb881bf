"""Whose a VectorIndex is, where operators of two releases share a cluster.

The annotation says it; without one, whoever claimed it in `status.operator`; without a claim, the class "default". So
an index never changes hands unless somebody says so, and one whose class has no operator is left as it is.
"""

from __future__ import annotations

from vectorindex_operator.api.v1alpha1 import GROUP
from vectorindex_operator.core.holds import FINALIZER
from vectorindex_operator.reconcile.ports import Raw

ANNOTATION = f"{GROUP}/operator-class"
DEFAULT_CLASS = "default"


def finalizer_of(operator_class: str) -> str:
    """What keeps a revision of an operator of this class until its artifact is removed."""
    return FINALIZER if operator_class == DEFAULT_CLASS else f"{FINALIZER}.{operator_class}"


def class_of(index: Raw) -> str:
    """The class of the operator that looks after a VectorIndex."""
    wanted = (index["metadata"].get("annotations") or {}).get(ANNOTATION)
    claimed = (index.get("status") or {}).get("operator")
    return str(wanted or claimed or DEFAULT_CLASS)
