"""One team's GitOps on a cluster that others use as well: an Argo CD, the operator that it deploys from the chart in
Git, and a namespace with the indexes that it deploys.

The operator has a class and a namespace of its own, and Argo CD looks at no others, so that several of these, and
other releases of the chart, stand beside each other. CRDs are the cluster's: whoever has no operator yet installs those
of this checkout, and nobody else's release is changed.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from e2e.operator_release import Operator
from e2e.workspace import Workspace
from gitops import argocd
from gitops.applications import application
from gitops.argocd import ArgoCD
from gitops_cluster.plane import LocalPlane

from harness import release, s3
from harness.base import CHECKOUT, Cluster
from harness.errors import HarnessError
from harness.images import Images
from harness.kube import Json, Kube
from harness.vix import VectorIndexHandle

CLASS = "vectorindex.dev/operator-class"
KEY = "vectorindex-internal"
CHART = "chart"
READY_SECONDS = 180
FIRST_REVISION_SECONDS = 300
DELETED_SECONDS = 240
"""A searcher drains for most of a minute."""


@dataclass(slots=True)
class Site:
    """`name`: of the operator's release, class and Application. `space`: the indexes' namespace, and its bucket."""

    argo: ArgoCD
    space: Workspace
    operator: Operator
    name: str
    values: Json

    # ------------------------------------------------------------ the operator

    def deploy_chart(self) -> None:
        """The chart of this checkout in Git, and its Application, Synced and Healthy."""
        shutil.copytree(release.CHART, self.argo.repository / CHART, ignore=shutil.ignore_patterns("testdata"))
        self.argo.commit({})
        made = application("vectorindex-operator")
        made["metadata"]["name"] = self.name
        made["spec"]["source"]["helm"] = {"releaseName": self.name, "valuesObject": self.values}
        made["spec"]["destination"]["namespace"] = self.operator.namespace
        self.argo.apply(made, CHART)
        self.synced(self.name, "Healthy", READY_SECONDS)

    def upgrade_chart(self, change: Callable[[Path], None]) -> None:
        """What `change` does to the chart's folder, committed; until another pod of the operator is at work."""
        before = {pod["metadata"]["uid"] for pod in self.operator.pods()}
        change(self.argo.repository / CHART)
        self.argo.commit({})
        self.argo.refresh(self.name)

        def other() -> bool:
            pods = {pod["metadata"]["uid"] for pod in self.operator.pods()}
            return bool(pods) and not pods & before

        self.argo.wait("another pod of the operator", other, READY_SECONDS, name=self.name)
        self.synced(self.name, "Healthy", READY_SECONDS)

    def operator_writes(self) -> int:
        """What the operator has written, its Lease apart: since its pod began."""
        (pod,) = self.operator.pods()
        return int(sum(self.operator.metric("vectorindex_api_writes_total", pod["metadata"]["name"]).values()))

    # ------------------------------------------------------------ indexes

    def index(self, name: str) -> Index:
        """One that need not exist yet; its Application and its file in Git have its name, too."""
        handle = VectorIndexHandle(self.space.kube, self.space.namespace, name)
        return Index(self, replace(self.space, index=handle), name)

    # ------------------------------------------------------------ looks

    def synced(self, name: str, health: str, seconds: float = 60.0) -> None:
        """Until an Application is Synced and of this health."""
        argo = self.argo
        argo.wait(
            f"{name} to be Synced and {health}", lambda: argo.states(name) == ("Synced", health), seconds, name=name
        )


