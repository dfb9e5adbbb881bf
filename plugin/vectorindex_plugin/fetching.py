"""The proof page of a revision out of the store, by a pod that may read it.

The store's keys are the pods' own: a person has none, and the operator neither. A searcher's image has the program that
makes the page of a report (`vectorindex-searcher inspect --html`), so nothing listens for it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from vectorindex_operator.api.v1alpha1 import Place
from vectorindex_operator.core.loaded import SEARCHER
from vectorindex_operator.core.observation import RevisionView
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.seen import Seen

SECONDS = 60.0
_SCRIPT = 'f=$(mktemp) && vectorindex-searcher inspect "$@" --html "$f" >&2 && cat "$f"; e=$?; rm -f "$f"; exit $e'
"""The page alone on stdout; what else is said goes to stderr."""


def fetch(seen: Seen, view: RevisionView, report: str, flags: Sequence[str]) -> bytes:
    """The page of the report at this key (for example s3://.../report.json). `flags`: of kubectl. Raises EndedError."""
    program = shutil.which("kubectl")
    if program is None:
        raise EndedError(Exit.UNREACHABLE, "kubectl is not on the PATH: the page is fetched by a pod")
    place = _reached(seen, view)
    where = [
        part for name in ("endpoint", "region") if (value := getattr(place, name, "")) for part in (f"--{name}", value)
    ]
    inside = ["sh", "-c", _SCRIPT, "sh", report, *where]
    command = [program, *flags, "exec", _pod(seen, view), "-c", SEARCHER, "--", *inside]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EndedError(Exit.UNREACHABLE, f"no page within {SECONDS:.0f} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-500:] or f"status {done.returncode}"
        raise EndedError(Exit.UNREACHABLE, f"kubectl exec: {words}")
    return done.stdout


def _reached(seen: Seen, view: RevisionView) -> Place:
    """The store of the artifacts, as it is reached today."""
    live = seen.obs.index.live
    return view.spec.artifacts.reached_by(live.artifacts) if live is not None else view.spec.artifacts


def _pod(seen: Seen, view: RevisionView) -> str:
    """A pod that may read the revision's artifacts: its own, or one of another revision that has its own there."""
    near = (view, *seen.obs.revisions.values())
    alike = (one.name for one in near if one.spec.artifacts.held_in == view.spec.artifacts.held_in)
    pods = (pod for name in alike if (loaded := seen.obs.loaded.get(name)) is not None for pod in loaded.holding)
    found = next((pod.name for pod in pods if pod.serves), None)
    if found is None:
        raise EndedError(Exit.UNREACHABLE, f"no ready searcher of {seen.obs.index.name} could fetch the page")
    return found
