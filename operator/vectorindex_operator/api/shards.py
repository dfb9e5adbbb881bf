"""What an index in shards cannot have yet, as CEL rules of its spec. Each names the field and what to do instead.

The data plane refuses the same (NotOfShards), later and at the price of a build.
"""

from __future__ import annotations

from vectorindex_operator.api.fields import CelRule

_WHOLE = "!has(self.index.shards)"
_QUERIES = "!has(self.gate.queries)"
_REFUSED = (
    ("index.import", "!has(self.index.__import__)", "an index that was built elsewhere is one part"),
    ("embedding.encoder", "!has(self.embedding.encoder)", "queries are vectors"),
    ("source.fresh", "!has(self.source.fresh)", "routers answer no rows of their own"),
    ("segments", "!has(self.segments) || size(self.segments) == 0", "merged answers are proven as one class"),
    (
        "gate.queries.segmentColumn",
        f"{_QUERIES} || !has(self.gate.queries.segmentColumn) || self.gate.queries.segmentColumn == ''",
        "merged answers are proven as one class",
    ),
    (
        "gate.queries.filterColumn",
        f"{_QUERIES} || !has(self.gate.queries.filterColumn)",
        "no merged answer is proven with a filter",
    ),
    ("gate.queries.live", f"{_QUERIES} || !has(self.gate.queries.live)", "routers keep no sample of queries"),
    ("gate.relevance", "!has(self.gate.relevance)", "merged answers are proven against exact search only"),
    (
        "rollout.route",
        "!has(self.rollout) || !has(self.rollout.route)",
        "a rollout of shards is one switch",
    ),
    (
        "guardrails.rules",
        "!has(self.guardrails.rules) || self.guardrails.rules.all(r, !(r.metric in"
        " ['RerankedShare', 'AnswersMissed', 'AnswersChanged']))",
        "routers do not measure RerankedShare, AnswersMissed, AnswersChanged",
    ),
)

RULES = (
    *(
        CelRule(
            f"{_WHOLE} || {fine}", f"{field} does not go with index.shards: {why}; leave one of them out", f".{field}"
        )
        for field, fine, why in _REFUSED
    ),
    CelRule(
        f"{_WHOLE} || !has(self.searcher) || !has(self.searcher.replicas) || self.searcher.replicas >= 2",
        "index.shards needs searcher.replicas of at least 2: a shard without a pod is a query without an answer",
        ".searcher.replicas",
    ),
    CelRule(
        "has(self.index.shards) || !has(self.searcher) || !has(self.searcher.routerResources)",
        "searcher.routerResources needs index.shards: an index in one part has no routers",
        ".searcher.routerResources",
    ),
    CelRule(
        "!has(self.searcher) || !has(self.searcher.memoryPerShard)"
        " || (has(self.index.shards) && type(self.index.shards) != int)",
        "searcher.memoryPerShard needs index.shards Auto: otherwise nothing goes by it",
        ".searcher.memoryPerShard",
    ),
    CelRule(
        "has(self.index.shards) || !has(self.searcher) || !has(self.searcher.partial)",
        "searcher.partial needs index.shards: an index in one part answers whole or not at all",
        ".searcher.partial",
    ),
    CelRule(
        f"{_WHOLE} || has(self.gate.queries) || self.gate.k in [1, 10, 100]",
        "index.shards needs a gate.k of 1, 10 or 100, or gate.queries: left-out rows are asked with these when a shard"
        " is built",
        ".gate.k",
    ),
)
