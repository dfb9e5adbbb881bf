"""The user's cluster: the kubeconfig as kubectl reads it, and the operator's own adapter on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from vectorindex_operator.reconcile.errors import ClusterError, RefusedError
from vectorindex_operator.reconcile.ports import Raw
from vectorindex_plugin.exits import EndedError, Exit

MANAGER = "kubectl-vectorindex"
"""The field manager of what people ask for through us."""
ANSWER_SECONDS = 10.0


class Hands(Protocol):
    """What verbs need of a cluster: a part of reconcile.ports.Cluster. Raises only errors.ClusterError."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None: ...

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]: ...

    def pages(self, kind: str, namespace: str, selector: str, *, metadata_only: bool) -> Iterator[list[Raw]]: ...

    def merge(self, manifest: Raw) -> Raw: ...


class Eyes(Hands, Protocol):
    """What the dashboard needs of a cluster. Raises only errors.ClusterError."""

    def every(self, kind: str, namespace: str) -> list[Raw]:
        """All objects of a namespace, or of all with "", without managed fields."""
        ...

    def events(self, namespace: str, name: str) -> list[Raw]:
        """Events about a VectorIndex."""
        ...

    def words(self, namespace: str, pod: str) -> str:
        """The last lines of a pod's log."""
        ...


@dataclass(slots=True)
class AsFarAsAllowed:
    """Reads for somebody who may not read everything: what is refused is empty, and `hidden` names it. The VectorIndex
    itself must be readable."""

    hands: Hands
    hidden: dict[str, str] = field(default_factory=dict)
    """Kind -> the API server's words."""

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        if kind != "Service":  # without a VectorIndex there is nothing; what a route's refusal means, its reader knows
            return self.hands.get(kind, namespace, name)
        try:
            return self.hands.get(kind, namespace, name)
        except RefusedError as error:
            self.hidden[kind] = str(error)
            return None

    def children(self, kind: str, namespace: str, selector: str) -> list[Raw]:
        try:
            return self.hands.children(kind, namespace, selector)
        except RefusedError as error:
            self.hidden[kind] = str(error)
            return []


def connect(kubeconfig: str | None, context: str | None) -> tuple[Hands, str]:
    """The cluster of a context of the kubeconfig, and the namespace that the context names. Raises EndedError."""
    from kubernetes import client, config  # half a second that help, completion and `lint` do without

    from vectorindex_operator.adapters.kube import api_client
    from vectorindex_plugin.reading import PersonsCluster

    configuration = client.Configuration()
    try:
        config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
    except (config.ConfigException, OSError) as error:
        raise EndedError(Exit.UNREACHABLE, f"the kubeconfig cannot be used: {error}") from error
    chosen = next((one for one in contexts if one["name"] == context), active) if context else active
    namespace = chosen["context"].get("namespace") or "default"
    return PersonsCluster(api_client(configuration), seconds=ANSWER_SECONDS, manager=MANAGER), namespace


def unreachable(error: ClusterError) -> EndedError:
    """What the cluster said, as the end of a verb."""
    return EndedError(Exit.UNREACHABLE, f"the cluster does not answer as it should: {error}")
