"""Where figures go: tables in bench/results/*.md, headline ratios in summary.json there; and the machine's name."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
SUMMARY = FOLDER / "summary.json"


def machine() -> str:
    """One line: processor, cores, memory, kernel, Python, FAISS, and what else the machine did meanwhile."""
    import faiss

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, FAISS {faiss.__version__} ({faiss.get_compile_options().strip()}), "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def busy() -> str:
    """A warning for the page when other programs shared the cores; empty otherwise."""
    cores = len(os.sched_getaffinity(0))
    if os.getloadavg()[0] <= cores:
        return ""
    return (
        "**The machine was busy**: more programs ran than it has cores. They push each other out of the caches, which "
        "costs a search (all memory) more than the work around it, so shares come out higher than on an idle machine, "
        "and latencies mean little. Measure again when it is idle."
    )


def stamp() -> str:
    """When, and which commit."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {found.stdout.strip() or 'unknown'}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits that count."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(_text(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def write_page(name: str, text: str) -> Path:
    """bench/results/NAME.md, replaced."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.md"
    path.write_text(text.rstrip() + "\n")
    return path


def add_to_summary(figures: Mapping[str, float]) -> None:
    """Set these keys of summary.json; the others stay."""
    FOLDER.mkdir(exist_ok=True)
    known = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
    known.update({name: _kept(value) for name, value in figures.items()})
    SUMMARY.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def _kept(value: float) -> float:
    """Four decimals; of a very small figure two digits that count, since 0 would be another one."""
    return round(value, 4) if value == 0 or abs(value) >= 5e-4 else float(f"{value:.1e}")


def _text(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
