"""Whether a kubeconfig may do what is about to be done: asked of the API server before anything is made.

The rights are read off what the chart makes, so that no list of them can fall behind: its objects, and, since nobody
may give what they do not have, every rule of its roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness import release
from harness.base import Image
from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Json, Kube, resource_of

API = "/apis/vectorindex.dev/v1alpha1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
HANDLED = ("get", "create", "patch", "delete")
"""What Helm, or kubectl, does with an object."""
WHOLE_CLUSTER = ("Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding")
"""What is made where no namespace is named."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """`resource` with its subresource, `name` of the only object that it is about."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        resource, slash, sub = self.resource.partition("/")
        kind = f"{resource}.{self.group}" if self.group else resource
        return f"{self.verb} {kind}{slash}{sub}" + (f" {self.name}" if self.name else "")


def _all(group: str, resource: str, *verbs: str) -> set[Right]:
    return {Right(group, resource, verb) for verb in verbs}


HELMS = _all("", "secrets", "get", "list", "create", "update", "delete") | _all("apps", "replicasets", "list")
"""Where it keeps a release, and how it waits for one."""
DEMOS = (
    _all("", "pods", "get", "list", "watch", "create", "patch", "delete")
    | _all("", "pods/exec", "create")
    | _all("", "pods/log", "get")
    | _all("", "pods/portforward", "create")
    | _all("", "secrets", *HANDLED)
    | _all("", "serviceaccounts", "get")
    | _all("", "services", "list", *HANDLED)
    | _all("", "services/proxy", "create")
    | _all("apps", "deployments", "list", "watch", *HANDLED)
    | _all("batch", "jobs", "list")
    | _all("events.k8s.io", "events", "list")
    | _all("vectorindex.dev", "vectorindexes", "list", *HANDLED)
    | _all("vectorindex.dev", "vectorindexrevisions", "get", "list")
)
"""What the demo itself does in its namespace: an S3 server, a port-forward to it, queries out of a pod, a search."""


def needed(objects: Iterable[Json]) -> set[Right]:
    """What it takes to install these objects of the chart."""
    found: set[Right] = set()
    for one in objects:
        found |= _all(*resource_of(one["kind"]), *HANDLED)
        for rule in one.get("rules", ()):
            found |= {
                Right(group, resource, verb, name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for name in rule.get("resourceNames", [""])
            }
    return found


def lacking(kube: Kube, namespace: str, rights: Iterable[Right]) -> list[Right]:
    """Those that the API server says this kubeconfig has not. `namespace`: empty for what is the cluster's."""
    return [right for right in sorted(set(rights)) if not _allowed(kube, namespace, right)]


def require(kube: Kube) -> None:
    """Raises HarnessError that names the rights that are lacking, or the CRDs, and who mends it how."""
    cluster = kube.cluster
    if not cluster.namespace:
        missing = lacking(kube, "", {Right(*resource_of(kind), "create") for kind in WHOLE_CLUSTER})
        if missing:
            remedy = (
                "Where you have rights in a namespace alone, name it: CLUSTER_NAMESPACE=NAMESPACE (docs/elsewhere.md)"
            )
            raise HarnessError(_without(missing, "in the cluster", remedy))
        return
    status, _ = kube.call("GET", API)
    if status == 404:
        raise HarnessError(f"this cluster knows no VectorIndex.\n{for_an_administrator(cluster.namespace)}")
    unnamed = Image("example/vectorindex-operator", "any")
    made = release.objects(cluster, Images(unnamed, unnamed))
    missing = lacking(kube, cluster.namespace, needed(made) | HELMS | DEMOS)
    if missing:
        where = f"in namespace {cluster.namespace}"
        raise HarnessError(_without(missing, where, for_an_administrator(cluster.namespace)))


def for_an_administrator(namespace: str) -> str:
    """What somebody with rights over the cluster runs in this checkout, once."""
    return "\n  ".join(
        [
            "Somebody with rights over the cluster makes what is its own, and gives you two roles (docs/elsewhere.md):",
            "helm upgrade --install vectorindex-operator charts/vectorindex-operator --namespace vectorindex-system "
            "--create-namespace --set scope=cluster",
            f"kubectl create rolebinding vectorindex-admin -n {namespace} --clusterrole=admin --user=WHO",
            f"kubectl create rolebinding vectorindex-installer -n {namespace} "
            "--clusterrole=vectorindex-operator-installer --user=WHO",
        ]
    )


def _without(missing: Sequence[Right], where: str, remedy: str) -> str:
    lines = "\n  ".join(map(str, missing))
    return f"this kubeconfig lacks {len(missing)} rights {where}:\n  {lines}\n{remedy}"


def _allowed(kube: Kube, namespace: str, right: Right) -> bool:
    resource, _, sub = right.resource.partition("/")
    about = {"namespace": namespace, "group": right.group, "resource": resource, "subresource": sub, "verb": right.verb}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": about | {"name": right.name}},
    }
    status, answer = kube.call("POST", REVIEWS, body=review)
    if status >= 400:
        raise HarnessError(
            f"the API server does not say what this kubeconfig may do: {status}: {answer.get('message')}"
        )
    return bool(answer["status"]["allowed"])
