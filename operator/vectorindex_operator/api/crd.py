"""The CustomResourceDefinitions and the reference page, generated from the models.

`python -m vectorindex_operator.api.crd --write` writes crds/, the chart's copy and docs/reference/api.md;
`--check` prints what would change and fails. Needs a checkout. Talks to no cluster.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vectorindex_operator.api import pod, reference, v1alpha1
from vectorindex_operator.api.schema import Style, publish, structural

CHECKOUT = Path(__file__).resolve().parents[3]
SIZE_LIMIT = 256 * 1024
"""`kubectl apply` keeps the whole object in an annotation of at most this size."""

LIST_KEYS: dict[type[BaseModel], str] = {
    v1alpha1.Condition: "type",
    v1alpha1.Segment: "name",
    v1alpha1.SegmentFloor: "name",
    v1alpha1.GuardrailRule: "name",
    pod.EnvVar: "name",
    pod.Volume: "name",
    pod.VolumeMount: "mountPath",
}
USER_WRITES = Style(list_keys=LIST_KEYS)
OPERATOR_WRITES = Style(defaults=False, rules=False, numbers=False, atomic=True, list_keys=LIST_KEYS)

NAME_RULE = {
    "rule": (
        f"size(self.metadata.name) <= {v1alpha1.NAME_LIMIT}"
        " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ),
    "message": (
        f"metadata.name must be a DNS-1035 label of at most {v1alpha1.NAME_LIMIT} characters (a-z, 0-9 and -, first a"
        " letter): the names of Services and revisions are made from it"
    ),
    "fieldPath": ".metadata.name",
}
IMMUTABLE_RULE = {"rule": "self == oldSelf", "message": "a revision never changes: edit its VectorIndex instead"}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its names, its schema (with the marks for the reference page) and how `kubectl get` shows it."""

    name: str
    plural: str
    short: str
    schema: dict[str, Any]
    columns: tuple[tuple[str, str, str], ...]
    subresources: dict[str, Any]
    copies: tuple[str, ...] = ()
    """Of the status, what is a copy of the spec: described there, and not once more. A CRD has a limit."""

    def crd(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        published = publish(self.schema)
        for name in self.copies:
            copy = published["properties"]["status"]["properties"][name]
            copy["properties"] = _unworded(copy["properties"])
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{self.plural}.{v1alpha1.GROUP}"},
            "spec": {
                "group": v1alpha1.GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.name,
                    "listKind": f"{self.name}List",
                    "plural": self.plural,
                    "singular": self.name.lower(),
                    "shortNames": [self.short],
                    "categories": ["vectorindex"],
                },
                "versions": [
                    {
                        "name": v1alpha1.VERSION,
                        "served": True,
                        "storage": True,
                        "additionalPrinterColumns": [
                            {"name": name, "type": kind, "jsonPath": path} for name, kind, path in self.columns
                        ],
                        "subresources": self.subresources,
                        "schema": {"openAPIV3Schema": published},
                    }
                ],
            },
        }


def _unworded(fields: dict[str, Any]) -> dict[str, Any]:
    """The schemas of fields without their descriptions, at any depth; a field of that name stays."""
    out = {}
    for name, schema in fields.items():
        kept = {key: value for key, value in schema.items() if key != "description"}
        if "properties" in kept:
            kept["properties"] = _unworded(kept["properties"])
        for inner in ("items", "additionalProperties"):
            if isinstance(kept.get(inner), dict):
                kept[inner] = _unworded({"": kept[inner]})[""]
        out[name] = kept
    return out


