"""A candidate that was found bad before it had any traffic: it is remembered, and unloaded. No user has noticed it."""

from __future__ import annotations

from vectorindex_operator.api.timestamps import to_text
from vectorindex_operator.api.v1alpha1 import Rejection
from vectorindex_operator.core.phase import Phase
from vectorindex_operator.core.state import ReconcileState

SURGE = "Surge"
SHADOW = "Shadow"
"""Stages of a rejection."""


def give_up(state: ReconcileState, name: str, phase: Phase, *, stage: str, reason: str, message: str) -> None:
    rejection = Rejection(stage=stage, reason=reason, message=message, at=to_text(state.now))
    state.update(name, phase=phase, rejected=rejection, message=message)
    state.keep_loaded.discard(name)
    state.find_slots()
