"""The half hour of docs/start.md, line by line as its page has it, by somebody who has a namespace and a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from e2e.workspace import Workspace
from layers import CHECKOUT

_PAGE = (CHECKOUT / "docs" / "start.md").read_text(encoding="utf-8")
SECTION = _PAGE.partition("## Half an hour in a cluster on this machine")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HERE_DOCUMENT = re.compile(r"^cat > \S+ <<'END'\n.*?^END$", re.DOTALL | re.MULTILINE)
WATCHES = " -w"
STATE = re.compile(r"until it (?:is|says) (\w+)")
DONE_BY_FIXTURES = "make cluster-up"


@dataclass
class Shell:
    """A folder, and what a person has exported; the page's buckets are this workspace's own."""

    space: Workspace
    folder: Path

    def __post_init__(self) -> None:
        cluster, access = self.space.kube.cluster, self.space.store.access
        own = self.folder / "kubeconfig"
        own.write_text(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten"))
        (self.folder / "bin").mkdir()
        kubectl = cluster.kubectl_program
        (self.folder / "bin" / "kubectl").symlink_to(shutil.which(kubectl) or kubectl)
        path = (str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
        self.known = os.environ | access.secret()
        self.known |= {"KUBECONFIG": str(own), "S3_ENDPOINT": access.endpoint, "PATH": os.pathsep.join(path)}
        self.run(f"kubectl config set-context --current --namespace={self.space.namespace}")

    def own(self, text: str) -> str:
        """The page's words, with the names of this workspace."""
        names = {"embeddings": self.space.bucket, "indexes": self.artifacts}
        for name, ours in names.items():
            text = re.sub(rf'(bucket: |"){name}\b', rf"\g<1>{ours}", text)
        return text.replace("http://s3.object-store.svc:9000", self.space.store.access.endpoint_in_cluster)

    @property
    def artifacts(self) -> str:
        return f"{self.space.bucket}-indexes"

    def run(self, line: str) -> str:
        """What it printed; it must end well."""
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.own(line)],
            cwd=self.folder, env=self.known, capture_output=True, text=True, timeout=360, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}\n{self.space.index.explain()}"
        return ran.stdout + ran.stderr

    def do(self, block: str) -> dict[str, str]:
        """What each line of a block printed. Who would look on until a state is reached, waits for it."""
        return {line: self._wait(line) if WATCHES in line else self.run(line) for line in lines(block)}

    def _wait(self, line: str) -> str:
        (state,) = STATE.findall(line)
        index = self.space.index
        index.wait(
            lambda: bool(name := index.traffic()) and index.revision(name).get("phase") == state,
            300,
            f"what has the traffic to be {state}",
        )
        return self.run(line.replace(WATCHES, ""))


def lines(block: str) -> Iterator[str]:
    """Of a shell block; a here-document is one."""
    while block.strip():
        document = HERE_DOCUMENT.match(block)
        line = document[0] if document else block.partition("\n")[0]
        block = block[len(line) :].lstrip("\n")
        if line.strip():
            yield line


@pytest.mark.long
@pytest.mark.together("seen by people")
def test_half_an_hour_as_the_page_has_it(workspace: Workspace, tmp_path: Path) -> None:
    shell, index = Shell(workspace, tmp_path), workspace.index
    shell.run("kubectl delete secret s3")  # the page makes it
    blocks = [(kind, text) for kind, text in BLOCK.findall(SECTION) if DONE_BY_FIXTURES not in text]
    assert [kind for kind, _ in blocks] == ["sh", "yaml", "sh", "sh", "sh"]
    rows, manifest, first, broken, back = (text for _, text in blocks)
    file = tmp_path / "products.yaml"
    try:
        shell.do(rows)
        file.write_text(shell.own(manifest))
        said = shell.do(first)
        assert "Stable" in next(said[line] for line in said if WATCHES in line)
        one = index.traffic()

        (edit,) = re.findall(r"`(index: \{.*?\})`", SECTION)
        worse = yaml.safe_load(shell.own(manifest))
        worse["spec"] |= yaml.safe_load(edit)
        file.write_text(yaml.safe_dump(worse))
        said = shell.do(broken)
        why = next(said[line] for line in said if " why " in line)
        assert "recall" in why, why
        assert one in next(said[line] for line in said if " query " in line)

        file.write_text(shell.own(manifest))
        known = set(index.revisions())
        shell.run("kubectl apply -f products.yaml")
        index.wait_condition("UpToDate")
        assert set(index.revisions()) == known

        said = shell.do(back)
        assert index.traffic() == one
        assert one in next(said[line] for line in said if " history " in line)
        for line in re.findall(r"`(kubectl delete [^`]*)`", SECTION):
            shell.run(line)
        index.wait(lambda: not index.pods(), 90, "its pods to be gone")
    finally:
        workspace.store.remove_bucket(shell.artifacts)
