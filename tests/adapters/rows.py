"""The rows that the adapters are tested on, and the examples of docs/client.md."""

from __future__ import annotations

from typing import Any

import numpy as np
from layers import CHECKOUT

DIMENSION = 8
DATA = np.random.default_rng(23).standard_normal((400, DIMENSION)).astype(np.float32)


def row(number: int) -> dict[str, Any]:
    """Every fifth row has no section, row 10 no text."""
    return {
        "id": f"row-{number}",
        "vector": DATA[number].tolist(),
        "text": None if number == 10 else f"text {number}",
        "section": None if number % 5 == 0 else ("home", "garden")[number % 2],
        "year": 2000 + number % 5,
        "tags": [f"t{number % 3}", f"u{number % 2}"],
    }


def example(heading: str, url: str) -> dict[str, Any]:
    """Runs the example below a heading of docs/client.md against this searcher; answers its variables."""
    page = (CHECKOUT / "docs" / "client.md").read_text(encoding="utf-8")
    code = page.partition(f"## {heading}\n")[2].partition("```python\n")[2].partition("```")[0]
    assert "http://products.shop.svc" in code, heading
    found: dict[str, Any] = {}
    exec(code.replace("http://products.shop.svc", url).replace("384", str(DIMENSION)), found)
    return found
