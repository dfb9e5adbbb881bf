"""The kinds of index that `Auto` measures, as factory strings for a number of rows.

A family stands for its neighbours: `shortlist` has one of each kind, `variants` are what else a promising one could be
(other numbers of lists or links, shorter codes). Knows nothing of measuring.

Left out on purpose: PQm x8 (its training takes 60 to 100 times as long as x4fs and gains nothing), and IVF over inner
products of unit vectors (Cosine is built as L2).
"""

from __future__ import annotations

import math
import re
from enum import Enum

from ...contract import Minimise

MIN_ROWS_PER_LIST = 39
"""FAISS's own bound for a centroid that means something."""
ENOUGH_ROWS_PER_LIST = 20
"""On a sample, for a centroid that lies about where that of all rows will."""
MOST_LISTS_OF_AUTO = 1 << 16
_CODE_BOOK = 1 << 4
"""Centroids of a 4-bit code: fewer rows cannot train one."""
MANY_ROWS = 20_000
"""From so many on two more families cost little to screen beside the whole, and may win."""
GRAPH_LISTS = 4096
"""From so many lists on a graph finds them faster than a scan of all centroids does."""
GRAPH_TIMES = 4
"""How many times as many lists there are then: what a scan of a list costs is saved, and finding it costs little."""
_LISTS = re.compile(r"IVF(\d+)")
_LINKS = re.compile(r"HNSW(\d+)")


class Kind(Enum):
    """What a small sample compares badly with the others."""

    GRAPH = "graph"
    LISTS = "lists"
    SCANNED = "scanned"
    """Lists of 4-bit codes: scanned in blocks of 32, with a table that is made for each list or query."""


def lists_for(count: int) -> int:
    """The power of two nearest to 4 sqrt(count), with MIN_ROWS_PER_LIST rows in a list on average. At least 1."""
    if count < MIN_ROWS_PER_LIST:
        return 1
    wanted = round(math.log2(4 * math.sqrt(count)))
    possible = math.floor(math.log2(count / MIN_ROWS_PER_LIST))
    return int(min(2 ** min(wanted, possible), MOST_LISTS_OF_AUTO))


def parts_for(dimension: int, share: int) -> int:
    """Parts of a product quantizer: the divisor of `dimension` nearest to dimension / share; 0 when none is near."""
    wanted = dimension / share
    divisors = [parts for parts in range(1, dimension + 1) if dimension % parts == 0]
    best = min(divisors, key=lambda parts: abs(math.log(parts / wanted)))
    return best if 0.5 <= best / wanted <= 2 else 0


def shortlist(count: int, dimension: int, minimise: Minimise) -> tuple[str, ...]:
    """One factory string of each family for `count` rows. No two are equal."""
    lists = lists_for(count)
    parts = parts_for(dimension, 4) if count >= _CODE_BOOK else 0
    fewer = max(1, lists // 2)  # a scan of 4-bit codes is so fast that finding the lists is what costs
    compressed = [f"IVF{fewer},PQ{parts}x4fs,Refine(SQ8)"] if parts else []
    if minimise is Minimise.MEMORY:
        small = [f"IVF{fewer},PQ{parts}x4fs,Refine({code})" for code in ("SQ6", "SQ4")] if parts else []
        codes = [f"IVF{number},{code}" for code in ("SQ4", "RaBitQ4", "SQ6", "SQ8") for number in (fewer, lists)]
        return tuple(dict.fromkeys([*codes, *small, *compressed, "HNSW16,SQ6", "HNSW32,SQ8", "SQ8", "Flat"]))
    half = parts_for(dimension, 2) if count >= MANY_ROWS else 0  # of fewer rows it is tried beside the shorter one
    longer = [f"IVF{fewer},PQ{half}x4fs,Refine(SQfp16)"] if parts and half else []  # as exact as RFlat, and half of it
    bits = [f"IVF{lists},RaBitQ,Refine(SQ8)"] if count >= MANY_ROWS else []
    factories = ["HNSW32,SQ8", "HNSW32", *compressed, *longer, *bits]
    factories += [f"IVF{lists},SQ8", f"IVF{max(1, lists // 4)},SQ8", f"IVF{lists},Flat", "HNSW16,SQ8", "Flat"]
    if lists >= GRAPH_LISTS:
        many = min(GRAPH_TIMES * lists, MOST_LISTS_OF_AUTO, 2 ** math.floor(math.log2(count / MIN_ROWS_PER_LIST)))
        factories += [f"IVF{many}_HNSW32,SQ8"]
        factories += [f"IVF{many}_HNSW32,PQ{parts}x4fs,Refine(SQ8)"] if parts else []
    return tuple(dict.fromkeys(factories))


def variants(factory: str, dimension: int) -> tuple[str, ...]:
    """Neighbours of a factory string of `shortlist`: what else it could be once it is among the best."""
    found: list[str] = []
    if match := _LISTS.search(factory):
        found.append(with_lists(factory, max(1, int(match[1]) // 2)))
        found.append(with_lists(factory, 2 * int(match[1])))
    half = parts_for(dimension, 2)
    if half and "x4fs" in factory:
        found.append(re.sub(r"PQ\d+x4fs", f"PQ{half}x4fs", factory))
    for code, other in (("Refine(SQ8)", "Refine(SQfp16)"), ("Refine(SQfp16)", "Refine(SQ8)")):
        if factory.endswith(code):
            found.append(factory.replace(code, other))
    if is_graph(factory):
        code = factory.partition(",")[2]
        links = (16, 24, 32) if factory.startswith("HNSW16") else (24, 32, 48)
        found += [f"HNSW{number},{code}" if code else f"HNSW{number}" for number in links]
        found.append(factory.partition(",")[0] if code else f"{factory},SQ8")
    return tuple(other for other in dict.fromkeys(found) if other != factory)


def is_graph(factory: str) -> bool:
    """Whether the rows themselves are the graph's nodes."""
    return factory.startswith("HNSW")


def kind_of(factory: str) -> Kind:
    """How a factory string finds its answers."""
    if is_graph(factory):
        return Kind.GRAPH
    return Kind.SCANNED if "x4fs" in factory else Kind.LISTS


def same_links(one: str, other: str) -> bool:
    """Whether two factory strings are graphs that differ in the codes of their rows alone."""
    return is_graph(one) and one != other and one.partition(",")[0] == other.partition(",")[0]


def links_in(factory: str) -> int:
    """Number of links of a graph's rows that a factory string names; 0 without such a graph."""
    match = _LINKS.match(factory)
    return int(match[1]) if match else 0


def lists_in(factory: str) -> int:
    """Number of lists that a factory string names; 0 without an IVF."""
    match = _LISTS.search(factory)
    return int(match[1]) if match else 0


def with_lists(factory: str, lists: int) -> str:
    """The same factory string with another number of lists."""
    return _LISTS.sub(f"IVF{lists}", factory, count=1)


def scaled(factory: str, count: int, rows: int) -> str:
    """What a factory string for `count` rows becomes on a sample of `rows`: as many lists, where these get enough rows.
    Clusters are as many on a sample as on all rows, so only then it is seen that a list is about a cluster.

    Elsewhere times sqrt(rows / count), and where a graph finds the lists, times rows / count: as long lists then cost
    as much, and the graph's own share hardly grows with their number.
    """
    lists = lists_in(factory)
    if not lists or rows >= min(count, ENOUGH_ROWS_PER_LIST * lists):
        return factory
    steps = round(math.log2(count / rows if "_HNSW" in factory else math.sqrt(count / rows)))
    return with_lists(factory, max(1, min(lists >> steps, max(1, rows // 8))))
