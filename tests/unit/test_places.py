"""Places as users write them, as they are kept, and what names and hashes are made of them."""

from __future__ import annotations

import pytest
from observations import DATA, NOW, SETTINGS, a_revision, actions, index, run, seen, spec
from pydantic import ValidationError
from raw_objects import index_raw, look, revision_raw

from vectorindex_operator.api.v1alpha1 import (
    FEATURES,
    GCS,
    S3,
    STORES,
    Azure,
    Live,
    RevisionSpec,
    VectorIndexSpec,
    Volume,
    kept,
)
from vectorindex_operator.core import identity, recipe
from vectorindex_operator.core.plan import CreateRevision, StartBuild
from vectorindex_operator.core.source_poll import told_text
from vectorindex_operator.manifests import jobs, revisions
from vectorindex_searcher.contract import BuildTask, Identity, Location

VOLUME = {"s3": None, "volume": {"claimName": "vectors", "path": "docs/"}}
AZURE = {"account": "acme", "container": "vectors", "prefix": "docs/", "secretRef": {"name": "azure"}}
IN_AZURE = spec(source={"s3": None, "azure": AZURE}, artifacts={"s3": None, "azure": AZURE | {"prefix": "indexes/"}})
SMALLEST = {
    "s3": {"bucket": "vectors"}, "azure": {"account": "acme", "container": "vectors"},
    "volume": {"claimName": "vectors"}, "gcs": {"bucket": "vectors"},
}  # fmt: skip
"""What each kind of store needs to be said."""
ON_VOLUME = spec(source=VOLUME, artifacts={"s3": None, "volume": {"claimName": "indexes"}})


def test_s3_is_kept_as_releases_wrote_it_that_knew_nothing_else() -> None:
    """Else each revision there is would be another, and an operator of before could read none."""
    live = Live.of(spec(source={"s3": {"secretRef": {"name": "s3"}}}))
    assert live.wire()["source"] == {
        "bucket": "vectors", "prefix": "docs/", "endpoint": "", "region": "", "secretRef": {"name": "s3"},
    }  # fmt: skip
    assert Live.read(live.wire()) == live
    assert isinstance(Live.read(live.wire()).source, S3)


def test_what_a_newer_release_says_of_a_bucket_is_kept() -> None:
    raw = Live.of(spec()).wire()
    raw["source"] = {"bucket": "vectors", "prefix": "docs/", "storageClass": "Cold"}
    read = Live.read(raw)
    assert read.source == S3(bucket="vectors", prefix="docs/")


def test_another_store_is_kept_below_its_name() -> None:
    live = Live.of(ON_VOLUME)
    assert live.wire()["source"] == {"volume": {"claimName": "vectors", "path": "docs/"}}
    assert Live.read(live.wire()) == live
    with pytest.raises(ValidationError):
        Live.read(live.wire() | {"source": {"tape": {"label": "x"}}})


@pytest.mark.parametrize("source", [{}, {"s3": {"bucket": "vectors"}, "volume": {"claimName": "v"}}])
def test_a_spec_without_one_place_is_not_read(source: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="one kind of store"):
        VectorIndexSpec.model_validate({"source": source, "artifacts": {"s3": {"bucket": "indexes"}}})


def test_where_data_is_changes_no_digest_and_is_resolved_anew() -> None:
    assert identity.digest(ON_VOLUME, DATA) == identity.digest(spec(), DATA)
    moved = spec(source=VOLUME | {"volume": {"claimName": "vectors", "path": "new/"}})
    hashes = {identity.source_hash(one) for one in (spec(), spec(source=VOLUME), moved, ON_VOLUME)}
    assert len(hashes) == 4


def test_another_place_is_another_one() -> None:
    places = [
        S3(bucket="vectors", prefix="docs/"), S3(bucket="indexes", prefix="docs/"),
        Volume(claim_name="vectors", path="docs/"), Volume(claim_name="vectors"),
        Azure(account="acme", container="vectors"), Azure(account="acme", container="vectors", prefix="docs/"),
        GCS(bucket="vectors"), GCS(bucket="indexes"), GCS(bucket="vectors", prefix="docs/"),
        Azure(account="other", container="vectors"), Azure(account="acme", container="indexes"),
    ]  # fmt: skip
    assert len({recipe.place(one) for one in places}) == len(places)
    for one in places:
        for other in places:
            assert one.reached_by(other) == one


def test_a_container_is_reached_as_the_spec_says_today() -> None:
    """Another endpoint or Secret is no other place; of another account nothing is known."""
    frozen = Azure.model_validate(AZURE)
    today = Azure.model_validate(AZURE | {"endpoint": "https://acme.example", "secretRef": {"name": "new"}})
    assert frozen.reached_by(today).secret == "new"
    assert frozen.reached_by(today).location().azure == today.location().azure
    assert recipe.place(frozen) == recipe.place(today)
    assert frozen.reached_by(Azure.model_validate(AZURE | {"account": "other"})).secret == "azure"


