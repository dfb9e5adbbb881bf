"""Whether a layer of tests can run here: decided in this one place.

A layer that needs something this machine lacks is skipped with the reason; where `CI=true` it fails, so that nobody
takes a layer that never ran for one that passed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def unavailable(layer: str, lacks: str, remedy: str) -> NoReturn:
    """End the test that needs `layer`: skip, or fail where CI=true."""
    message = f"the {layer} layer cannot run here: {lacks}. {remedy}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def program(layer: str, name: str) -> Path:
    """A program that hack/local-cluster builds (kubernetes, helm). Never builds it: that takes minutes."""
    path: Path = local_layout().binary(name)
    if not path.exists():
        unavailable(layer, f"{name} is not built", f"Build it once: hack/local-cluster/cluster binary {name}")
    return path


def local_layout() -> Any:
    """Names, addresses and paths of the local cluster: its module, which is no part of the Python path."""
    sys.path.insert(0, str(CHECKOUT / "hack" / "local-cluster"))
    try:
        from localcluster import layout
    finally:
        sys.path.pop(0)
    return layout
