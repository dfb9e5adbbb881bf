"""What a person can ask for by annotation: `vectorindex.dev/<name>: [ARGUMENT@]NONCE`, consumed once.

One registry, read by who observes and by who refuses: a command that is missing here is refused with the list of those
there are, never ignored. OBEYED of core/safety/obey_commands.py or of core/progress/obey_commands.py has its function;
docs/operations.md describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vectorindex_operator.api.v1alpha1 import GROUP

PREFIX = f"{GROUP}/"
LONGEST = 256
"""Characters of an annotation that are read: a revision's name and a nonce."""
MOST_UNKNOWN = 8
"""Requests that nobody knows are refused one by one up to so many; who writes more has had an answer."""


@dataclass(frozen=True, slots=True)
class CommandKind:
    """One row: the annotation's name, what its argument names ('' for none), and what it does, for messages."""

    name: str
    argument: str
    does: str


COMMANDS = {
    kind.name: kind
    for kind in (
        CommandKind("rollback", "revision", "gives the traffic back to the last proven revision, or to the one named"),
        CommandKind("abort", "revision", "gives up what is being built, proven, loaded or soaked, or the one named"),
        CommandKind("promote", "revision", "ends a soak in favour of what soaks, unless a guardrail fails"),
        CommandKind("pause", "revision", "holds what is on its way before it is loaded, switched to, or promoted"),
        CommandKind("resume", "revision", "lets go on what is held"),
        CommandKind("retry", "", "tries again what failed or was rejected"),
        CommandKind("refresh", "", "makes a new revision of the same artifact with today's searcher image"),
        CommandKind("rebuild", "", "builds the same spec and data once more, under another digest"),
    )
}

NOT_COMMANDS = frozenset({"operator-class", "decision"})
"""Annotations of our group that a VectorIndex may carry for other reasons."""


@dataclass(frozen=True, slots=True)
class Command:
    """A person's request as it was read. The nonce tells it from the one before."""

    name: str
    argument: str
    nonce: str


def read_commands(annotations: Mapping[str, str]) -> tuple[Command, ...]:
    """Every request in an object's annotations, in the order of their names; some unknown ones too, to be refused."""
    commands: list[Command] = []
    unknown = 0
    for key in sorted(annotations):
        name = key.removeprefix(PREFIX)
        text = str(annotations[key])[:LONGEST]
        if not key.startswith(PREFIX) or name in NOT_COMMANDS or not text:
            continue
        unknown += name not in COMMANDS
        if name in COMMANDS or unknown <= MOST_UNKNOWN:
            argument, _, nonce = text.rpartition("@")
            commands.append(Command(name[:63], argument, nonce))
    return tuple(commands)


def known() -> str:
    """The names, for a refusal."""
    return ", ".join(COMMANDS)