@dataclass(slots=True)
class Index:
    """An index in Git, with an Application for it alone."""

    site: Site
    space: Workspace
    name: str

    @property
    def handle(self) -> VectorIndexHandle:
        return self.space.index

    def commit(self, manifest: Json) -> None:
        """The manifest in Git, as this site's operator takes it; Argo CD is not told."""
        meta = {"name": self.name, "annotations": {CLASS: self.site.name}}
        self.site.argo.commit({f"indexes/{self.name}/index.yaml": {**manifest, "metadata": meta}})

    def deploy(self) -> None:
        """The Application; what it deploys needs time."""
        made = application("indexes")
        made["metadata"]["name"] = self.name
        made["spec"]["destination"]["namespace"] = self.space.namespace
        self.site.argo.apply(made, f"indexes/{self.name}")

    def push(self, manifest: Json) -> None:
        """Commit, tell Argo CD as a webhook does, and wait until the cluster has it."""
        before = self.generation()
        self.commit(manifest)
        self.site.argo.refresh(self.name)
        self.site.argo.wait("the commit to arrive", lambda: self.generation() > before, name=self.name)

    def becomes(self, health: str, seconds: float = FIRST_REVISION_SECONDS) -> str:
        """Until its Application is Synced and of this health; what it says there."""
        self.site.synced(self.name, health, seconds)
        return self.message()

    def message(self) -> str:
        """What Argo CD says of its health: after a refresh, since a message alone makes it look at nothing."""
        self.site.argo.refresh(self.name)
        return str(self.site.argo.health(self.name, self.name).get("message", ""))

    def reached(self) -> bool:
        """Whether the Service leads anywhere from here: the operator knows its endpoints before kube-proxy does."""
        service = self.handle.service()
        assert service is not None
        address = service["spec"]["clusterIP"], int(service["spec"]["ports"][0]["port"])
        try:
            with socket.create_connection(address, timeout=2):
                return True
        except OSError:
            return False

    def act(self, action: str) -> Json:
        """A click on an action; what the operator answered."""
        known = self._answers(action)
        self.site.argo.act(self.name, self.space.namespace, self.name, action)

        def answered() -> Json | None:
            return next((row for row in self._answers(action) if row not in known), None)

        said: Json = self.handle.wait(answered, 60, f"an answer to {action}")
        return said

    def offered(self) -> set[str]:
        """Actions that are not greyed."""
        listed = self.site.argo.actions(self.name, self.space.namespace, self.name)
        return {name for name, greyed in listed.items() if not greyed}

    def syncs(self) -> int:
        return len(self.site.argo.get(self.name)["status"].get("history", ()))

    def generation(self) -> int:
        return int(self.handle.get()["metadata"]["generation"])

    def delete(self) -> None:
        """Its Application, and with it all that came of it."""
        self.site.argo.delete(self.name, DELETED_SECONDS)

    def _answers(self, action: str) -> list[Json]:
        return [row for row in self.handle.status().get("verbs", ()) if row["verb"] == action]


# ---------------------------------------------------------------- making and removing it


@contextmanager
def opened(cluster: Cluster, images: Images, folder: Path, name: str) -> Iterator[Site]:
    """A site with its operator at work. `name`: of everything that it makes; `folder`: empty, for Argo CD's files."""
    kube, home, system = Kube(cluster), f"{name}-argocd", f"{name}-system"
    plane = LocalPlane(cluster, folder / "plane")
    if kube.get("CustomResourceDefinition", "vectorindexes.vectorindex.dev") is None:
        plane.api.install((CHECKOUT / "crds").glob("*.yaml"))
    with ExitStack() as stack:
        stack.callback(_remove_homes, kube, name, home, system)
        space = Workspace.create(kube, s3.connect(cluster), images, name)
        kube.ensure_namespace(system)
        kube.apply_secret(KEY, system, {"key": secrets.token_hex(32)})
        argo = stack.enter_context(argocd.started(plane, argocd.source(), folder, home=home, namespaces=(system, name)))
        site = Site(argo, space, Operator(cluster, kube, name, namespace=system), name, _values(images, name))
        stack.callback(_clear, site)
        site.deploy_chart()
        yield site


def _values(images: Images, name: str) -> Json:
    return {
        "image": {"repository": images.operator.repository, "tag": images.operator.tag},
        "searcherImage": {"repository": images.searcher.repository, "tag": images.searcher.tag},
        "crds": {"enabled": False},
        "watchNamespaces": [name],
        "operatorClass": name,
        "internalKey": {"existingSecret": KEY},
    }


def _clear(site: Site) -> None:
    """Whatever became of it: the indexes, which the operator has to see go, then the operator, then the rest."""
    names = [name for name in site.argo.names() if name != site.name]
    for name in [*names, site.name]:
        _whatever_happens(lambda name=name: site.argo.delete(name, DELETED_SECONDS))
        site.argo.disown(name)
    _whatever_happens(site.space.remove)


def _remove_homes(kube: Kube, name: str, home: str, system: str) -> None:
    """Of Argo CD and the operator, with what is in no namespace: roles that an Application left which did not end."""
    kube.delete("ClusterRoleBinding", home)
    for role in kube.list("ClusterRole", selector=f"app.kubernetes.io/instance={name}"):
        kube.delete("ClusterRole", role["metadata"]["name"])
    for namespace in (home, system):
        kube.delete("Namespace", namespace)


def _whatever_happens(step: Callable[[], None]) -> None:
    try:
        step()
    except (AssertionError, HarnessError) as error:
        print(f"is left behind: {error}", file=sys.stderr)
