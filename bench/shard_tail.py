"""How long does a query wait for the slowest of 1 to 64 shards, and when should a second pod be asked?

    python bench/shard_tail.py [--measure] [--quick]

A simulation (fan_out.py) with service times that were measured: CPU time of a searcher process, HTTP and all, for each
of some thousands of single queries. They are kept in bench/results/service_times.json, so that the page can be made
again without them; `--measure` takes them anew (100,000 x 128 as HNSW32,SQ8, built once). Latencies are in median
service times, so the machine matters little; network, and the router's own work, are in none. Rules of second requests
are compared at what pods suffer beside their work (TROUBLES). Writes bench/results/shard_tail.md and, in summary.json,
shards.tail_* of 64 shards.
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results
from artifacts import Serving, built, serving
from datasets import clustered
from fan_out import BURST, SHARE, FanOut, Floats, Found, Of, Rule, Trouble
from load_client import requests_of

KEPT = Path(__file__).resolve().parent / "results" / "service_times.json"
ROWS, DIMENSION, FACTORY = 100_000, 128, "HNSW32,SQ8"
QUERIES, WARM, ROUNDS = 3000, 300, 5
WHAT = (
    f"CPU of a searcher process for one query over HTTP, binary bodies, one connection, k = 10, least of {ROUNDS} times"
)
SHARDS = (1, 3, 8, 16, 32, 64)
BUSY = (0.3, 0.5)
"""Shares of its time that a pod works on first requests; the second of some troubles only."""
NONE = Rule("none", None)
OWN = Rule("p95, own budget")
CHOSEN = Rule("p95 and 3 medians of the quickest pod, own budget", of=Of.QUICKEST, least=3.0)
COMMON = Rule("p95 and 3 medians of the quickest pod, one budget", of=Of.QUICKEST, least=3.0, common_budget=True)
SOONEST = Rule(f"{COMMON.name}, pods by latency", of=Of.QUICKEST, least=3.0, common_budget=True, soonest=True)
RULES = (NONE, OWN, CHOSEN, Rule("p95 of all shards, one budget", of=Of.ALL, common_budget=True), COMMON, SOONEST)
SMOOTH = Trouble("nothing else")
STALLS = Trouble("one search in 100 takes 10 times as long", stalled=0.01, stall=10.0)
ALSO_BUSY = (SMOOTH, STALLS)
TROUBLES = (
    SMOOTH,
    STALLS,
    Trouble("each pod pauses for 1 % of its time, 100 median service times at once", pause=100.0, pause_share=0.01),
    Trouble("one pod of one shard is 5 times slower", slow=((0, 0, 5.0),)),
    Trouble("times are skewed (a factor exp(0.9 x a normal deviate))", skew=0.9),
    Trouble("both pods of one shard are 1.6 times slower", slow=((0, 0, 1.6), (0, 1, 1.6))),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One simulation."""

    trouble: Trouble
    busy: float
    shards: int
    rule: Rule
    found: Found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="take service times anew")
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    options = parser.parse_args()
    if options.measure and not options.quick:
        keep(measured())
    kept = json.loads(KEPT.read_text())
    times = in_medians(kept)
    counts, queries = ((1, 3, 8), 300) if options.quick else (SHARDS, 4000)
    lines = [
        Line(trouble, busy, shards, rule, FanOut(shards, rule, trouble, times, busy).run(queries))
        for trouble in TROUBLES
        for busy in (BUSY if trouble in ALSO_BUSY else BUSY[:1])
        for shards in counts
        for rule in RULES
    ]
    text = page(lines, kept)
    print(text)
    if not options.quick:
        results.write_page("shard_tail", text)
        results.add_to_summary(headlines(lines))


# ------------------------------------------------------------------ service times


def measured() -> list[int]:
    """CPU microseconds of a searcher for each of QUERIES queries, one after the other on one connection: of ROUNDS
    rounds the least, since other programs of the machine push a search out of the caches."""
    data = clustered(ROWS, DIMENSION)
    requests = requests_of(data.queries(QUERIES + WARM), "binary", {})
    with serving(built(data, FACTORY)) as server:
        rounds = np.array([costs(server, requests) for _ in range(ROUNDS)])
    return [round(seconds * 1e6) for seconds in rounds.min(axis=0)]


def costs(server: Serving, requests: Sequence[bytes]) -> list[float]:
    """CPU seconds of each request but the first WARM."""
    found = []
    link = socket.create_connection(("127.0.0.1", server.port))
    for request in requests:
        before = server.cpu()
        link.sendall(request)
        head = _answer(link)
        found.append(server.cpu() - before)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit("a query was not answered")
        if b"\r\nConnection: close" in head:
            link.close()
            link = socket.create_connection(("127.0.0.1", server.port))
    link.close()
    return found[WARM:]


