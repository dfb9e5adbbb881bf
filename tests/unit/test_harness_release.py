"""An installation that a killed Helm left behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness import release
from harness.base import Cluster, Image
from harness.errors import HarnessError
from harness.images import Images

IMAGES = Images(operator=Image("operator", "1"), searcher=Image("searcher", "1"))
HELMS_TIME = "%Y-%m-%d %H:%M:%S.%f000 +0000 UTC"


class Played(Cluster):
    """A cluster with one release, of this status for `looks` more looks, and then deployed."""

    name, kubeconfig = "played", Path("none")

    def __init__(self, status: str, seconds_ago: float, looks: int = 1 << 30) -> None:
        self.status, self.looks = status, looks
        self.updated = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime(HELMS_TIME)
        self.upgraded = False
        self.deleted: list[str] = []

    def up(self) -> None: ...

    def provide_image(self, target: str, tag: str, checkout: Path = Path()) -> Image:
        raise NotImplementedError

    def s3(self) -> Any:
        raise NotImplementedError

    def helm(self, *arguments: str | Path, timeout: float = 300) -> str:
        if arguments[0] == "list":
            self.looks -= 1
            row = {
                "name": "vectorindex",
                "revision": "3",
                "updated": self.updated,
                "chart": "vectorindex-operator-0.1.0",
            }
            return json.dumps([row | {"status": self.status if self.looks > 0 else "deployed"}])
        if self.status.startswith("pending-") and self.looks > 0 and not self.deleted:
            raise HarnessError("another operation (install/upgrade/rollback) is in progress")
        self.upgraded = True
        return ""

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        if "delete" in arguments:
            self.deleted.append(str(arguments[-1]))
        return ""


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback"])
def test_the_record_of_what_was_cut_off_goes_once_no_helm_can_be_at_work(status: str) -> None:
    cluster = Played(status, release.LIMIT_SECONDS + 5)
    release.install(cluster, IMAGES)
    assert cluster.deleted == ["sh.helm.release.v1.vectorindex.v3"]
    assert cluster.upgraded


def test_another_helm_that_may_be_at_work_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.waiting.time.sleep", lambda seconds: None)
    cluster = Played("pending-upgrade", 5, looks=4)
    release.install(cluster, IMAGES)
    assert cluster.deleted == []
    assert cluster.upgraded
    assert "waiting 20" in capsys.readouterr().err


def test_a_release_that_is_well_is_left_alone() -> None:
    cluster = Played("deployed", 5)
    release.install(cluster, IMAGES)
    assert (cluster.deleted, cluster.upgraded) == ([], True)
