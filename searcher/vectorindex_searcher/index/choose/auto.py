"""`Auto`: which kind of index to build, measured on samples. See docs/adr/0009-auto-measures.md.

    1  memory    the formula drops what does not fit the limit; if nothing does, that is said before anything is built
    2  screen    one index of each family on a small sample
    3  deepen    the best families, and variants of the best one, on a larger sample, graphs as well built as it pays;
                 the growth between samples tells how the time of a query grows, and so what it will be on all rows
    4  race      whoever is expected to be the fastest, or close to it, is measured on the largest sample; of graphs
                 over the same codes only the one that computes the least, since that order does not change with rows

Builds nothing that is kept and never reads the source: it gathers rows of vectors.npy. Memory: the sample and at most
RACERS indexes of it, or some more of a smaller sample.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable

from ...contract import Effort, Metric, Minimise
from ...errors import BadSpec
from ..factory import EF_CONSTRUCTION, ef_construction, small
from ..sizes import size_text
from ..vectors import VectorFile
from .candidates import Entry, even_out, lightest, new_entry
from .choice import Choice, Goal, conclude, within_memory
from .families import Kind, is_graph, kind_of, same_links, scaled, shortlist, variants
from .sample import Sample, draw_sample, whole
from .trial import Bench, raised
from .tuning import K

AUTO = "Auto"
SCREEN_ROWS = 6_000
SCREEN_SHARE = 5
"""Of few rows that part."""
SCREEN_QUERIES = 150
"""Of anything but graphs: enough to tell families apart that are SCREEN_SLACK times as slow."""
DEEP_ROWS = 24_000
TOP_ROWS = 100_000
LEAST_ROWS = 500
"""A smaller sample says nothing: then every family is measured on all rows."""
RACERS = 2
"""Indexes built on the largest sample, beside one that shows how well graphs are to be built there."""
MOST_RACERS = 4
"""As long as somebody is expected to be the fastest whom it has not seen."""
SAMPLE_BYTES = 128 << 20
DEEP_QUERIES = 300
"""Graphs, whose search is cheap beside their build, are asked all: what more rows take from their recall is seen in
less than a hundredth of it."""
RACE_QUERIES = TUNING_QUERIES = 1000
"""What `build` tunes the chosen index with. In the race as many: where three lists are visited or four, that is a
quarter of the time, and fewer queries cannot tell which."""
MARGIN = 2 * 1.645 / math.sqrt(TUNING_QUERIES)
"""Times the spread of recall over queries: the two half-widths that tuning will ask for."""
SCREEN_SLACK = 2.5
"""A family this many times slower than the best of its kind on the small sample is not looked at again."""
KIND_SLACK = 6.0
"""Nor any of a kind whose best is this many times slower than the best of all."""
DEEP_ENTRIES = 3
"""So many of a kind are looked at again."""
CLIMBS = 2
"""Steps from the best lists of a kind to their neighbours: to half as many, say, and then to longer codes."""
CLIMB_SLACK = 2.5
"""From lists this many times slower than the best of all no step is taken, and they are not raced."""
MOST_LISTS_RACED = 6
"""On the largest sample. They are built in a tenth of a graph's time there, or less."""
LIST_KINDS = (Kind.LISTS, Kind.SCANNED)
WORTH = 1.04
"""A graph that takes twice as long to build has to be faster by this."""
CLEARLY = 1.2
"""By this on less rows than the largest sample has."""
EASY_BEAM = 1.5 * K
"""A graph that needs less than this of efSearch is good enough: less than K there cannot be."""
AS_FAST = 1.05
"""Of those that take longer by this at most the smallest wins: it suffers least where others use the caches too."""
CLOSE = 1.1
"""Whoever is expected to be slower than the leader by this ratio at most is raced too."""
AGAIN = 1.5
"""Whoever is expected to be slower by this at most might still be the fastest."""
BUSY = 3.0
"""And so might whoever was measured to be slower by this at most, while the machine was slow: it is timed again."""


