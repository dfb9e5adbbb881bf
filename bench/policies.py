"""What a policy costs its token, and whether a token ever sees a row of others.

    python bench/policies.py [--quick] [--rounds 4] [--seconds 2] [--factory HNSW32,SQ8]

Rows are dealt at random to tenants with a half, a tenth and a hundredth of them. Each tenant has a token and a policy
over one index of all rows; and, for comparison, an index of its own with nothing but its rows, whose tokens see all.
The same queries, CPU of the whole searcher a query, in turn: the index of its own, the policy, and a token that sees
all rows of the whole index, there and back. Recall of both against exact search over the tenant's rows, since an answer
that is cheap because rows are missing is none.

Then requests at random, with filters that reach for the rows of others, by every token in turn: foreign rows are
counted by the metadata of the source. Writes bench/results/policies.md, `policies.foreign_rows` and
`policies.cost_of_whole_index` and `policies.cost_of_own_index` (the largest of all), except with --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import results
from artifacts import Artifact, Serving, built, serving
from datasets import FOLDER, Dataset, real
from processes import Child, connect

HERE = Path(__file__).resolve().parent
FACTORIES = ("HNSW32,SQ8", "IVF64,SQ8")
SHARES = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01}
CONNECTIONS = (8, 64)
QUERIES = 2000
K = 10
EVERYBODY = "everybody"
"""The token that sees all rows."""
TURNS = ("alone", "policy", "whole", "whole", "policy", "alone")
REACHING: tuple[dict[str, Any] | None, ...] = (
    None,
    {"tenant": "other"},
    {"tenant": {"ne": "half"}},
    {"tenant": {"in": ["half", "tenth", "hundredth", "other"]}},
    {"not": {"tenant": "half"}},
    {"or": [{"tenant": {"exists": True}}, {"not": {"tenant": {"exists": True}}}]},
    {"and": [{"or": [{"tenant": "tenth"}, {"tenant": {"gte": ""}}]}]},
)
"""Filters of a hostile client."""


@dataclass
class Measured:
    """One case: CPU microseconds a query of each turn."""

    factory: str
    tenant: str
    rows: int
    connections: int
    alone: list[float] = field(default_factory=list)
    policy: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    recall: dict[str, float] = field(default_factory=dict)

    def of(self, other: list[float]) -> float:
        """The policy's cost as a multiple of another one."""
        return statistics.median(self.policy) / statistics.median(other)


def token_of(tenant: str) -> str:
    return f"the-token-of-{tenant}-0123456789"


def tenants_of(dataset: Dataset) -> tuple[Dataset, dict[str, Dataset], npt.NDArray[np.str_]]:
    """The data with a column `tenant`; that of each tenant alone; and the tenant of each row. Ids are row numbers."""
    table = pq.read_table(dataset.path, columns=["vector"])
    names = [*SHARES, "other"]
    chosen = np.random.default_rng(11).choice(names, len(table), p=[*SHARES.values(), 1 - sum(SHARES.values())])
    table = table.append_column("id", pa.array(np.arange(len(table)))).append_column("tenant", pa.array(chosen))
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in ("tenants", *SHARES):
        one = found[name] = Dataset(f"{dataset.name}-{name}", FOLDER / f"{dataset.name}-{name}.parquet")
        if not one.path.exists():
            pq.write_table(table if name == "tenants" else table.filter(pa.array(chosen == name)), one.path)
    return found.pop("tenants"), found, chosen


@contextlib.contextmanager
def guarded(artifact: Artifact, folder: Path, *, policies: bool) -> Iterator[Serving]:
    """A searcher with a token for each tenant."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SHARES, EVERYBODY):
        (folder / name).write_text(token_of(name))
    told = {"VECTORINDEX_TOKEN_FILE": str(folder)}
    if policies:
        stated: list[dict[str, Any]] = [{"token": name, "filter": {"tenant": name}} for name in SHARES]
        stated.append({"token": EVERYBODY, "allRows": True})
        (folder / "policies.json").write_text(json.dumps(stated))
        told["VECTORINDEX_POLICIES"] = str(folder / "policies.json")
    with serving(artifact, environment=told) as server:
        yield server


def ask(connection: http.client.HTTPConnection, tenant: str, body: dict[str, Any]) -> Any:
    """The answer to one search; ends the benchmark where it is none."""
    headers = {"Authorization": f"Bearer {token_of(tenant)}"}
    connection.request("POST", "/v1/search", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{answer.status} {text[:300]!r}")
    return orjson.loads(text)


def recall_of(server: Serving, tenant: str, queries: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    """Share of the K nearest of the tenant's own rows that are found. truth: ids [n, K]."""
    found = 0
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for query, nearest in zip(queries, truth, strict=True):
            found += len(
                {*ask(connection, tenant, {"vector": query, "k": K})["results"][0]["ids"]} & {*nearest.tolist()}
            )
    return found / truth.size


