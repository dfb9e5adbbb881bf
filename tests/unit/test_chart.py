"""The chart's files against each other. What Helm makes of them is tested in the apiserver layer."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import yaml
from chart import CHART
from layers import CHECKOUT

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of the leaves; an empty map or a list is one."""
    for name, value in values.items():
        if isinstance(value, dict) and value and prefix + name != "resources":
            yield from paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_value_stands_in_the_readme() -> None:
    readme = (CHART / "README.md").read_text()
    table = {name for row in readme.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row)}
    assert set(paths(VALUES)) - table == set()


def test_schema_and_values_name_the_same_things() -> None:
    def compare(schema: dict[str, Any], values: dict[str, Any], where: str) -> None:
        known = set(schema["properties"]) - {"global"}
        if schema.get("additionalProperties") is False:
            assert set(values) <= known, where
        for name in known & set(values):
            if "properties" in schema["properties"][name]:
                compare(schema["properties"][name], values[name], f"{where}.{name}")

    compare(SCHEMA, VALUES, "values")
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)


def test_every_value_is_read_by_a_template() -> None:
    text = "".join(path.read_text() for path in CHART.glob("templates/**/*") if path.is_file())
    for path in paths(VALUES):
        parent = path.rpartition(".")[0]
        assert f".Values.{path}" in text or (parent and f".Values.{parent}" in text), path


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
