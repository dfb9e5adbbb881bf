"""Requests by annotation: read once, bounded, and never ignored without a word."""

from __future__ import annotations

from dataclasses import replace

from observations import NOW, a_revision, after, run, seen, spec

from vectorindex_operator.core.commands import COMMANDS, LONGEST, MOST_UNKNOWN, Command, read_commands
from vectorindex_operator.core.progress import obey_commands as progress
from vectorindex_operator.core.safety import obey_commands as safety

PREFIX = "vectorindex.dev/"


def test_name_argument_and_nonce() -> None:
    found = read_commands({f"{PREFIX}rollback": "docs-1a2b@n1", f"{PREFIX}retry": "n2", "other.io/retry": "n3"})
    assert found == (Command("retry", "", "n2"), Command("rollback", "docs-1a2b", "n1"))


def test_a_misspelt_request_is_refused_with_the_names_that_there_are() -> None:
    stable = a_revision(spec(), "Stable")
    obs = seen(spec(), stable, traffic=stable)
    plan = run(replace(obs, index=replace(obs.index, commands=read_commands({f"{PREFIX}rolback": "n1"}))), NOW)
    (answer,) = plan.status.verbs
    assert (answer.verb, answer.result) == ("rolback", "Refused")
    assert all(name in answer.message for name in COMMANDS)


def test_each_command_is_obeyed_once() -> None:
    """One that none of the tables has would stay open for ever, without a word."""
    assert sorted([*safety.OBEYED, *progress.OBEYED]) == sorted(COMMANDS)


def test_what_is_no_request_is_none() -> None:
    assert (
        read_commands({f"{PREFIX}operator-class": "blue", f"{PREFIX}retry": "", "kubectl.kubernetes.io/x": "y"}) == ()
    )


def test_a_flood_of_annotations_is_bounded_and_hides_no_real_request() -> None:
    flood = {f"{PREFIX}a{number:03}": "x" * 10_000 for number in range(500)}
    found = read_commands(flood | {f"{PREFIX}rollback": "n1"})
    assert len(found) == MOST_UNKNOWN + 1
    assert found[-1] == Command("rollback", "", "n1")
    assert max(len(one.argument + one.nonce) for one in found) <= LONGEST


def test_answers_to_unknown_requests_go_with_their_annotations() -> None:
    stable = a_revision(spec(), "Stable")
    obs = seen(spec(), stable, traffic=stable)
    asked = replace(obs, index=replace(obs.index, commands=(Command("rolback", "", "n1"),)))
    answered = replace(after(asked, run(asked)), index=replace(obs.index, status=run(asked).status))
    assert run(answered).status.verbs == ()
