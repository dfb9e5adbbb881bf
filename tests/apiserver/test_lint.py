"""`kubectl vectorindex lint` agrees with the API server on changes that nobody thought of (bench/lint.py asks all)."""

from __future__ import annotations

from itertools import islice

from control_plane import Api
from lint_cases import mutated

from vectorindex_plugin.lint.check import lint
from vectorindex_plugin.lint.manifests import Manifest

EVERY = 41
"""A prime, so that each kind of value meets many fields."""


def test_lint_and_the_api_server_say_the_same(api: Api) -> None:
    cases = list(islice(mutated(), 0, None, EVERY))
    wrong = []
    for name, manifest in cases:
        faults = lint([Manifest(name, manifest)], tries=False).faults
        answer = api.apply(manifest, dryRun="All")
        if answer.ok != (not faults):
            wrong.append((name, answer.message[:200], [(one.field, one.message) for one in faults]))
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:20]}"
