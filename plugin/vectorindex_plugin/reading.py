"""What only somebody who looks reads of a cluster, and the operator never does: many objects at once, Events, logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vectorindex_operator.adapters.kube import KubeCluster
from vectorindex_operator.reconcile.ports import Raw

MOST_EVENTS = 500
"""Of one index, in one answer. The API server forgets them after an hour."""
LOG_LINES = 20
LOG_BYTES = 32 * 1024
PAGE = 500
"""Objects of a page. One person looks, on a machine with room; the operator reads fewer at a time."""


class PersonsCluster(KubeCluster):
    """The operator's adapter as cluster.Eyes. It takes half a second to import."""

    __slots__ = ()

    @staticmethod
    def _path(kind: str, namespace: str, name: str = "") -> str:
        if kind == "ResourceQuota":
            return f"/api/v1/namespaces/{namespace}/resourcequotas"
        return KubeCluster._path(kind, namespace, name)

    def every(self, kind: str, namespace: str) -> list[Raw]:
        return [one for page in self._listed(kind, namespace, {"limit": str(PAGE)}) for one in page]

    def events(self, namespace: str, name: str) -> list[Raw]:
        about = f"regarding.kind=VectorIndex,regarding.name={name}"
        return next(self._listed("Event", namespace, {"limit": str(MOST_EVENTS), "fieldSelector": about}))

    def words(self, namespace: str, pod: str) -> str:
        query = {"tailLines": str(LOG_LINES), "limitBytes": str(LOG_BYTES)}
        path = f"{self._path('Pod', namespace, pod)}/log"
        status, body = self._read(path, query, accept="*/*", parse=_plain)
        return str(self._checked(status, body)["message"])

    def _listed(self, kind: str, namespace: str, query: dict[str, str]) -> Iterator[list[Raw]]:
        """Page by page."""
        while True:
            status, body = self._read(self._path(kind, namespace), query, parse=_without_managers)
            page = self._checked(status, body)
            yield [{**item, "kind": kind} for item in page["items"] or ()]
            if not page["metadata"].get("continue"):
                return
            query = {**query, "continue": page["metadata"]["continue"]}


def _plain(body: bytes) -> Any:
    """A log, or what the API server says in its place."""
    return {"message": body.decode(errors="replace")}


def _without_managers(body: bytes) -> Any:
    page = json.loads(body)
    for item in page.get("items") or ():
        item.get("metadata", {}).pop("managedFields", None)
    return page
