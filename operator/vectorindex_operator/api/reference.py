"""The reference page of the API, as Markdown, from the schemas that the CRDs are made of. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vectorindex_operator.api.schema import MODEL, refusal_of

_INTRO = """<!-- Generated from the models by `make generate`; edit those. -->
# API reference: `{version}`

Durations are numbers with a unit (`90s`, `15m`, `1h30m`, `2d`), percentages end in `%`, memory and CPU are Kubernetes
quantities. What is a number needs no quotes, whatever it may be else: `cpu: 2`, `poll: 0`, `max: 3.5`. A field without
a default may be left out unless it is **required**. Fields that are not on this page are refused by `kubectl apply`
(strict validation) and dropped where validation is off.
"""


def page(version: str, kinds: Sequence[tuple[str, str, dict[str, Any]]]) -> str:
    """The whole page. `kinds`: name, short name and root schema (with its marks) of each kind."""
    out = [_INTRO.format(version=version)]
    for name, short, root in kinds:
        out.append(f"## {name}\n\n{root['description']} Short name: `{short}`.\n")
        out += [f"- {_rule(rule)}" for rule in root.get("x-kubernetes-validations", ())]
        if root.get("x-kubernetes-validations"):
            out.append("")
        for part in ("spec", "status"):
            out += _sections(name, part, root["properties"][part], {})
    return "\n".join(out).rstrip() + "\n"


def _sections(kind: str, path: str, node: dict[str, Any], seen: dict[Any, str]) -> list[str]:
    """A table for the object at `path`, then one for each object below it that has none yet."""
    seen[node[MODEL]] = path
    out = [f"### {kind} {path}\n"]
    if node.get("description"):
        out.append(_prose(node["description"]) + "\n")
    out += ["| field | type | default | bounds | description |", "|---|---|---|---|---|"]
    later: list[tuple[str, dict[str, Any]]] = []
    required = node.get("required", ())
    refused = {name: why for name, child in node["properties"].items() if (why := refusal_of(child))}
    for name, child in node["properties"].items():
        if name in refused:
            continue
        listed = child.get("type") == "array"
        inner = child["items"] if listed else child
        where = f"{path}.{name}" + ("[]" if listed else "")
        link = ""
        if MODEL in inner:
            known = seen.get(inner[MODEL])
            if known is None:
                later.append((where, inner))
                known = seen[inner[MODEL]] = where  # also for what is nested in one of those that come before it
            link = f"[{_type(child)}](#{_anchor(kind, known)})"
        default = "**required**" if name in required else _default(child)
        cells = (f"`{name}`", link or _type(child), default, _bounds(child), _prose(child.get("description", "")))
        out.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    out.append("")
    rules = node.get("x-kubernetes-validations", ())
    if rules:
        out += ["Rules:\n", *(f"- {_rule(rule)}" for rule in rules), ""]
    if refused:
        out += ["Refused, whatever the value:\n", *(f"- `{name}`: {why}" for name, why in refused.items()), ""]
    for where, inner in later:
        out += _sections(kind, where, inner, seen)
    return out


def _anchor(kind: str, path: str) -> str:
    """GitHub's anchor of a heading: lower case, punctuation gone, spaces as hyphens."""
    return f"{kind}-{path}".lower().replace(".", "").replace("[]", "")


def _prose(text: str) -> str:
    return " ".join(text.split())


def _rule(rule: dict[str, str]) -> str:
    return f"{rule['message']} (`{rule['rule']}`)"


def _type(node: dict[str, Any]) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "integer or string"
    if "type" not in node:
        return "number or string"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node["type"] == "object":
        values = node.get("additionalProperties")
        return f"map of {_type(values)}" if values else "object"
    return str(node["type"])


def _default(node: dict[str, Any]) -> str:
    if "default" not in node or (MODEL in node and node["default"] == {}):
        return ""
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`"


def _bounds(node: dict[str, Any]) -> str:
    """Allowed values in words: "Retain", "1 to 1000", "at most 63 characters"."""
    if node.get("type") == "array":
        inner = _bounds(node["items"]) if MODEL not in node["items"] else ""
        return "; ".join(part for part in (_range(node, "Items", "items"), inner and f"each: {inner}") if part)
    if node.get("type") == "object":
        return _range(node, "Properties", "entries")
    if "enum" in node:
        return ", ".join(f"`{value}`" if value else "empty" for value in node["enum"])
    parts = []
    if "minimum" in node or "maximum" in node:
        low, high = node.get("minimum"), node.get("maximum")
        above = "above" if node.get("exclusiveMinimum") else "at least"
        below = "below" if node.get("exclusiveMaximum") else "at most"
        if low is not None and high is not None and (above, below) == ("at least", "at most"):
            parts.append(f"{low} to {high}")
        else:
            parts += [f"{above} {low}"] if low is not None else []
            parts += [f"{below} {high}"] if high is not None else []
    parts.append(_range(node, "Length", "characters"))
    if "pattern" in node:
        parts.append(f"`{node['pattern']}`")
    parts += [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    return "; ".join(part for part in parts if part)


def _range(node: dict[str, Any], suffix: str, unit: str) -> str:
    low, high = node.get(f"min{suffix}", 0), node.get(f"max{suffix}")
    if high is None:
        return f"at least {low} {unit}" if low else ""
    return f"{low} to {high} {unit}" if low else f"at most {high} {unit}"