def test_jobs_in_azure_get_the_keys_of_its_secret_and_no_volume() -> None:
    view = a_revision(IN_AZURE, "Pending", build=None)
    (start,) = actions(run(seen(IN_AZURE, view)), StartBuild)
    pod = jobs.build(start, index(IN_AZURE), view, IN_AZURE, SETTINGS)["spec"]["template"]["spec"]
    told = [(one["prefix"], one["secretRef"]["name"]) for one in pod["containers"][0]["envFrom"]]
    assert told == [("SOURCE_", "azure"), ("ARTIFACTS_", "azure")]
    assert not [one for one in pod["volumes"] if one["name"].startswith("store-")]
    assert "azure" not in start.task.source.azure.wire(), "where, never by whose keys"
    raw = revisions.revision(actions(run(seen(IN_AZURE)), CreateRevision)[0], index(IN_AZURE), IN_AZURE, SETTINGS)
    assert raw["spec"]["requires"] == ["store.azure"]
    assert raw["spec"]["source"] == {"azure": AZURE | {"endpoint": ""}}


def test_what_travels_is_the_place_alone() -> None:
    place = S3(bucket="vectors", secret_ref={"name": "s3"})  # type: ignore[arg-type]
    assert place.location().wire() == {"s3": {"bucket": "vectors", "prefix": "", "endpoint": "", "region": ""}}
    for kind in STORES.values():
        one = kind.model_validate(SMALLEST[kind.kind])
        assert one.location() == Location.model_validate({one.kind: one.location().place})


def test_an_image_of_before_is_told_of_its_volume() -> None:
    """It refuses it where it is of the first release: told of no place it would name the wrong fault."""
    view = a_revision(ON_VOLUME, "Pending", build=None)
    (start,) = actions(run(seen(ON_VOLUME, view)), StartBuild)
    assert BuildTask.model_validate_json(start.task.task_text(first_release=True)).source.volume is not None


def test_a_revision_on_a_volume_is_left_alone_by_a_release_that_cannot_mount_it() -> None:
    made = actions(run(seen(ON_VOLUME)), CreateRevision)[0]
    raw = revisions.revision(made, index(ON_VOLUME), ON_VOLUME, SETTINGS)
    assert raw["spec"]["requires"] == ["store.volume"]
    assert set(raw["spec"]["requires"]) <= FEATURES
    on_s3 = revisions.revision(made, index(spec()), spec(), SETTINGS)
    assert on_s3["spec"]["requires"] == []
    assert RevisionSpec.read(raw["spec"]).wire() == raw["spec"]


def test_searchers_have_the_volume_of_a_source_only_for_its_deleted_ids() -> None:
    """A claim that is gone would keep them from starting; so Jobs list it."""
    owner = Identity(namespace="team-a", name="docs", uid="u")
    deleted = spec(source=VOLUME | {"tombstones": {"prefix": "docs/deleted/"}})
    for of, listed, mounts in ((ON_VOLUME, False, ["store-artifacts"]), (deleted, True, ["store-source"])):
        raw = revisions.revision(actions(run(seen(of)), CreateRevision)[0], index(of), of, SETTINGS)
        frozen = RevisionSpec.read(raw["spec"])
        assert bool(told_text(owner, frozen, Live.of(of))) == listed
        pod = raw["spec"]["podTemplate"]["spec"]
        assert [one["name"] for one in pod["volumes"] if one["name"].startswith("store-")] == mounts
        assert all(one["persistentVolumeClaim"]["readOnly"] for one in pod["volumes"] if one["name"] in mounts)


def test_a_claim_is_mounted_once_a_pod_and_written_where_artifacts_are() -> None:
    """A kubelet waits for ever for the second volume of a claim; one that is read-only as a whole keeps its owners."""
    one = {"s3": None, "volume": {"claimName": "all", "path": "docs/"}}
    for of, read_only in (
        (spec(source=one, artifacts=one | {"volume": {"claimName": "all"}}), False),
        (ON_VOLUME, True),
    ):
        view = a_revision(of, "Pending", build=None)
        (start,) = actions(run(seen(of, view)), StartBuild)
        pod = jobs.build(start, index(of), view, of, SETTINGS)["spec"]["template"]["spec"]
        claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert len({claim["claimName"] for claim in claims.values()}) == len(claims)
        assert claims["store-source"].get("readOnly", False) == read_only
        mounts = {m["mountPath"]: m.get("readOnly", False) for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["/var/lib/vectorindex/source"] is True
        assert mounts["/var/lib/vectorindex/artifacts"] is False
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_queries_below_the_source_are_known_on_a_volume_too() -> None:
    queries = {"volume": {"claimName": "vectors", "path": "docs/queries"}}
    below = identity.queries_below(spec(source=VOLUME, gate={"queries": queries}))
    assert below is not None
    assert below.volume is not None
    assert identity.queries_below(spec(gate={"queries": queries})) is None


def test_a_revision_on_a_volume_is_read_back() -> None:
    view = a_revision(ON_VOLUME, "Stable")
    raw = revision_raw(view)
    assert raw["spec"]["source"] == kept(ON_VOLUME.source.place)
    obs = look(index_raw(index(ON_VOLUME)), revision_raw(view), now=NOW)
    assert obs.revisions[view.name].spec == view.spec