def measure(factory: str, dataset: Dataset, rounds: int, seconds: float) -> list[Measured]:
    """All tenants of one kind of index."""
    whole, alone, tenants = tenants_of(dataset)
    queries = dataset.queries(QUERIES)
    raw = FOLDER / f"{dataset.name}-policies-queries.npy"
    np.save(raw, queries)
    vectors = np.stack(pq.read_table(whole.path, columns=["vector"]).column("vector").to_numpy(zero_copy_only=False))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    with contextlib.ExitStack() as stack:
        together = stack.enter_context(
            guarded(built(whole, factory, metadata=("tenant",)), FOLDER / "tokens-policies", policies=True)
        )
        load = Child(str(HERE / "load_client.py"), str(raw), core=None)
        stack.callback(load.close)
        for name, own in alone.items():
            rows = np.flatnonzero(tenants == name)
            some = queries[:300]
            truth = rows[np.argsort(-(some @ unit[rows].T), axis=1, kind="stable")[:, :K]]
            with guarded(built(own, factory), FOLDER / "tokens-alone", policies=False) as apart:
                asked = {"alone": (apart, name), "policy": (together, name), "whole": (together, EVERYBODY)}
                recalls = {turn: recall_of(asked[turn][0], name, some, truth) for turn in ("alone", "policy")}
                for connections in CONNECTIONS:
                    case = Measured(factory, name, len(rows), connections, recall=recalls)
                    for _ in range(rounds):
                        for turn in TURNS:
                            server, token = asked[turn]
                            connect(load, server.port, connections, "binary", token=token_of(token))
                            before = server.cpu()
                            answer = load.ask(json.dumps({"do": "closed", "seconds": seconds}))
                            getattr(case, turn).append((server.cpu() - before) / answer["count"] * 1e6)
                    found.append(case)
                    print(
                        f"{factory}, {name}, {connections}: {case.of(case.whole):.2f} {case.of(case.alone):.2f}",
                        file=sys.stderr,
                        flush=True,
                    )
    return found


def foreign_rows(factory: str, dataset: Dataset, requests: int) -> tuple[int, int]:
    """Rows of others, and all rows, in the answers to requests at random."""
    whole, _, tenants = tenants_of(dataset)
    queries, draw, foreign, seen = dataset.queries(QUERIES), random.Random(4), 0, 0
    server = guarded(built(whole, factory, metadata=("tenant",)), FOLDER / "tokens-policies", policies=True)
    with (
        server as one,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)) as connection,
    ):
        for _ in range(requests):
            body: dict[str, Any] = {"k": draw.choice((1, K, 100, 1000)), "track": draw.random() < 0.1}
            if (filtered := draw.choice(REACHING)) is not None:
                body["filter"] = filtered
            chosen = [queries[draw.randrange(QUERIES)] for _ in range(draw.choice((1, 1, 4)))]
            body |= {"vector": chosen[0]} if len(chosen) == 1 else {"vectors": chosen}
            for name in draw.sample([*SHARES], 3):
                ids = [number for result in ask(connection, name, body)["results"] for number in result["ids"]]
                foreign += int(np.count_nonzero(tenants[ids] != name))
                seen += len(ids)
    return foreign, seen


def page(dataset: Dataset, found: list[Measured], counts: dict[str, tuple[int, int]], requests: int) -> str:
    """The Markdown page."""
    head = ("index", "tenant's rows", "connections", "all rows, us", "policy, us", "own index, us", "policy / all rows",
            "policy / own index", "recall, policy", "recall, own index")  # fmt: skip
    rows = [
        (one.factory, one.rows, one.connections, *map(statistics.median, (one.whole, one.policy, one.alone)),
         f"**{one.of(one.whole):.2f}**", one.of(one.alone), one.recall["policy"], one.recall["alone"])
        for one in found
    ]  # fmt: skip
    parts = [
        "# What a policy costs, and what it hides\n",
        f"`python bench/policies.py`, {results.stamp()}. {results.machine()}.\n",
        f"{dataset.name}. CPU of the whole searcher a query, median of turns that alternate: a token that sees all "
        "rows of an index, one whose policy allows it some of them, and an index of these rows alone. Recall@10 "
        "against exact search over the tenant's rows.\n",
        results.table(head, rows),
        "\n| index | requests | rows answered | of others |\n|---|---|---|---|",
        *(f"| {name} | {3 * requests} | {seen} | **{foreign}** |" for name, (foreign, seen) in counts.items()),
    ]
    return "\n".join([*parts, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of one index; writes no results")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn")
    parser.add_argument("--requests", type=int, default=2000, help="at random, each by every token")
    parser.add_argument("--factory", action="append", help=f"of an index, again for more (default: {FACTORIES})")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.requests = 1, 0.5, 100
    dataset = real()
    factories = options.factory or (FACTORIES[:1] if options.quick else FACTORIES)
    found = [case for factory in factories for case in measure(factory, dataset, options.rounds, options.seconds)]
    counts = {factory: foreign_rows(factory, dataset, options.requests) for factory in factories}
    text = page(dataset, found, counts, options.requests)
    print(text)
    if not options.quick:
        results.write_page("policies", text)
        results.add_to_summary(
            {
                "policies.foreign_rows": sum(foreign for foreign, _ in counts.values()),
                "policies.cost_of_whole_index": max(one.of(one.whole) for one in found),
                "policies.cost_of_own_index": max(one.of(one.alone) for one in found),
            }
        )


if __name__ == "__main__":
    main()
