"""The condition UpToDate: what was edited and is not in effect yet is named, whatever field it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from observations import a_revision, condition, front, loaded, merged, run, seen, source, spec

from vectorindex_operator.api.v1alpha1 import Live, VectorIndexSpec
from vectorindex_operator.core import identity

TOMBSTONES = {"source": {"tombstones": {"prefix": "deleted/"}}}
OF = spec(**TOMBSTONES)
STABLE = a_revision(OF, "Stable")

WAITS: dict[str, tuple[dict[str, Any], str]] = {
    "source.s3": ({"source": {"s3": {"prefix": "other/"}}}, "source.s3"),
    "source.columns": ({"source": {"columns": {"id": "key"}}}, "source.columns"),
    "source.tombstones": ({"source": {"tombstones": {"prefix": "gone/"}}}, "source.tombstones"),
    "source.poll": ({"source": {"poll": "1h"}}, "source.poll of source.tombstones"),
    "artifacts.s3": ({"artifacts": {"s3": {"bucket": "elsewhere"}}}, "artifacts.s3"),
    "embedding.model": ({"embedding": {"model": "named-later"}}, "embedding"),
    "segments": ({"segments": [{"name": "short"}]}, "segments"),
    "index": ({"index": {"factory": "Flat"}}, "index"),
    "searcher.minScore": ({"searcher": {"minScore": 0.3}}, "searcher.minScore"),
    "searcher.pod": ({"searcher": {"pod": {"nodeSelector": {"disk": "fast"}}}}, "searcher.pod"),
    "rollout": ({"rollout": {"progressDeadline": "1h"}}, "rollout"),
    "guardrails": ({"guardrails": {"falseTripBudget": "2%"}}, "guardrails"),
    "searcher.replicas": ({"searcher": {"replicas": 3}}, "searcher, source.s3, artifacts.s3, source.fresh or gate."),
    "source.fresh": (
        {"source": {"fresh": {"prefix": "fresh/"}}},
        "source.fresh or gate.queries.live: when the pods of",
    ),
    "gate.queries.live": ({"gate": {"queries": {"live": {}}}}, "gate.queries.live: when the pods of"),
}
"""An edit of each, and how it is named."""
TAKEN_AT_ONCE = ("searcher.replicas", "source.fresh", "gate.queries.live")
"""By the pods of every loaded revision, as they are replaced."""
AT_ONCE = {"build", "gate", "history", "pinRevision", "suspend"}
"""For work that comes later: nothing that is there was made with it."""


def said(edited: VectorIndexSpec, *, rolled: bool = True) -> tuple[str, str]:
    """UpToDate and its words while stable serves what it was made with. `rolled`: its pods took what they take."""
    obs = seen(edited, STABLE, traffic=front(STABLE))
    live = replace(loaded(STABLE), live=identity.live_hash(Live.of(edited if rolled else OF)))
    status = obs.index.status.model_copy(update={"source": source(OF)})
    obs = replace(obs, loaded={STABLE.name: live}, jobs=(), index=replace(obs.index, status=status))
    value, _, message = condition(run(obs).status, "UpToDate")
    return value, message


@pytest.mark.parametrize("field", WAITS)
def test_an_edit_that_waits_is_named(field: str) -> None:
    edit, name = WAITS[field]
    value, message = said(spec(**merged(TOMBSTONES, edit)), rolled=field not in TAKEN_AT_ONCE)
    assert value == "False"
    assert name in message


def test_what_waits_for_nothing_is_not_named() -> None:
    assert said(OF)[0] == "True"


def test_every_field_of_a_spec_is_looked_at() -> None:
    assert {field.partition(".")[0] for field in WAITS} | AT_ONCE == {
        info.alias or name for name, info in VectorIndexSpec.model_fields.items()
    }
