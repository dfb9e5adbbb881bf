"""How often `kubectl vectorindex lint` and a real API server disagree: `lint.cases` and `lint.wrong` of summary.json.

    python bench/lint.py [--every 1]

Each field of the full manifest is replaced by each of some values of all kinds (tests/lint_cases.py); both are asked.
Needs the API server of `make test-apiserver`. Three minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT / "tests")]

import results  # noqa: E402
from control_plane import Api, ControlPlane  # noqa: E402
from layers import program  # noqa: E402
from lint_cases import accepted, mutated, refused  # noqa: E402

from vectorindex_plugin.lint.check import lint  # noqa: E402
from vectorindex_plugin.lint.manifests import Manifest  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="only every n-th of the changes; nothing is written then")
    every = parser.parse_args().every
    known = [*((name, one) for name, one, _ in refused()), *accepted()]
    cases = [*known, *islice(mutated(), 0, None, every)]
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(program("apiserver", "kubernetes"), Path(folder))
        with plane.running() as api:
            api.install((CHECKOUT / "crds").glob("*.yaml"))
            wrong = [name for name, manifest in cases if not _agree(api, name, manifest)]
    print(f"{len(wrong)} of {len(cases)} are judged otherwise by the API server")
    if every == 1:
        results.add_to_summary({"lint.cases": len(cases), "lint.wrong": len(wrong)})


def _agree(api: Api, name: str, manifest: dict[str, object]) -> bool:
    faults = lint([Manifest(name, manifest)], tries=False).faults
    answer = api.apply(manifest, dryRun="All")
    if answer.ok == (not faults):
        return True
    print(f"{name}\n  API server: {answer.message or 'takes it'}\n  lint: {faults or 'takes it'}", flush=True)
    return False


if __name__ == "__main__":
    main()
