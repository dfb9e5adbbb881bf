"""Golden files of rendered objects. After an intended change: UPDATE_GOLDENS=1 pytest ..., then read the diff."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


class Plain(yaml.SafeDumper):
    """Writes the same object twice instead of once with an alias: a golden is read by people."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def assert_golden(golden: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """The objects are those of the file `golden`, which is written first where UPDATE_GOLDENS is set."""
    text = yaml.dump_all(list(objects), Dumper=Plain, sort_keys=False, width=120)
    if os.environ.get("UPDATE_GOLDENS"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
