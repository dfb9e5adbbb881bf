"""What every store of `storage/cloud.py` promises besides `store_promises`, against its real server.

A subclass has, besides `opened`, the fixtures `place` (empty, in a container or bucket that exists), `nowhere` (one in
none) and `over_tls`: a place on a server whose certificate is of a CA that nobody knows, and that CA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trustme
from store_promises import Opened, StorePromises

from vectorindex_searcher.artifact.collect import collect
from vectorindex_searcher.artifact.inspection import inspect
from vectorindex_searcher.build.task import build
from vectorindex_searcher.contract import GCS, Azure, BuildTask, CollectTask, ExitCode, Identity, IndexSpec, Location
from vectorindex_searcher.errors import TaskError
from vectorindex_searcher.storage.cloud import CloudStore
from vectorindex_searcher.storage.store import Role, Store, open_store, parse_location

OverTLS = tuple[Azure | GCS, trustme.CA]


class CloudPromises(StorePromises):
    @pytest.fixture
    def opened(self, place: Azure | GCS) -> Opened:
        def store(role: Role) -> Store:
            return open_store(Location.of(place), role)

        return store

    def test_what_holds_no_objects_is_named(self, nowhere: Azure | GCS) -> None:
        def read(store: Store) -> None:
            store.read("x")

        for call in (lambda store: list(store.list("")), read, lambda store: store.put("x", b"")):
            with pytest.raises(TaskError) as caught:
                call(CloudStore(nowhere, Role.ARTIFACTS))
            holder = "container" if isinstance(nowhere, Azure) else "bucket"
            said = caught.value
            assert (said.reason, said.failure.field) == ("BucketNotFound", f"spec.artifacts.{nowhere.kind}.{holder}")
            assert said.exit_code == ExitCode.STORE_UNAVAILABLE

    def test_an_index_is_built_from_a_place_into_it_and_removed_again(self, place: Azure | GCS, tmp_path: Path) -> None:
        rows = tmp_path / "rows.npy"
        np.save(rows, np.random.default_rng(7).standard_normal((600, 8), dtype=np.float32))
        store = CloudStore(place, Role.ARTIFACTS)
        store.upload(f"{store.prefix}/in/rows.npy", rows)
        of = {"identity": Identity(namespace="n", name="docs", uid="u"), "artifacts": Location.of(place)}
        source = Location.of(place.at(f"{store.prefix}/in/"))
        assert build(BuildTask(digest="d1", source=source, index=IndexSpec(factory="Flat"), **of)).count == 600
        where = place.url(f"{store.prefix}/n/docs/d1/manifest.json")
        assert getattr(parse_location(where, endpoint=place.endpoint), place.kind) is not None
        assert any("n/docs" in line for line in inspect(where, place.endpoint))
        collect(CollectTask(everything=True, **of))
        assert [item.key for item in store.list(store.prefix)] == [f"{store.prefix}/in/rows.npy"]

    def test_a_ca_of_ones_own_is_trusted_where_the_secret_or_the_bundle_has_it(
        self, over_tls: OverTLS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (place, house), other = over_tls, trustme.CA()
        secret, bundle = f"{Role.ARTIFACTS.env_prefix}CA_PEM", tmp_path / "bundle.pem"
        for pem in ("", other.cert_pem.bytes().decode()):
            monkeypatch.setenv(secret, pem)
            for refused in (lambda store: store.head("x"), lambda store: list(store.list(""))):
                with pytest.raises(TaskError) as caught:
                    refused(CloudStore(place, Role.ARTIFACTS))
                said = caught.value
                assert (said.reason, said.failure.field) == (
                    "CertificateNotTrusted",
                    f"spec.artifacts.{place.kind}.endpoint",
                )
                assert all(word in str(said.failure.remedy) for word in ("CA_PEM", "trustBundle", "SSL_CERT_FILE"))
        for both in (house.cert_pem.bytes(), other.cert_pem.bytes() + house.cert_pem.bytes()):
            monkeypatch.setenv(secret, both.decode())
            assert CloudStore(place, Role.ARTIFACTS).read("greeting") == b"hello"
        monkeypatch.delenv(secret)
        bundle.write_bytes(other.cert_pem.bytes() + house.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert CloudStore(place, Role.ARTIFACTS).read("greeting") == b"hello"
