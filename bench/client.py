"""What a search costs the program that asks, with the Python client; and what the client does under far too much.

    python bench/client.py [--quick] [--rounds 60] [--count 100]

CPU of the asking process for one search (binary both ways, k = 10, one vector a request), against a bare socket that
does the same in the same process; they take turns. Ratios are medians over rounds; microseconds in summary.json are the
least of the rounds, since whatever else runs on the machine only adds. The searcher is a process on another core.

Then overload: what a searcher of an exact index (10,000 x 768, a millisecond or two a search) answers 32 tasks is the
capacity; ten times as much is offered to one AsyncClient with a timeout of one second; afterwards 32 tasks ask again.
Writes bench/results/client.md and summary.json, except with --quick.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import results
from artifacts import built, serving
from datasets import FOLDER, Dataset, clustered, real
from processes import Child, per_query

HERE = Path(__file__).resolve().parent
QUERIES = 2000
TASKS = 32
FACTOR = 10
WAYS: dict[str, dict[str, Any]] = {
    "bare socket": {"do": "bare"},
    "Client": {"do": "sync", "threads": 1},
    "Client, 8 threads": {"do": "sync", "threads": 8},
    "bare asyncio, 1 task": {"do": "bare-asyncio", "tasks": 1},
    "AsyncClient, 1 task": {"do": "async", "tasks": 1},
    "bare asyncio, 32 tasks": {"do": "bare-asyncio", "tasks": TASKS},
    "AsyncClient, 32 tasks": {"do": "async", "tasks": TASKS},
}


def cost(dataset: Dataset, rounds: int, count: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CPU microseconds a search, one entry a round; and the same as ratios to the bare socket of that round."""
    spent: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    load, core = _load(dataset)
    try:
        with serving(built(dataset, "HNSW32,SQ8"), core=core) as server:
            load.ask(json.dumps({"do": "open", "port": server.port}))
            for _ in range(rounds):
                found = {name: per_query(load.ask(json.dumps({**way, "count": count}))) for name, way in WAYS.items()}
                for name, value in found.items():
                    spent[name].append(value)
                    ratios[name].append(value / found["bare socket"])
    finally:
        load.close()
    return spent, ratios


def overload(dataset: Dataset, seconds: float) -> dict[str, Any]:
    """Capacity, and what becomes of ten times as much."""
    load, core = _load(dataset)
    try:
        with serving(built(dataset, "Flat"), core=core) as server:
            load.ask(json.dumps({"do": "open", "port": server.port}))
            wanted = json.dumps({"do": "capacity", "seconds": seconds, "tasks": TASKS})
            load.ask(wanted)  # pages of the index come in
            able = load.ask(wanted)["rate"]
            offer = {"do": "offer", "seconds": seconds, "rate": FACTOR * able, "timeout": 1.0, "tasks": TASKS}
            return {"capacity": able, **load.ask(json.dumps(offer))}
    finally:
        load.close()


def _load(dataset: Dataset) -> tuple[Child, int | None]:
    """The asking process, on a core of its own where there are two; and the core for the searcher."""
    queries = FOLDER / f"{dataset.name}-client-queries.npy"
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(queries, dataset.queries(QUERIES))
    cores = sorted(os.sched_getaffinity(0))
    core, other = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    return Child(str(HERE / "client_load.py"), str(queries), core=other), core


def page(name: str, spent: dict[str, list[float]], ratios: dict[str, list[float]], over: dict[str, Any]) -> str:
    """The Markdown page."""
    rows = [
        (way, statistics.median(values), min(values), statistics.median(ratios[way])) for way, values in spent.items()
    ]
    became, offered = over["became"], over["offered"]
    shares = [(kind, count, f"{count / offered:.1%}") for kind, count in sorted(became.items(), key=lambda x: -x[1])]
    answered = over["inTime"] / over["seconds"] / over["capacity"]
    parts = [
        "# The Python client: what a search costs who asks, and ten times too much\n",
        f"`python bench/client.py`, {results.stamp()}. {results.machine()}.\n",
        f"CPU microseconds of the asking process for one search of {name}, binary both ways, k = 10, one vector a "
        "request; a bare socket does the same in the same process, taking turns. Medians over rounds.\n",
        results.busy() + "\n" * bool(results.busy()),
        results.table(("", "us a search", "least", "of the bare socket"), rows),
        "\n## Ten times too much\n",
        f"The searcher answers {over['capacity']:.0f} searches a second to {TASKS} tasks that ask again once answered. "
        f"Offered to one AsyncClient (timeout 1 s, the rest as by default): {offered / over['seconds']:.0f} a second "
        f"for {over['seconds']:.0f} s.\n",
        results.table(("became", "searches", "share"), shares),
        f"\nAnswered in that time: {answered:.0%} of the capacity, p50 {over['p50']:.0f} ms, p99 {over['p99']:.0f} ms. "
        f"The last was over {over['drained']:.1f} s after the load ended; then {TASKS} tasks got "
        f"{over['after'] / over['capacity']:.0%} of the capacity again. CPU of the asking process: "
        f"{over['cpu'] / offered * 1e6:.0f} us a search that was offered. `TooManyWaiting` is refused at once, "
        "`Timeout` ended at its deadline.",
    ]
    return "\n".join(parts)


def headlines(spent: dict[str, list[float]], ratios: dict[str, list[float]], over: dict[str, Any]) -> dict[str, float]:
    """Keys of summary.json. The dearer of the two ways of asyncio counts."""
    ways = ("AsyncClient, 1 task", "AsyncClient, 32 tasks")
    dearer = max(ways, key=lambda way: statistics.median(spent[way]))
    return {
        "client.sync_us": min(spent["Client"]),
        "client.async_us": min(spent[dearer]),
        "client.sync_ratio": statistics.median(ratios["Client"]),
        "client.async_ratio": statistics.median(ratios[dearer]),
        "client.overload_answered": over["inTime"] / over["seconds"] / over["capacity"],
        "client.overload_recovered": over["after"] / over["capacity"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, and nothing is written")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--count", type=int, default=100, help="searches a round and way: few, so that some rounds are undisturbed"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each part of the overload")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.count, chosen.seconds = 1, 200, 1.5
    dataset = real()
    spent, ratios = cost(dataset, chosen.rounds, chosen.count)
    over = overload(clustered(10_000, 768), chosen.seconds)
    text = page(dataset.name, spent, ratios, over)
    print(text)
    if not chosen.quick:
        results.write_page("client", text)
        results.add_to_summary(headlines(spent, ratios, over))


if __name__ == "__main__":
    main()
