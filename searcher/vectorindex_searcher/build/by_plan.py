"""What a plan says to the build of one shard: its rows, and what they are built as."""

from __future__ import annotations

from dataclasses import dataclass

from ..artifact.layout import Layout
from ..artifact.manifest import Manifest, find_manifest
from ..artifact.sharded import Plan, load_plan
from ..contract import BuildTask, Shard
from ..errors import BadSpec, RetryableError
from ..storage.store import Store
from .given import Given, of_shard


@dataclass(frozen=True, slots=True)
class Planned:
    """A shard that is to be built. layout: of the shard."""

    store: Store
    layout: Layout
    plan: Plan
    sha256: str

    def given(self) -> Given:
        """Raises Retry/RowsNotFound."""
        return of_shard(self.store, self.layout, self.plan, self.sha256)

    def of_it(self, task: BuildTask) -> BuildTask:
        """The task, with the factory that was chosen for all shards: nothing is left for `Auto`."""
        objective = task.index.objective.model_copy(update={"memory_limit": None})
        index = task.index.model_copy(update={"factory": self.plan.factory, "objective": objective})
        return task.model_copy(update={"index": index})

    def marked(self, manifest: Manifest) -> Manifest:
        """The manifest, as of a part."""
        return manifest.model_copy(update={"shard": self.layout.shard, "plan_sha256": self.sha256})

    def must_be_ours(self, published: Manifest) -> None:
        """Raises Retry/LeftoverPart where a build of another plan was faster: the next try removes what it left."""
        if published.plan_sha256 != self.sha256:
            message = f"shard {self.layout.shard} was published by another plan meanwhile"
            raise RetryableError("LeftoverPart", message, object=self.layout.manifest(self.plan.digest))


def planned(store: Store, whole: Layout, digest: str, shard: Shard) -> Planned:
    """The plan of `shard`. The manifest of a part that another plan left is removed: this one could not be published.

    Raises Retry/{PlanNotFound, LeftoverPart}, BadSpec/AnotherPlan where the plan has another number of shards, BadData.
    """
    plan, sha256 = load_plan(store, whole, digest)
    if plan.shards != shard.of:
        message = f"shard {shard} is asked for, and the plan of {digest} has {plan.shards} shards"
        raise BadSpec("AnotherPlan", message, field="--shard", object=whole.plan(digest))
    layout = whole.of_shard(shard.number)
    left = find_manifest(store, layout, digest)
    if left is not None and left[0].plan_sha256 != sha256:
        if load_plan(store, whole, digest)[1] != sha256:
            message = f"the plan of {digest} was replaced meanwhile: the part that is there may be whole"
            raise RetryableError("LeftoverPart", message, object=whole.plan(digest))
        store.delete(layout.manifest(digest))
    return Planned(store, layout, plan, sha256)