def _root(text: str, spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": text,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def vector_index() -> Kind:
    """The kind that users write."""
    root = _root(
        "A FAISS index as a declared, versioned, verified deployment.",
        structural(v1alpha1.VectorIndexSpec, USER_WRITES),
        structural(v1alpha1.VectorIndexStatus, OPERATOR_WRITES),
    )
    root["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}  # so that a rule may point at it
    root["x-kubernetes-validations"] = [NAME_RULE]
    return Kind(
        name="VectorIndex",
        plural="vectorindexes",
        short="vix",
        schema=root,
        columns=(
            ("Phase", "string", ".status.phase"),
            ("Stable", "string", ".status.stable"),
            ("Candidate", "string", ".status.candidate"),
            ("Recall", "string", ".status.recall"),
            ("Ready", "string", ".status.ready"),
            ("RolledOut", "string", '.status.conditions[?(@.type=="RolledOut")].status'),
            ("Reason", "string", ".status.reason"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.searcher.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        copies=("live",),
    )


def vector_index_revision() -> Kind:
    """The kind that only the operator writes."""
    spec = structural(v1alpha1.RevisionSpec, OPERATOR_WRITES)
    spec["x-kubernetes-validations"] = [IMMUTABLE_RULE]
    return Kind(
        name="VectorIndexRevision",
        plural="vectorindexrevisions",
        short="vixr",
        schema=_root(
            "One immutable build of a VectorIndex and the evidence about it. Written by the operator only.",
            spec,
            structural(v1alpha1.RevisionStatus, OPERATOR_WRITES),
        ),
        columns=(
            ("Index", "string", ".spec.index"),
            ("Digest", "string", ".spec.digest"),
            ("Phase", "string", ".status.phase"),
            ("Recall", "string", ".status.recall"),
            ("P95", "string", ".status.p95"),
            ("Size", "string", ".status.size"),
            ("Device", "string", ".status.build.device"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
        subresources={"status": {}},
    )


def kinds() -> tuple[Kind, ...]:
    """Every kind of the group."""
    return vector_index(), vector_index_revision()


# ---------------------------------------------------------------- files


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, lists indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _template(crd: dict[str, Any]) -> str:
    """The CRD as a Helm template behind `crds.enabled`, kept on uninstall while `crds.keep`."""
    text = _yaml({"spec": crd["spec"]})
    if "{{" in text:
        raise ValueError("a description or rule holds '{{', which Helm would read as its own")
    return (
        "{{- /* Generated from the models by `make generate`; edit those. */}}\n"
        '{{- if and .Values.crds.enabled (ne .Values.scope "namespace") }}\n'
        f"apiVersion: {crd['apiVersion']}\n"
        f"kind: {crd['kind']}\n"
        "metadata:\n"
        f"  name: {crd['metadata']['name']}\n"
        "  labels:\n"
        '    {{- include "vectorindex-operator.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
        f"{text}"
        "{{- end }}\n"
    )


def kept_bytes(crd: Mapping[str, Any]) -> int:
    """What `kubectl apply` keeps of it: JSON as Go writes it, which escapes what HTML would read."""
    text = json.dumps(crd, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode()) + 5 * sum(text.count(one) for one in "<>&")


def files() -> dict[str, str]:
    """Path below the checkout -> content, of everything generated. Raises ValueError for a CRD above SIZE_LIMIT."""
    out: dict[str, str] = {}
    for kind in kinds():
        crd = kind.crd()
        text = "# Generated from the models by `make generate`; edit those.\n" + _yaml(crd)
        if (size := kept_bytes(crd)) >= SIZE_LIMIT:
            raise ValueError(f"the CRD of {kind.name} takes {size} bytes; the limit is {SIZE_LIMIT}")
        out[f"crds/{v1alpha1.GROUP}_{kind.plural}.yaml"] = text
        out[f"charts/vectorindex-operator/templates/crds/{kind.plural}.yaml"] = _template(crd)
    out["docs/reference/api.md"] = reference.page(
        v1alpha1.API_VERSION, [(kind.name, kind.short, kind.schema) for kind in kinds()]
    )
    return out


def write(root: Path) -> list[str]:
    """Write what differs below `root`; answers the paths written."""
    changed = []
    for path, text in files().items():
        target = root / path
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def drift(root: Path) -> str:
    """The difference between the files below `root` and what the models say; empty when there is none."""
    out: list[str] = []
    for path, text in files().items():
        target = root / path
        old = target.read_text(encoding="utf-8") if target.exists() else ""
        out += difflib.unified_diff(old.splitlines(True), text.splitlines(True), path, f"{path} (models)")
    return "".join(out)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    parser = argparse.ArgumentParser(prog="crd", description="Generate the CRDs and the reference page.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the files that differ")
    mode.add_argument("--check", action="store_true", help="fail with a diff when a file differs")
    if parser.parse_args(arguments).write:
        sys.stdout.writelines(f"wrote {path}\n" for path in write(CHECKOUT))
        return 0
    difference = drift(CHECKOUT)
    if difference:
        sys.stderr.write(f"{difference}generated files differ from the models: run `make generate`\n")
    return 1 if difference else 0


if __name__ == "__main__":
    raise SystemExit(main())
