"""Questions that people wrote by hand, with the documents that answer them: asked in words, each once."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from demo.data import SOURCE
from demo.stage import Stage
from harness import traffic as loads
from harness.traffic import Snapshot, Traffic

QUESTIONS = SOURCE / "handwritten.tsv"
RATE = 5.0
"""Few beside the vectors: a text takes a core 6 ms, and it is not ONNX Runtime that is to be shown."""
SHOWN_FIRST = 10
POD = "words"


def questions(path: Path = QUESTIONS) -> list[tuple[str, tuple[str, ...]]]:
    """Search requests, and of each the ids that are right answers."""
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return [
        (json.dumps({"text": text, "k": SHOWN_FIRST, "segment": kind}), tuple(right.split()))
        for kind, text, right in rows
    ]


def asked(stage: Stage) -> AbstractContextManager[Traffic]:
    """Asks them, beside the traffic that goes on; ends by itself."""
    bodies, expected = zip(*questions(), strict=True)
    bounds = {"rate": RATE, "connections": 4, "max_queries": len(bodies)}
    return loads.to_index(stage.kube, stage.images, stage.index, bodies, pod=POD, expected=expected, **bounds)


def told(seen: Snapshot) -> str:
    """For a person, how it went."""
    return (
        f"{seen.queries - seen.failed} of {seen.queries} answered, {share_found(seen):.0%} with a right document in "
        f"the first {SHOWN_FIRST}, p50 {seen.p50_ms:.1f} ms, p95 {seen.p95_ms:.1f} ms"
    )


def share_found(seen: Snapshot) -> float:
    """Of the questions, those with a right document among the first hits."""
    return seen.found / seen.queries if seen.queries else 0.0
