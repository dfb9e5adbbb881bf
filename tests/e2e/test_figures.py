"""A guardrail on a number of the user's own application, which a real Prometheus keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from e2e import shop
from e2e.operator_release import Operator
from e2e.vectors import CLUSTERS, Corpus, bodies
from e2e.workspace import Workspace, no_failures

ORDERS = {
    "name": "orders", "metric": "PromQL", "query": shop.ORDERED, "maxDropVsStable": "20%",
    "window": "10s", "warmUp": "5s", "consecutive": 1,
}  # fmt: skip


@pytest.mark.long
def test_what_only_the_application_can_know_takes_a_revision_back(
    served: Workspace, corpus: Corpus, operator: Operator
) -> None:
    """All that a searcher counts is as before: every row is there, under the id of another one."""
    index, first = served.index, served.index.traffic()
    served.put("mixed", replace(corpus, ids=(*corpus.ids[1:], corpus.ids[0])))
    served.put("better", corpus.moved())
    queries = corpus.queries(CLUSTERS)
    looked_for = [corpus.nearest(query, 1)[0][0] for query in queries]
    customers = list(zip(bodies(queries), looked_for, strict=True))
    with shop.opened(served, customers) as prometheus:
        operator.upgrade(f"prometheus.url={prometheus}")
        try:
            with served.traffic(corpus) as traffic:
                served.hold(index.traffic, 15, "stable sells for a window before the switch")
                served.apply("mixed", guardrails={"rules": [ORDERS]})
                mixed = index.wait_new_revision({first})
                index.wait_revision(mixed, "RolledBack")
                decision = index.decision()
                assert decision is not None
                assert (decision.rule, decision.to_revision) == ("orders", first)
                said = {row["rule"]: row for row in index.revision(mixed)["rollout"]["verdicts"]}["orders"]
                print(f"a shop that sells nothing: {said['message']}")
                assert said["verdict"] == "Fail"
                served.hold(index.traffic, 15, "and stable sells again")

                served.apply("better", guardrails={"rules": [ORDERS]})
                better = index.wait_new_revision({first, mixed})
                index.wait_revision(better, "Stable")
                said = {row["rule"]: row for row in index.revision(better)["rollout"]["verdicts"]}["orders"]
                print(f"one that sells as before: {said['message']}")
                assert said["verdict"] == "Pass"
                seen = traffic.snapshot()
        finally:
            operator.upgrade("prometheus.url=")
    no_failures(seen, at_least=2000)
