"""How layers of tests are run: one after the other, the simulator beside e2e and behind it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import run_layers

WAIT = """
import os, sys, time
end = time.monotonic() + 60
while not os.path.exists({other!r}) and time.monotonic() < end:
    time.sleep(0.02)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each layer runs in place of pytest: set before run_all. Nothing is prepared."""
    made: dict[str, str] = {}
    monkeypatch.setattr(run_layers, "prepared", lambda layer: True)
    monkeypatch.setattr(run_layers, "command", lambda layer, *_: [sys.executable, "-c", made[layer]])
    return made


def test_the_simulator_runs_beside_e2e_at_the_lowest_priority_and_is_shown_whole(
    scripts: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator, e2e = str(tmp_path / "simulator"), str(tmp_path / "e2e")
    scripts["simulator"] = (
        f"open({simulator!r}, 'w').close()\n{WAIT.format(other=e2e)}"
        "print('nice', os.nice(0), flush=True)\nprint('and the last line', file=sys.stderr)"
    )
    scripts["e2e"] = (
        f"open({e2e!r}, 'w').close()\n{WAIT.format(other=simulator)}print('e2e saw', os.path.exists({simulator!r}))"
    )

    assert run_layers.main(["simulator", "e2e"]) == 0

    said = capfd.readouterr().out
    places = [said.index(words) for words in ("e2e saw True", "--- simulator", "nice 19\nand the last line")]
    assert places == sorted(places)


@pytest.mark.parametrize(("simulator", "e2e"), [("sys.exit(1)", ""), ("", "sys.exit(1)")])
def test_the_failure_of_either_counts(scripts: dict[str, str], simulator: str, e2e: str) -> None:
    scripts.update(simulator=f"import sys\n{simulator}", e2e=f"import sys\n{e2e}", unit="")

    assert run_layers.main(["unit", "simulator", "e2e"]) == 1
    assert run_layers.main(["unit"]) == 0


def test_alone_the_simulator_runs_as_any_layer(scripts: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    scripts["simulator"] = "import os\nprint('nice', os.nice(0))"

    assert [row[:2] for row in run_layers.run_all(["simulator"])] == [("simulator", "passed")]
    assert f"nice {os.nice(0)}\n" in capfd.readouterr().out, "as these tests do"


def test_the_one_behind_ends_with_the_one_in_front(
    scripts: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C in e2e leaves nothing that runs."""
    scripts["simulator"] = "import time\ntime.sleep(600)"
    started = []
    popen = run_layers.subprocess.Popen

    def interrupted(layer: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_layers, "run", interrupted)
    monkeypatch.setattr(run_layers.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])
    with pytest.raises(KeyboardInterrupt):
        run_layers.run_all(["simulator", "e2e"])
    assert started[0].poll() is not None


def test_what_listens_on_every_address_gets_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_layers.os, "geteuid", lambda: 0)
    assert run_layers.command("gitops")[:2] == ["unshare", "--net"]
    assert run_layers.command("gitops_cluster")[:3] == [str(run_layers.CLUSTER), "network", sys.executable]
    assert run_layers.command("unit")[0] == sys.executable