def select(vectors: VectorFile, goal: Goal, threads: int, *, working_bytes: int = 0, seed: int = 0) -> Choice:
    """Choose the index for the rows of `vectors`.

    threads: OpenMP threads for building on the sample. working_bytes: memory the sample may take (0: SAMPLE_BYTES).
    Raises BadSpec/MemoryLimitTooSmall when the smallest family does not fit.
    """
    count, dimension, metric = vectors.count, vectors.dimension, vectors.metric

    def entries_of(factories: Iterable[str]) -> list[Entry]:
        smallest = goal.minimise is Minimise.MEMORY  # there is nothing to weigh: what is the fastest is not asked
        found = [(one, ef_construction(one, goal.effort) if smallest else None) for one in factories]
        return [new_entry(one, count, dimension, metric, effort) for one, effort in found]

    entries = entries_of(shortlist(count, dimension, goal.minimise))
    if goal.memory_limit is not None and sum(one.size.resident <= goal.memory_limit for one in entries) < DEEP_ENTRIES:
        known = {one.factory for one in entries}
        smaller = [one for one in shortlist(count, dimension, Minimise.MEMORY) if one not in known]
        entries += entries_of(smaller)
    fitting = within_memory(entries, goal)
    flat = next((one for one in fitting if one.factory == "Flat"), None)
    if flat is not None and goal.minimise is Minimise.LATENCY and small(count, dimension):
        reason = f"{count} x {dimension} is small: exact search is as fast as anything else"
        flat.verdict = f"chosen: {reason}"
        return Choice(flat.factory, (flat.wire(count),), reason)
    affordable = (working_bytes or SAMPLE_BYTES) // (4 * dimension)
    most = max(K + 1, min(TOP_ROWS, affordable))
    sample = draw_sample(vectors, most, RACE_QUERIES, seed)
    selection = _Selection(goal, count, dimension, metric, threads, entries)
    search = selection.smallest if goal.minimise is Minimise.MEMORY else selection.fastest
    winner = search(fitting, sample)
    return conclude(winner, selection.entries, goal, count)


