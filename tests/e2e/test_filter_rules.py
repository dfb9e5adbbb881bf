"""Guardrails for filters: a column that is gone, or whose values changed, and clients that were always wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e.conftest import FIRST_REVISION_SECONDS
from e2e.vectors import CLUSTERS, Corpus, bodies, parquet
from e2e.workspace import Workspace, no_failures

LANGUAGES = "en", "de"
WRONG = {"colour": "red"}
QUICK = {"window": "10s", "warmUp": "0s", "minSamples": 50, "consecutive": 1}
LOST = {"name": "lost", "metric": "FiltersLost", "max": "5%"} | QUICK
EMPTY = {"name": "empty", "metric": "FilteredZeroResultRate", "max": "20%"} | QUICK
GONE = "metadata column 'lang' of stable is gone"
TOKENS = {"website": "token-of-the-website-0123456789"}


@pytest.mark.long
@pytest.mark.together("long rollouts")
def test_what_users_filter_by_takes_a_revision_back_and_what_was_always_wrong_does_not(
    workspace: Workspace, corpus: Corpus
) -> None:
    index = workspace.index
    send: dict[str, Any] = {"tokens": tuple(TOKENS.values())}
    workspace.kube.apply_secret("clients", workspace.namespace, TOKENS)
    workspace.put("good", _spoken(corpus, LANGUAGES))
    workspace.put("renamed", _spoken(corpus, ("english", "deutsch")))
    workspace.put("better", _spoken(corpus.moved(), LANGUAGES))
    _apply(workspace, "good", ["lang"])
    index.wait_condition("RolledOut", timeout=FIRST_REVISION_SECONDS)
    first = index.traffic()
    filtered = [body for lang in LANGUAGES for body in bodies(corpus.queries(200), filter={"lang": lang})]
    wrong = bodies(corpus.queries(200), filter=WRONG)
    with (
        workspace.asked(bodies(corpus.queries()), rate=30, **send) as plain,
        workspace.asked(wrong, rate=10, pod="wrong", **send) as hopeless,
        workspace.asked(filtered, rate=30, pod="filtered", **send) as filters,
    ):
        no_failures(filters.snapshot())
        # The spec no longer names the column. The gate tells, and lets it pass.
        _apply(workspace, "good", [])
        lossy = index.wait_new_revision({first})
        workspace.wait_event("FiltersDropped", GONE, timeout=120)
        index.wait(lambda: GONE in index.condition("Validated")["message"], 30, "Validated to say so")
        _rolled_back(workspace, lossy, first, "lost")
        seen = filters.wait(lambda s: s.at > _decided(workspace) + 20, 60, "all connections to be with stable again")
        assert seen.failed, "nobody filtered while the column was gone"
        assert set(seen.kinds) == {"status 400"}, seen.describe_failures()
        assert all("InvalidFilter" in row["detail"] for row in seen.failures), seen.describe_failures()
        refused = seen.failed

        # It is there, and nothing in it is what they ask for.
        _apply(workspace, "renamed", ["lang"])
        renamed = index.wait_new_revision({first, lossy})
        _rolled_back(workspace, renamed, first, "empty")

        # And all that a good one refuses, stable refused as well.
        _apply(workspace, "better", ["lang"])
        better = index.wait_new_revision({first, lossy, renamed})
        index.wait_revision(better, "Stable")
        assert {v["rule"]: v["verdict"] for v in index.revision(better)["rollout"]["verdicts"]}["lost"] == "Pass"
        last = filters.wait_answers(better)
        assert last.failed == refused, last.describe_failures()
        assert set(hopeless.snapshot().kinds) == {"status 400"}
        seen = plain.snapshot()
    no_failures(seen, at_least=2000)
    assert set(seen.revisions) == {first, lossy, renamed, better}


def _spoken(corpus: Corpus, languages: tuple[str, ...]) -> bytes:
    """The rows with a column `lang`; each cluster has all languages."""
    of = [languages[row // CLUSTERS % len(languages)] for row in range(len(corpus.ids))]
    return parquet(corpus.ids, corpus.vectors, lang=of)


def _apply(space: Workspace, folder: str, columns: list[str]) -> None:
    """A manifest with these columns of metadata and a rule for each way in which filters break."""
    changes: dict[str, Any] = {
        "source": {"columns": {"metadata": columns}},
        "searcher": {"auth": {"secretRef": {"name": "clients"}}},
        "guardrails": {"rules": [LOST, EMPTY]},
    }
    space.apply(folder, **changes)


def _rolled_back(space: Workspace, revision: str, to: str, rule: str) -> None:
    space.index.wait_revision(revision, "RolledBack")
    decision = space.index.decision()
    assert decision is not None
    assert (decision.kind, decision.to_revision, decision.rule) == ("RollBack", to, rule), json.dumps(
        space.index.revision(revision)["rollout"]["verdicts"], indent=1
    )


def _decided(space: Workspace) -> float:
    decision = space.index.decision()
    return decision.at if decision is not None else 0.0
