"""A real Prometheus scrapes operator and searchers, as the chart's monitors say, through a promotion and a rollback:
each panel of the dashboards and each alert asks for series that are there."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.operator_release import Operator
from e2e.vectors import Corpus
from e2e.workspace import NAME, RULES, SLOW, Workspace, no_failures
from layers import unavailable
from ports import held

from harness import release

CHART = release.CHART
SCRAPE_SECONDS = 2
WINDOW = "5m"
"""In the place of Grafana's $__rate_interval."""
ELSEWHERE = {
    "vectorindex_notices_total": "no webhook is installed",
    "vectorindex_source_polls_total": "nothing polls: new data is a new folder",
    "vectorindex_source_checked_timestamp_seconds": "nothing polls: new data is a new folder",
    "vectorindex_tombstones": "no ids are deleted",
    "vectorindex_tombstones_checked_timestamp_seconds": "no ids are deleted",
    "vectorindex_filters_lost_total": "no filters are sent",
    "vectorindex_spans_total": "no collector of traces is named",
    "vectorindex_rollback_artifact_looks_total": "the artifact of a way back is looked for every ten minutes",
    "vectorindex_filtered_zero_result_queries_total": "no filters are sent",
    "vectorindex_fresh_": "there are no fresh rows",
    "vectorindex_shard_": "it is in one part",
}
"""Series that this story has none of, and why."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs, with a file of targets that the test keeps."""

    url: str
    targets: Path

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. Fails where Prometheus refuses it."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=20) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        found: list[dict[str, Any]] = said["data"]["result"]
        return found


@contextmanager
def prometheus(folder: Path, rules: Path) -> Iterator[Prometheus]:
    targets = folder / "targets.json"
    targets.write_text("[]")
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(rules)],
        # As the chart's ServiceMonitor and PodMonitor: series of an index name its namespace themselves.
        "scrape_configs": [
            {
                "job_name": "vectorindex",
                "honor_labels": True,
                "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with held() as (port,), (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield Prometheus(f"http://127.0.0.1:{port}", targets)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def scraped(asked: Prometheus, space: Workspace, operator: Operator) -> Iterator[None]:
    """Keeps the targets up to date, as discovery does: the operator's pods and the searchers of the index."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(1):
            found = [target(pod, 8080) for pod in operator.pods()]
            searchers = [pod for pod in space.index.pods() if "vectorindex.dev/revision" in pod["metadata"]["labels"]]
            found += [target(pod, 8081, index=NAME) for pod in searchers]
            whole = json.dumps([one for one in found if one is not None])
            new = asked.targets.with_suffix(".new")
            new.write_text(whole)
            new.replace(asked.targets)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def target(pod: dict[str, Any], port: int, **labels: str) -> dict[str, Any] | None:
    """None while it has no address, and once it has ended."""
    if pod["status"].get("phase") != "Running" or not pod["status"].get("podIP"):
        return None
    meta = pod["metadata"]
    known = {"namespace": meta["namespace"], "pod": meta["name"], **labels}
    return {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": known}


def asked_by_boards(namespace: str) -> Iterator[tuple[str, str]]:
    """Where, and what Prometheus gets when Grafana has put in its variables."""
    values = {"$__rate_interval": WINDOW, "$namespace": namespace, "$index": NAME, "$job": ".+"}
    for path in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for one in panel["targets"]:
                text = one["expr"]
                for name, value in values.items():
                    text = text.replace(name, value)
                yield f"{path.stem}: {panel['title']}", text


@pytest.mark.long
@pytest.mark.together("seen by people")
def test_every_panel_and_alert_finds_its_series(
    served: Workspace, corpus: Corpus, operator: Operator, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        unavailable("e2e", "there is no prometheus here", "Install Debian's package prometheus.")
    index, first = served.index, served.index.traffic()
    served.rollout = {}  # with shadow
    for folder, data in {"better": corpus.moved(), "bad": corpus.spoiled()}.items():
        served.put(folder, data)
    rules = [*RULES, {"name": "recall", "metric": "LiveRecall", "min": "50%", "mode": "Observe"}]
    with (
        prometheus(tmp_path, CHART / "alerts.yaml") as asked,
        scraped(asked, served, operator),
        served.traffic(corpus, rate=SLOW) as traffic,
    ):
        served.apply("better", guardrails={"rules": rules})
        second = index.wait_new_revision({first})
        index.wait_revision(second, "Stable")
        served.apply("bad", guardrails={"rules": rules}, rollout={"shadow": {"maxPerSecond": 0}})
        bad = index.wait_new_revision({first, second})
        index.wait_revision(bad, "RolledBack")

        def without() -> list[str]:
            """What has no series, though this story has some."""
            return [
                f"{where}: {text}"
                for where, text in asked_by_boards(served.namespace)
                if not any(name in text for name in ELSEWHERE) and not asked.query(text)
            ]

        deadline = time.monotonic() + 30
        while (lacking := without()) and time.monotonic() < deadline:
            time.sleep(SCRAPE_SECONDS)
        assert lacking == []
        (count,) = asked.query(f'sum(vectorindex_rollbacks_total{{namespace="{served.namespace}"}})')
        assert float(count["value"][1]) == 1

        def firing() -> set[str]:
            mine = f'ALERTS{{alertstate=~"firing|pending",namespace="{served.namespace}"}}'
            return {one["metric"]["alertname"] for one in asked.query(mine)}

        index.wait(lambda: "VectorIndexRolledBack" in firing(), 30, "the alert of the rollback")
        assert firing() <= {"VectorIndexRolledBack", "VectorIndexStalled", "VectorIndexNotRolledOut"}
        with urllib.request.urlopen(f"{asked.url}/api/v1/rules", timeout=20) as answer:
            groups = json.load(answer)["data"]["groups"]
        health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert set(health.values()) == {"ok"}, health
        seen = traffic.snapshot()
    no_failures(seen, at_least=2000)