class _Selection:
    """One run of `select`: the trials so far and what they say."""

    def __init__(
        self, goal: Goal, count: int, dimension: int, metric: Metric, threads: int, entries: list[Entry]
    ) -> None:
        self.goal, self.count, self.dimension, self.metric = goal, count, dimension, metric
        self.threads = threads
        self.entries = entries
        self.weighed = False
        """Whether it is known how well graphs are to be built."""

    def fastest(self, entries: list[Entry], sample: Sample) -> Entry:
        """The lowest expected latency on all rows: screened on a small sample, raced on the largest."""
        rows = len(sample.rows)
        sizes = (min(SCREEN_ROWS, rows // SCREEN_SHARE), DEEP_ROWS)
        rungs = [number for number in sizes if LEAST_ROWS <= number <= rows // 2]
        for number, some in enumerate(rungs):
            bench = Bench(sample.part(some), self.threads, of_lists=DEEP_QUERIES if number else SCREEN_QUERIES)
            if number == 1:
                entries = self._weighed(entries, bench, last=False)
            for one in entries:
                self._try(one, bench)
            if number == 0:
                entries = self._with_variants(self._ranked(entries)[0], entries, bench)
            else:
                entries = self._climbed(entries, bench)
            self._settle(entries, some)
            ranked = self._ranked(entries)
            entries = self._promising(ranked, MOST_LISTS_RACED if number else DEEP_ENTRIES)
        bench = Bench(sample, self.threads)
        if not rungs:
            for one in entries:
                self._try(one, bench)
            entries += self._variants(self._ranked(entries)[0])
        return self._race(entries, bench)

    def _promising(self, ranked: list[Entry], most: int) -> list[Entry]:
        """Those worth a larger sample: the best of each kind, so many at most. A small one tells kinds apart badly (of
        clusters, lists seem three times as slow as they are, and 4-bit codes are scanned by 32): each is compared with
        its own.
        """
        found: list[Entry] = []
        for kind in Kind:
            members = [one for one in ranked if kind_of(one.factory) is kind]
            if members and members[0].at(self.count) <= KIND_SLACK * ranked[0].at(self.count):
                limit = SCREEN_SLACK * members[0].at(self.count)
                found += [one for one in members if one.at(self.count) <= limit][:most]
        return self._ranked(found)

    def _climbed(self, entries: list[Entry], bench: Bench) -> list[Entry]:
        """With the neighbours of the best lists of each kind, and theirs: only a sample on which lists are as long as
        they will be tells how many of them there should be, and how long the codes."""
        for kind in LIST_KINDS:
            for _ in range(CLIMBS):
                self._time_again(entries, len(bench.sample.rows))
                ranked = self._ranked(entries)
                best = next((one for one in ranked if kind_of(one.factory) is kind), None)
                if best is None or best.at(self.count) > CLIMB_SLACK * ranked[0].at(self.count):
                    break
                entries = self._with_variants(best, entries, bench)
        return entries

    def _with_variants(self, best: Entry, entries: list[Entry], bench: Bench) -> list[Entry]:
        found = self._variants(best)
        for one in found:
            self._try(one, bench)
        return [*entries, *found]

    def _ranked(self, entries: list[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda one: one.at(self.count))

    def _weighed(self, entries: list[Entry], bench: Bench, *, last: bool) -> list[Entry]:
        """The entries with the graphs built as well as it pays, which the best of them shows.

        Links that were chosen well gain more the more rows there are (of 24,000 three per cent, of 61,000 forty), so
        where they gain little and this is not the `last` sample, it is not known yet.
        """
        ranked = self._ranked(entries)
        graph = next((one for one in ranked if is_graph(one.factory)), None)
        if graph is None or graph.at(self.count) > AGAIN * ranked[0].at(self.count):
            return entries
        self._try(graph, bench)
        reached = graph.last.best if graph.last else None
        if reached is not None and reached.params.get("efSearch", 0) < EASY_BEAM:
            return entries
        rows = len(bench.sample.rows)
        worth = 1.0 if self.goal.effort is Effort.HIGH else WORTH
        best, unclear = graph, False
        for effort in EF_CONSTRUCTION[self.goal.effort][1:]:
            heavier = self._known(graph.factory, effort) or self._new(graph.factory, effort, graph)
            self._try(heavier, bench)
            self._retime([best, heavier], rows)
            gain = self._gain(best, heavier, rows)
            if gain > (worth if last else max(worth, CLEARLY)):
                best.free(rows)
                best, unclear = heavier, False
            else:
                unclear = unclear or gain > 1.0
        self.weighed = last or not unclear
        if best is graph:
            return entries
        others = [one for one in entries if one is not graph]
        return [best, *(self._like(one, best) for one in others)]

    def _known(self, factory: str, ef_construction: int | None) -> Entry | None:
        return next(
            (one for one in self.entries if (one.factory, one.ef_construction) == (factory, ef_construction)), None
        )

    def _gain(self, best: Entry, heavier: Entry, rows: int) -> float:
        """How many times as fast the heavier graph is; by what both compute, which no busy neighbour changes."""
        here = [one.trials[rows].best if rows in one.trials else None for one in (best, heavier)]
        if here[0] is not None and here[1] is not None and here[0].work and here[1].work:
            return here[0].work / here[1].work
        times = best.at(self.count), heavier.at(self.count)
        return times[0] / times[1] if math.isfinite(times[1]) else 0.0

    def _raced(self, entries: list[Entry], rows: int) -> float:
        """The least time on the largest sample; the least that is expected while nobody was there."""
        known = [one.at(self.count) for one in entries if rows in one.trials]
        return min(known, default=math.inf) if known else self._ranked(entries)[0].at(self.count)

    def _like(self, one: Entry, best: Entry) -> Entry:
        """A graph built as `best` is; anything else as it is."""
        if not is_graph(one.factory):
            return one
        if one.trials:
            better = self._new(one.factory, best.ef_construction, one)
            one.verdict = f"measured further as {better.name}"
            return better
        one.ef_construction = best.ef_construction
        return one

    def _new(self, factory: str, ef_construction: int | None, parent: Entry) -> Entry:
        found = new_entry(factory, self.count, self.dimension, self.metric, ef_construction, parent)
        self.entries.append(found)
        return found

    def _race(self, entries: list[Entry], bench: Bench) -> Entry:
        """The fastest on the largest sample, by who is expected to be."""
        rows = len(bench.sample.rows)
        entries = lightest(entries)
        leader, *others = self._ranked(entries)
        expected = leader.at(self.count)
        lists = self._best_lists(entries)
        alone = not lists and all(one.at(self.count) > CLOSE * expected for one in others)
        steady = leader.last is not None and not leader.last.raised  # else more rows take more from it than from others
        if alone and self.weighed and steady and is_graph(leader.factory) and math.isfinite(expected):
            return leader  # nobody to race with, and more rows would say nothing new about a graph
        before = sum(rows in one.trials for one in entries)
        self._race_lists(lists, entries, bench)
        if not self.weighed:  # too few rows for it so far
            entries = self._weighed(entries, bench, last=True)
        for number in range(before, MOST_RACERS):
            # A variant that nobody has seen is expected to be as fast as its parent, not faster.
            limit = (CLOSE if number < RACERS else 0.99) * self._raced(entries, rows)
            waiting = [one for one in self._ranked(entries) if one.at(self.count) <= limit and rows not in one.trials]
            if not waiting or (self._try(waiting[0], bench) > limit and lists and is_graph(waiting[0].factory)):
                break  # a graph that lists beat speaks for the others: more rows take as much from them
        raced = [one for one in entries if rows in one.trials and math.isfinite(one.at(self.count))]
        self._settle(raced, rows)
        if raced:
            limit = AS_FAST * self._raced(raced, rows)
            return min((one for one in raced if one.at(self.count) <= limit), key=lambda one: one.size.resident)
        return max(self.entries, key=lambda one: max((t.ceiling for t in one.trials.values()), default=0.0))

    def _race_lists(self, lists: list[Entry], entries: list[Entry], bench: Bench) -> None:
        """These, and then others of their kinds that are expected to be about as fast as the fastest so far.

        What is expected of those by less rows is corrected by what the largest sample made of the raced ones of their
        kind: longer lists cost less than the exponent says where fewer of them need be visited.
        """
        rows = len(bench.sample.rows)
        seen: dict[Kind, list[float]] = {}
        racing = list(lists)
        while racing:
            for one in racing:
                expected = one.at(self.count)
                seen.setdefault(kind_of(one.factory), []).append(self._try(one, bench) / expected)
            raced = [one for one in entries if kind_of(one.factory) in seen and rows in one.trials]
            self._time_again(raced, rows)
            change = {kind: statistics.median(ratios) for kind, ratios in seen.items()}
            waiting = [
                (one.at(self.count) * change[kind_of(one.factory)], one.factory, one)
                for one in entries
                if rows not in one.trials and kind_of(one.factory) in seen and math.isfinite(one.at(self.count))
            ]
            limit = min(CLOSE * self._raced(entries, rows), sys.float_info.max)
            near = sorted(one for one in waiting if one[0] <= limit)
            racing = [one for *_, one in near[:1]] if len(raced) < MOST_LISTS_RACED else []

    def _best_lists(self, entries: list[Entry]) -> list[Entry]:
        """The best of each kind of lists if near enough to the best of all, and the second if nearer: raced first.

        They are built in a twentieth of a graph's time, and may show that no graph need be built there.
        """
        ranked = self._ranked(entries)
        least = ranked[0].at(self.count)
        found: list[Entry] = []
        for kind in LIST_KINDS:
            members = [one for one in ranked if kind_of(one.factory) is kind]
            slacks = zip(members, (CLIMB_SLACK, AGAIN), strict=False)
            found += [one for one, slack in slacks if one.at(self.count) <= slack * least]
        return found

    def _settle(self, entries: list[Entry], rows: int) -> None:
        """Time those close to the best again, in turns, since a machine changes its speed; then free the indexes."""
        self._time_again(entries, rows)
        for one in entries:
            one.free(rows)

    def _time_again(self, entries: list[Entry], rows: int) -> None:
        measured = [one for one in entries if rows in one.trials and math.isfinite(one.at(self.count))]
        if measured:
            limit = BUSY * min(one.at(self.count) for one in measured)
            self._retime([one for one in measured if one.at(self.count) <= limit], rows)

    def _retime(self, entries: list[Entry], rows: int) -> None:
        close = [one for one in entries if math.isfinite(one.at(self.count))]
        for _ in range(3 if len(close) > 1 else 0):
            for one in close:
                one.retime(rows)
        even_out(self.entries, rows)

    def smallest(self, entries: list[Entry], sample: Sample) -> Entry:
        """The smallest one that reaches the recall on all rows without being slower than exact search."""
        rows = len(sample.rows)
        fewer = sample.part(min(DEEP_ROWS, rows if whole(rows, self.count) else rows // 2))
        samples = [fewer] if len(fewer.rows) == rows else [fewer, sample]
        benches = [Bench(one, self.threads, exhaust=True) for one in samples]
        flat = next((one for one in self.entries if one.factory == "Flat"), None)
        if flat is not None:
            self._try(flat, benches[0])
        for entry in sorted(entries, key=lambda one: one.size.resident):
            if all(self._keeps_up(entry, flat, bench) for bench in benches) and self._lasts(entry):
                return entry
            for bench in benches:
                entry.free(len(bench.sample.rows))
        return max(entries, key=lambda one: one.last.ceiling if one.last else 0.0)

    def _keeps_up(self, entry: Entry, flat: Entry | None, bench: Bench) -> bool:
        """Whether it reaches the recall here and is not slower than exact search; close ones are timed again."""
        own = self._try(entry, bench)
        if flat is None or entry is flat or not math.isfinite(own):
            return math.isfinite(own)
        exact, rows = flat.at(self.count), len(bench.sample.rows)
        if exact / AGAIN < own < AGAIN * exact and rows in flat.trials:
            self._retime([entry, flat], rows)
        return entry.at(self.count) <= flat.at(self.count)

    def _lasts(self, entry: Entry) -> bool:
        """Whether the codes are fine enough for the recall on all rows, by what more rows took away so far."""
        *fewer, last = (entry.trials[rows] for rows in sorted(entry.trials))
        if not fewer or whole(last.rows, self.count):
            return True
        wanted = raised(self.goal.recall, (fewer[-1].rows, fewer[-1].ceiling), (last.rows, last.ceiling), self.count)
        wanted += MARGIN * last.best.spread if last.best else 0.0
        if last.ceiling < wanted:
            entry.verdict = f"recall {last.ceiling:.3f} at most on the sample, too little for all rows"
        return last.ceiling >= wanted

    def _variants(self, leader: Entry) -> list[Entry]:
        known = {one.factory for one in self.entries}
        found = [
            self._new(factory, leader.ef_construction if is_graph(factory) else None, leader)
            for factory in variants(leader.factory, self.dimension)
            if factory not in known
        ]
        for one in found:
            if same_links(one.factory, leader.factory):
                one.handicap = self._other_code(one.factory)
        if self.goal.memory_limit is not None:
            for one in found:
                if one.size.resident > self.goal.memory_limit:
                    one.verdict = f"over memoryLimit: needs {size_text(one.size.resident)}"
        return [one for one in found if not one.verdict]

    def _other_code(self, factory: str) -> float:
        """How many times as long a graph over these codes takes as one over the others: what those of 32 links did."""
        times = {one.factory: one.at(self.count) for one in self.entries if one.trials}
        whole, coded = times.get("HNSW32", math.inf), times.get("HNSW32,SQ8", math.inf)
        if not math.isfinite(whole) or not math.isfinite(coded):
            return 1.0
        return coded / whole if "," in factory else whole / coded

    def _try(self, entry: Entry, bench: Bench) -> float:
        """Measure it on this sample, once; the time to expect on all rows (`Entry.at`)."""
        rows = len(bench.sample.rows)
        if rows not in entry.trials:
            self._measure(entry, bench, rows)
        return entry.at(self.count)

    def _measure(self, entry: Entry, bench: Bench, rows: int) -> None:
        factory = scaled(entry.factory, self.count, rows)
        try:
            trial = bench.run(
                factory,
                self.goal.recall,
                entry.last,
                self.count,
                entry.ef_construction,
                guess=entry.parent.last_params if entry.parent else None,
                margin=MARGIN,
            )
        except (BadSpec, RuntimeError) as error:
            entry.verdict = f"FAISS cannot build it: {str(error)[:120]}"
            return
        entry.trials[rows] = trial
        even_out(self.entries, rows)