def _answer(link: socket.socket) -> bytes:
    """Its head."""
    data = b""
    while True:
        more = link.recv(1 << 16)
        if not more:
            raise SystemExit("the searcher closed the connection")
        data += more
        head, blank, body = data.partition(b"\r\n\r\n")
        if blank:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) >= length:
                return head


def keep(microseconds: Sequence[int]) -> None:
    """results/service_times.json."""
    made = {
        "data": f"{ROWS:,} clustered vectors x {DIMENSION}, {FACTORY}",
        "machine": results.machine(),
        "microseconds": list(microseconds),
        "taken": results.stamp(),
        "what": WHAT,
    }
    KEPT.write_text(json.dumps(made, indent=None) + "\n")


def in_medians(kept: Mapping[str, object]) -> Floats:
    """Service times in medians, [n]. The slowest thousandth is cut to the rest: it is the machine's other programs,
    and what pods suffer is put in by TROUBLES."""
    times = np.array(kept["microseconds"], dtype=np.float64)
    return np.minimum(times, np.quantile(times, 0.999)) / np.median(times)


# ------------------------------------------------------------------ page


def headlines(lines: Sequence[Line]) -> dict[str, float]:
    """Of the most shards, pods busy for BUSY[0] of their time, in median service times."""
    most = max(line.shards for line in lines)

    def found(trouble: Trouble, rule: Rule) -> Found:
        (one,) = [x.found for x in lines if (x.trouble, x.busy, x.shards, x.rule) == (trouble, BUSY[0], most, rule)]
        return one

    return {
        f"shards.tail_p99_{most}": found(SMOOTH, NONE).quantile(0.99),
        f"shards.tail_p99_{most}_hedged": found(SMOOTH, CHOSEN).quantile(0.99),
        f"shards.tail_p99_{most}_stalls": found(STALLS, NONE).quantile(0.99),
        f"shards.tail_p99_{most}_stalls_hedged": found(STALLS, CHOSEN).quantile(0.99),
        f"shards.tail_hedged_share_{most}": found(STALLS, CHOSEN).again,
    }


def page(lines: Sequence[Line], kept: Mapping[str, object]) -> str:
    """bench/results/shard_tail.md."""
    times = np.array(kept["microseconds"], dtype=np.float64)
    median, high, most = np.quantile(times, (0.5, 0.99, 0.999))
    parts = [
        f"""# The tail of many shards

`python bench/shard_tail.py`, {results.stamp()}. **Simulated**, with service times that were measured: {kept["data"]};
{kept["what"]}; {len(times):,} queries, median {median:.0f} us, p99 {high:.0f} us (cut at p99.9, {most:.0f} us).
{kept["machine"]}, {kept["taken"]}.

Latencies of whole queries, in median service times. Every shard has two pods; a pod works on one request at a time. A
first request goes to the pod with fewer requests. Second ones are {100 * SHARE:.0f} % of the first ones at most,
{BURST:.0f} of a shard saved up at most; what lost is worked on to its end. Network and the router's own work
are not in it.

- **{NONE.name}**: nobody is asked again.
- **{OWN.name}**: after the 95th percentile of the shard's last latencies; each shard earns and spends its own 5 %.
- **one budget**: shards earn and spend together.
- **p95 of all shards**: of all their latencies together.
- **p95 and 3 medians of the quickest pod**: the larger of a pod's p95 and three of its medians; of a shard's pods the
  smaller one.
- **pods by latency**: a first request goes to the pod with the least (requests + 1) x median of its last latencies.

What follows:

- The 95th percentile alone asks again for one request in twenty, always: where nothing is wrong that is only load, and
  p99 is worse than with no second requests. With three medians as well hardly anybody is asked again there.
- Never a moment from other shards' latencies, nor a common budget: a shard that is slow for a while is then asked twice
  for everything, which is what keeps it slow.
- A pod that is slow for good is better not asked (pods by latency): its shard's own budget is too small for it.
- Second requests help while pods have time left. Half busy, with stalls, they help little or do harm."""
    ]
    for trouble in TROUBLES:
        for busy in sorted({line.busy for line in lines if line.trouble == trouble}):
            chosen = [line for line in lines if line.trouble == trouble and line.busy == busy]
            parts.append(f"## {trouble.name.capitalize()}; pods {100 * busy:.0f} % busy\n\n{_table(chosen)}")
    return "\n\n".join(parts)


def _table(lines: Sequence[Line]) -> str:
    head = ["shards", *(f"{rule.name}: p50, p99 (asked again)" for rule in RULES)]
    rows: dict[int, list[object]] = {}
    for line in lines:
        found = line.found
        again = f" ({100 * found.again:.1f} %)" if line.rule.quantile is not None else ""
        cell = f"{found.quantile(0.5):.1f}, {found.quantile(0.99):.1f}{again}"
        rows.setdefault(line.shards, [line.shards]).append(cell)
    return results.table(head, list(rows.values()))


if __name__ == "__main__":
    main()
