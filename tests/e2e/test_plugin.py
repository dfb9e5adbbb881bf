"""`kubectl vectorindex` in a terminal, by somebody who looks on and has a say: every verb, through a rollout taken by
hand, its way back, and a rollback by a guardrail."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.vectors import Corpus
from e2e.workspace import NAME, SLOW, Workspace, no_failures

ENDLESS = {"rollout": {"soak": {"minQueries": 1_000_000}, "keepPrior": "10m"}}
"""Nothing but a word ends its soak, and then what was stable stays loaded."""
COLUMNS, ROWS = 100, 45
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


@dataclass
class Terminal:
    """A person's terminal with the rights and the namespace of a workspace."""

    space: Workspace

    def start(self, *words: str) -> tuple[subprocess.Popen[bytes], list[str]]:
        """The program in a terminal of its own, and what it writes there, as long as it runs."""
        own, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        known = os.environ | self.space.kube.cluster.environment() | {"TERM": "xterm-256color"}
        known.pop("COLUMNS", None)
        process = subprocess.Popen(  # Ctrl-C ends it also where who runs the tests ignores that
            ["env", "--default-signal=INT", sys.executable, "-m", "vectorindex_plugin.app", *words],
            stdin=its, stdout=its, stderr=its, env=known, start_new_session=True,
        )  # fmt: skip
        os.close(its)
        pieces: list[str] = []

        def read() -> None:
            while True:
                try:
                    some = os.read(own, 1 << 16)
                except OSError:  # the other end is closed
                    some = b""
                if not some:
                    os.close(own)
                    return
                pieces.append(_CONTROLS.sub("", some.decode(errors="replace")))

        threading.Thread(target=read, daemon=True).start()
        return process, pieces

    def say(self, verb: str, *words: str, code: int = 0, cluster: bool = True) -> str:
        """What is on the screen after a verb, which must end with this status."""
        where = ("-n", self.space.namespace) if cluster else ()
        process, pieces = self.start(verb, *words, *where)
        ended = process.wait(90)
        time.sleep(0.2)  # what is still on its way to the screen
        shown = "".join(pieces)
        assert ended == code, f"{verb} {words} ended with {ended}:\n{shown}"
        assert "Traceback" not in shown, shown
        return shown

    def facts(self, verb: str, *words: str) -> Any:
        """What the verb tells programs."""
        return json.loads(self.say(verb, *words, "-o", "json"))

    def watch(self, sees: Callable[[str], bool]) -> str:
        """`get -w` until the screen says so, ended by Ctrl-C; all that it showed."""
        process, pieces = self.start("get", NAME, "-w", "-n", self.space.namespace)
        try:
            self.space.index.wait(lambda: sees("".join(pieces)), 120, f"get -w to show it: {''.join(pieces)[-2000:]}")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) in (0, 130)
        finally:
            process.kill()
        return "".join(pieces)


@pytest.mark.long
@pytest.mark.together("seen by people")
def test_every_verb_through_a_rollout_its_way_back_and_a_rollback(
    served: Workspace, corpus: Corpus, tmp_path: Path
) -> None:
    index, first, terminal = served.index, served.index.traffic(), Terminal(served)
    say = terminal.say
    for folder, data in {"better": corpus.moved(), "bad": corpus.spoiled(), "other": corpus.moved(seed=5)}.items():
        served.put(folder, data)

    def file(folder: str, **changes: Any) -> str:
        path = tmp_path / f"{folder}.yaml"
        path.write_text(yaml.safe_dump(served.manifest(folder, **changes)))
        return str(path)

    # Before anything: a first manifest, and what an edit would lead to.
    written = tmp_path / "new.yaml"
    answers = ("--name", "books", "--source", "s3://vectors/books/", "--artifacts", "s3://vectors/indexes/")
    say("init", *answers, "--secret", "s3", "--recall", "0.95", "-f", str(written), cluster=False)
    say("lint", str(written), "--no-try", cluster=False)
    better = file("better", **ENDLESS)
    assert "recall" in say("lint", file("broken", gate={"recall": {"min": 2}}), "--no-try", cluster=False, code=1)
    assert "Job: list the source" in say("plan", better)
    assert "Nothing" in say("plan", file("good"))

    with served.traffic(corpus, rate=SLOW) as traffic:
        served.apply("better", **ENDLESS)
        second = index.wait_new_revision({first})
        assert f"holds {second}" in say("pause", NAME)
        index.wait(lambda: served.blocked("Paused"), 180, f"{second} to be held")
        assert "Paused" in say("get", NAME) or "resume" in say("get", NAME)
        say("resume", NAME)
        shown = terminal.watch(lambda screen: f"{second}  candidate, serving" in screen or "Soaking" in screen)
        assert "GUARDRAIL" in shown, shown
        index.wait_revision(second, "Soaking")
        traffic.wait_answers(second)
        assert {NAME, "Soaking"} <= {*say("list").split()}
        history = say("history", NAME)
        assert first in history
        assert second in history
        assert second in say("why", NAME)
        assert "better/" in say("diff", first, second)
        assert f"answers of {second}" in say("query", NAME, "-k", "3")
        assert "recall" in say("report", NAME, second)
        page = tmp_path / "report.html"
        say("report", NAME, second, "--html", str(page))
        assert "<html" in page.read_text()
        say("promote", NAME)
        index.wait_revision(second, "Stable")

        say("rollback", NAME)
        index.wait(lambda: index.traffic() == first, 15, "the traffic to go back")
        served.wait_phase(second, "RolledBack")
        why = say("why", NAME)
        assert f"RolledBack  {second}" in why
        assert f"Manual: a person asked for {first}" in why
        assert terminal.facts("get", NAME)["serving"] == first

        # By a guardrail: told with its numbers, and where the runbook has it.
        served.apply("bad")
        bad = index.wait_new_revision({first, second})
        index.wait_revision(bad, "RolledBack")
        why = say("why", NAME)
        assert "zero-results" in why
        assert "%" in why
        assert "runbooks" in why or "docs/" in why
        assert "RolledBack" in say("get", NAME)

        # What is said in vain is refused in words, with a status of its own.
        refused = say("promote", NAME, code=1)
        assert "error: " in refused or "refused" in refused.lower(), refused
        assert "there is no" in say("get", "nothing", code=3)

        served.apply("other", **ENDLESS)
        third = index.wait_new_revision({first, second, bad})
        say("abort", NAME, third)
        served.wait_phase(third, "Rejected", "RolledBack")
        say("retry", NAME)
        index.wait_revision(third, "Soaking")
        say("pin", NAME, first)
        index.wait(lambda: index.traffic() == first, 30, "the traffic to go back to what is pinned")
        assert served.kube.get("VectorIndex", NAME, served.namespace)["spec"]["pinRevision"] == first
        say("unpin", NAME)
        index.wait(lambda: index.traffic() == third, 120, "what the spec asks for to serve again")
        say("promote", NAME)
        index.wait_revision(third, "Stable")
        say("suspend", NAME)
        index.wait_condition("Suspended")
        say("unsuspend", NAME)
        index.wait(lambda: not index.condition("Suspended"), 30, "it to go on")
        before = set(index.revisions())
        say("refresh", NAME)
        fourth = index.wait_new_revision(before)
        index.wait_revision(fourth, "Soaking")
        assert f"{fourth} is Soaking" in say("rebuild", NAME, code=1)
        say("promote", NAME)
        index.wait_revision(fourth, "Stable")
        say("rebuild", NAME)
        index.wait_new_revision({*before, fourth})
        seen = traffic.snapshot()
    no_failures(seen, at_least=2000)
