"""What one types about an index: a line for each verb, made of the verbs' own definitions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

import click

from vectorindex_plugin.facts.index import IndexFacts

PROGRAM = ("kubectl", "vectorindex")


@dataclass(frozen=True, slots=True)
class LineFacts:
    """`writes`: it asks the operator for something."""

    verb: str
    does: str
    line: str
    writes: bool


def lines(
    index: IndexFacts, verbs: Iterable[click.Command], flags: tuple[str, ...], *, writes: bool
) -> tuple[LineFacts, ...]:
    """Verbs whose arguments an index can fill in. `flags`: where the index is, as kubectl is told."""
    found = []
    for verb in verbs:
        words = _arguments(index, verb)
        if words is not None:
            line = shlex.join([*PROGRAM, str(verb.name), *words, "-n", index.namespace, *flags])
            found.append(LineFacts(str(verb.name), verb.help or "", line, writes))
    return tuple(found)


def _arguments(index: IndexFacts, verb: click.Command) -> list[str] | None:
    """What stands behind the verb; None where the index does not tell."""
    names = [one.name for one in index.revisions]
    known = {"name": index.name, "revision": names[0] if names else None}
    if len(names) > 1:
        known |= {"before": names[0], "after": names[1]}
    wanted = [one.name for one in verb.params if isinstance(one, click.Argument) and one.required]
    words = [known.get(name or "") for name in wanted]
    return None if not words or None in words else [word for word in words if word is not None]
