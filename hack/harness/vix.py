"""A VectorIndex from the outside: apply it, read what became of it, wait for it, explain what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from harness.errors import HarnessError
from harness.kube import Json, Kube

INDEX_LABEL = "vectorindex.dev/index"
REVISION_LABEL = "vectorindex.dev/revision"
VERB_LABEL = "vectorindex.dev/verb"
DECISION = "vectorindex.dev/decision"
ENDED = ("Stable", "Rejected", "RolledBack", "BuildFailed", "SurgeFailed", "Superseded", "Retired")


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the traffic is where it is: the annotation of the front Service. `at`: Unix seconds, operator's clock."""

    kind: str
    from_revision: str
    to_revision: str
    rule: str
    reason: str
    message: str
    at: float


class VectorIndexHandle:
    """One VectorIndex by name; it need not exist yet."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name

    # ------------------------------------------------------------ write

    def apply(self, manifest: Json | Path) -> Json:
        """Server-side apply of a manifest, or of the VectorIndex in a YAML file; namespace and name are this one's."""
        document = read_manifest(manifest) if isinstance(manifest, Path) else manifest
        meta = {**document["metadata"], "namespace": self.namespace, "name": self.name}
        return self.kube.apply({**document, "metadata": meta})

    def patch(self, change: Json) -> Json:
        """A merge patch, e.g. {"spec": {"searcher": {"replicas": 3}}}."""
        return self.kube.patch("VectorIndex", self.name, self.namespace, change)

    def verb(self, name: str, value: str) -> None:
        """`vectorindex.dev/NAME: [argument@]nonce`, as the kubectl plugin will write it."""
        self.patch({"metadata": {"annotations": {f"vectorindex.dev/{name}": value}}})

    def touch(self, value: str) -> None:
        """A change that means nothing, as a GitOps tool makes it: the operator looks, and finds nothing to do."""
        self.patch({"metadata": {"annotations": {"example.com/touched": value}}})

    def delete(self, *, wait: float = 90) -> None:
        """Deletes it and waits until it and everything it owns is gone."""
        self.kube.delete("VectorIndex", self.name, self.namespace)
        self.kube.wait_gone("VectorIndex", self.name, self.namespace, wait)
        self.kube.wait_for(
            lambda: not self.children(), wait, f"the children of {self.label} to go", last_seen=lambda: self._names()
        )

    # ------------------------------------------------------------ read

    @property
    def label(self) -> str:
        return f"VectorIndex {self.namespace}/{self.name}"

    def get(self) -> Json:
        """The object. Raises HarnessError when it is not there."""
        found = self.kube.get("VectorIndex", self.name, self.namespace)
        if found is None:
            raise HarnessError(f"there is no {self.label}")
        return found

    def status(self) -> Json:
        """Its status, {} before the first."""
        status: Json = self.get().get("status", {})
        return status

    def condition(self, kind: str) -> Json:
        """One condition, {} when it is not there."""
        return next((c for c in self.status().get("conditions", []) if c["type"] == kind), {})

    def revisions(self) -> dict[str, Json]:
        """Its VectorIndexRevisions by name, oldest first."""
        mine = [
            item
            for item in self.kube.list("VectorIndexRevision", self.namespace)
            if item["spec"].get("index") == self.name
        ]
        return {item["metadata"]["name"]: item for item in sorted(mine, key=_age)}

    def revision(self, name: str) -> Json:
        """The status of one revision, {} when there is none."""
        found = self.kube.get("VectorIndexRevision", name, self.namespace)
        status: Json = (found or {}).get("status", {})
        return status

    def jobs(self, *verbs: str) -> list[Json]:
        """Its Jobs (of these verbs: resolve, build, validate), oldest first."""
        selector = f"{INDEX_LABEL}={self.name}" + (f",{VERB_LABEL} in ({','.join(verbs)})" if verbs else "")
        return sorted(self.kube.list("Job", self.namespace, selector), key=_age)

    def pods(self, revision: str = "") -> list[Json]:
        """The pods of its Jobs and searchers, or the searchers of one revision."""
        selector = f"{INDEX_LABEL}={self.name}"
        if revision:
            selector += f",{REVISION_LABEL}={revision},app.kubernetes.io/component=searcher"
        return self.kube.list("Pod", self.namespace, selector)

    def events(self) -> Sequence[Json]:
        """The operator's Events about it, oldest first."""
        return self.kube.events(self.namespace, self.name)

    def service(self) -> Json | None:
        """The Service that users query."""
        return self.kube.get("Service", self.name, self.namespace)

    def traffic(self) -> str:
        """The revision that the Service selects; empty before the first."""
        service = self.service()
        return str(service["spec"]["selector"].get(REVISION_LABEL, "")) if service else ""

    def decision(self) -> Decision | None:
        """The last decision about the traffic."""
        service = self.service()
        text = ((service or {}).get("metadata", {}).get("annotations") or {}).get(DECISION)
        if not text:
            return None
        raw = json.loads(text)
        return Decision(
            kind=raw["kind"],
            from_revision=raw["from"],
            to_revision=raw["to"],
            rule=raw["rule"],
            reason=raw["reason"],
            message=raw["message"],
            at=float(raw["at"]),
        )

    def children(self) -> list[Json]:
        """Everything that carries its label: revisions, Jobs, Deployments, Services, pods, PDBs."""
        kinds = ("VectorIndexRevision", "Job", "Deployment", "Service", "Pod", "PodDisruptionBudget", "NetworkPolicy")
        selector = f"{INDEX_LABEL}={self.name}"
        return [{"kind": kind, **item} for kind in kinds for item in self.kube.list(kind, self.namespace, selector)]

    # ------------------------------------------------------------ wait

    def wait(self, probe: Callable[[], Any], timeout: float, what: str) -> Any:
        """As wait_for; failure explains this index."""
        return self.kube.wait_for(probe, timeout, f"{self.label}: {what}", last_seen=self.explain)

    def wait_condition(self, kind: str, status: str = "True", *, reason: str = "", timeout: float = 180) -> Json:
        """Until the condition is so for the newest generation; the condition."""

        def reached() -> Json | None:
            seen = self.get()
            if seen.get("status", {}).get("observedGeneration") != seen["metadata"]["generation"]:
                return None
            found = next((c for c in seen["status"].get("conditions", []) if c["type"] == kind), None)
            right = found is not None and found["status"] == status and (not reason or found["reason"] == reason)
            return found if right else None

        found: Json = self.wait(reached, timeout, f"{kind}={status}{f' ({reason})' if reason else ''}")
        return found

    def wait_new_revision(self, known: set[str], timeout: float = 120) -> str:
        """The name of a revision that is not in `known`."""
        name: str = self.wait(
            lambda: next((n for n in self.revisions() if n not in known), None), timeout, "a revision"
        )
        return name

    def wait_revision(self, name: str, *phases: str, timeout: float = 300) -> str:
        """Until the revision is in one of `phases`; which. Raises at once when it ended in another way."""

        def reached() -> str | None:
            phase = str(self.revision(name).get("phase", ""))
            if phase in phases:
                return phase
            if phase in ENDED:
                message = self.revision(name).get("message", "")
                raise HarnessError(f"{name} ended as {phase}, not {' or '.join(phases)}: {message}\n{self.explain()}")
            return None

        phase: str = self.wait(reached, timeout, f"{name} to be {' or '.join(phases)}")
        return phase

    # ------------------------------------------------------------ explain

    def explain(self) -> str:
        """What is known about it, for a person who must find out why it does not go on."""
        found = self.kube.get("VectorIndex", self.name, self.namespace)
        if found is None:
            return f"there is no {self.label}"
        status = found.get("status", {})
        lines = [f"phase {status.get('phase')} ({status.get('reason')}), Service -> {self.traffic() or 'nothing'}"]
        lines += [f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.get("conditions", [])]
        lines += [f"blocked by {b['rule']} {b['subject']}: {b.get('message', '')}" for b in status.get("blockedBy", [])]
        lines += [f"revision {n}: {r.get('status', {}).get('phase')}" for n, r in self.revisions().items()]
        lines += [f"event {e['at']} {e['reason']}: {e['note']}" for e in self.events()[-12:]]
        return "\n".join(f"  {line}" for line in [*lines, *self._pod_lines()])

    def _pod_lines(self) -> list[str]:
        lines = []
        for pod in self.pods():
            name, state = pod["metadata"]["name"], pod.get("status", {})
            containers = state.get("containerStatuses", [])
            ready = any(c.get("ready") for c in containers)
            if ready or state.get("phase") == "Succeeded":
                continue
            waiting = [c["state"]["waiting"].get("reason", "") for c in containers if "waiting" in c.get("state", {})]
            lines.append(f"pod {name}: {state.get('phase')} {' '.join(waiting)}")
            lines += [f"  {line}" for line in self.kube.logs(name, self.namespace, lines=15).splitlines()]
        return lines

    def _names(self) -> str:
        return ", ".join(f"{item['kind']}/{item['metadata']['name']}" for item in self.children())


def read_manifest(path: Path) -> Json:
    """The VectorIndex of a YAML file."""
    for document in yaml.safe_load_all(path.read_text()):
        if document and document.get("kind") == "VectorIndex":
            found: Json = document
            return found
    raise HarnessError(f"{path} has no VectorIndex")


def unix(timestamp: str) -> float:
    """Seconds of an RFC 3339 timestamp."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def _age(item: Json) -> tuple[str, str]:
    return item["metadata"]["creationTimestamp"], item["metadata"]["name"]
