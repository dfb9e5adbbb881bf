"""What has to be so before anything is released: numbers that agree, notes, a tag, and all of it committed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml

NAME = "vectorindex-operator"


@dataclass(frozen=True, slots=True)
class Versions:
    """Where the number of the release stands. `notes`: the newest heading of CHANGELOG.md that is one; empty: none."""

    project: str
    lock: str
    chart: str
    app: str
    notes: str

    def disagreements(self) -> list[str]:
        """What is wrong at any time, one line each."""
        found = {"uv.lock": self.lock, "Chart.yaml version": self.chart, "Chart.yaml appVersion": self.app}
        return [
            f"{where} says {version or 'nothing'}, pyproject.toml {self.project}"
            for where, version in found.items()
            if version != self.project
        ]


def read(checkout: Path) -> Versions:
    """The numbers of a checkout."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    packages = tomllib.loads((checkout / "uv.lock").read_text())["package"]
    chart = yaml.safe_load((checkout / "charts" / NAME / "Chart.yaml").read_text())
    return Versions(
        project=project["version"],
        lock=next((one["version"] for one in packages if one["name"] == project["name"]), ""),
        chart=str(chart["version"]),
        app=str(chart["appVersion"]),
        notes=newest_notes((checkout / "CHANGELOG.md").read_text()),
    )


def newest_notes(changelog: str) -> str:
    """The number in the first heading like `## 1.2.3` or `## 1.2.3 (2026-11-28)`; empty when there is none."""
    found = re.search(r"^## \[?v?(\d+\.\d+\.\d+[^\s\]]*)\]?", changelog, re.MULTILINE)
    return found[1] if found else ""


def unreleased(changelog: str) -> bool:
    """Whether something stands below `## Unreleased`."""
    below = changelog.partition("## Unreleased\n")[2].partition("\n## ")[0]
    return bool(below.strip())


def unpublishable(checkout: Path, versions: Versions) -> list[str]:
    """What is missing before a release may go out, one line each with what mends it."""
    found = []
    if versions.notes != versions.project:
        found.append(f"CHANGELOG.md has no section `## {versions.project} (DATE)` on top: rename `## Unreleased`")
    elif unreleased((checkout / "CHANGELOG.md").read_text()):
        found.append("CHANGELOG.md has lines below `## Unreleased`: they belong below the release, or to the next one")
    if changed := git(checkout, "status", "--porcelain"):
        found.append(f"the tree has {len(changed.splitlines())} changes that are not committed")
    tag = f"v{versions.project}"
    if tag not in git(checkout, "tag", "--points-at", "HEAD").split():
        found.append(f"no tag {tag} on this commit: git tag -s {tag}")
    return found


def git(checkout: Path, *words: str) -> str:
    """What git prints; empty where it fails, as outside of a repository."""
    done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
