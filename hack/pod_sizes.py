"""What pods take for so many rows, from the project's own formulas: docs/reference/pod-sizes.md.

`PYTHONPATH=hack python -m pod_sizes --write` writes the page; `--check` tells whether it is what the code says. It is
part of neither plane, as it asks both: the data plane how large an index becomes (index/memory.py) and what a build
takes (build/budget.py), the control plane what a pod of it is given (manifests/sizing.py). Builds nothing.
"""

from __future__ import annotations

from pathlib import Path

from vectorindex_operator.manifests import sizing
from vectorindex_plugin.estimate import sizes
from vectorindex_searcher.generated import write_or_check
from vectorindex_searcher.index.choose.families import lists_for, parts_for

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "pod-sizes.md"
ROWS = (100_000, 1_000_000, 10_000_000, 100_000_000)
DIMENSIONS = (128, 768)
CORES = (1, 4)
_MIB = 1 << 20
_MANY = 10_000
"""MiB from which on GiB are fine enough."""
_HEAD = ("rows", "index", "its file", "searcher, 1 core", "searcher, 4 cores", "its disk", "build", "its disk")


def factories(rows: int, dimension: int) -> tuple[str, ...]:
    """As `Auto` has them for so many rows."""
    lists = lists_for(rows)
    codes = f"PQ{parts_for(dimension, 4)}x4fs"
    return "Flat", "HNSW32,SQ8", f"IVF{lists},SQ8", f"IVF{lists // 2},{codes},Refine(SQ8)", f"IVF{lists // 2},{codes}"


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for dimension in DIMENSIONS:
        lines = [f"## {dimension} dimensions", "", f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
        lines += [_line(factory, rows, dimension) for rows in ROWS for factory in factories(rows, dimension)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(factory: str, rows: int, dimension: int) -> str:
    found = sizes(factory, rows, dimension)
    assert found is not None, f"{factory} is not known to index/memory.py"
    one, several = (found.pod(cores) for cores in CORES)
    cells = [f"{rows:,}", f"`{factory}`", _quantity(found.index), _range(*one[:2]), _range(*several[:2])]
    cells += [_quantity(one[2]), _range(found.least, found.whole), _quantity(found.build_disk)]
    return f"| {' | '.join(cells)} |"


def _range(low: int, high: int) -> str:
    first, last = _quantity(low), _quantity(high)
    return first if first == last else f"{first} to {last}"


def _quantity(size: int) -> str:
    """As Kubernetes takes it, rounded up."""
    mebibytes = -(-size // _MIB)
    return f"{mebibytes}Mi" if mebibytes < _MANY else f"{-(-mebibytes // 1024)}Gi"


_INTRODUCTION = f"""<!-- Generated from the formulas of the code by `make generate`; edit hack/pod_sizes.py. -->
# What a pod takes for so many rows

Computed, not measured: the index by `index/memory.py`, its build by `build/budget.py`, its searchers by
`manifests/sizing.py`. Metric Cosine, vectors of 32 bits, integer ids, no metadata. What filters may keep is in it.

- *Searcher*: memory, request to limit, as the operator computes them where `searcher.resources` has none. The cores are
  its CPU limit: each has a process of its own, and all share the index. *Its disk*: the request, half of the limit.
- A LiveRecall rule adds {_quantity(sizing.LIVE_RECALL_BYTES)} to both, {_quantity(sizing.WORKER_SAMPLE_BYTES)} for each
  further core, and the vectors to the disk (4 bytes a number); polling adds {_quantity(sizing.LISTING_BYTES)} to the
  limit.
- *Build*: memory limit (`build.resources.limits.memory`), the least to the best. Below the least a build ends with
  `NotEnoughMemory`; up to the best it trains on a smaller sample. *Its disk*: what to ask for as `ephemeral-storage`
  (vectors, ids and index; while rows are moved, ids twice and no index).
- Metadata and the letters of text ids come on top, in each searcher and on each disk.
- Which of them is the fastest at the recall that is needed, `Auto` measures
  ([index-choice.md](../index-choice.md)). The last of each five has 4-bit codes and nothing else: little recall, shown
  as the least that there is."""


def main(arguments: list[str] | None = None) -> int:
    """Write the page (--write) or tell whether it is what it should be (--check)."""
    return write_or_check("pod_sizes", PAGE, page(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
