"""Where tests and benchmarks of GPUs run, what they say where they cannot, and what bench/gpu.py makes of builds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import run_layers

import gpu_python

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import gpu

MANIFEST = {"device": "GPU", "count": 1000, "defaultPoint": {"recall": 0.96, "latencyUs": 80.0}, "deviceReason": ""}


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_python, "DRIVER", (tmp_path / "nvidiactl",))


def faiss_with(gpus: int, folder: Path) -> str:
    """A Python whose FAISS sees so many GPUs."""
    played = folder / "python"
    played.write_text(f"#!/bin/sh\necho {gpus}\n")
    played.chmod(0o755)
    return str(played)


def test_without_a_driver_nothing_is_fetched_and_the_layer_says_why(
    no_driver: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_python, "make", lambda: pytest.fail("it would fetch gigabytes"))
    assert gpu_python.main() == 1
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert "no NVIDIA GPU" in run_layers.obstacle("gpu")
    assert run_layers.run("gpu") == "could not run"
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="not measured: no NVIDIA GPU"):
        gpu.main()


@pytest.mark.parametrize(("gpus", "said", "code"), [(2, "2 GPUs", 0), (0, "which sees none", 1), (-1, "for CPUs", 1)])
def test_a_python_of_ones_own_is_asked_what_it_sees(
    gpus: int, said: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_python, "DRIVER", (tmp_path,))
    monkeypatch.setenv("GPU_PYTHON", faiss_with(gpus, tmp_path))
    monkeypatch.setattr(gpu_python.shutil, "which", lambda name: name)
    assert gpu_python.main() == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert run_layers.command("gpu")[0] == str(tmp_path / "python")


def test_the_environment_is_made_from_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPU_PYTHON", raising=False)
    ran = []
    monkeypatch.setattr(gpu_python.subprocess, "run", lambda words, **more: ran.append((words[1:], more["env"])))
    gpu_python.make()
    ((words, environment),) = ran
    assert {"--frozen", "--no-default-groups"} <= set(words)
    assert words[-4:] == ["--group", "layer", "--extra", "gpu"]
    assert environment["UV_PROJECT_ENVIRONMENT"] == str(gpu_python.python().parents[1])


# ---------------------------------------------------------------- bench/gpu.py


def build(device: str, seconds: float, recall: float = 0.96) -> gpu.Build:
    return gpu.Build(device, "", seconds, 1000, recall, 80.0)


def pairs(apart: float = 0.0) -> list[gpu.Pair]:
    factories = (*gpu.ON_GPU, *gpu.GRAPH)
    return [
        gpu.Pair(factory, build("CPU", 100.0), build("GPU", 10.0 + number, 0.96 - apart * (number == 1)))
        for number, factory in enumerate(factories)
    ]


def test_a_manifest_says_where_a_build_ran() -> None:
    assert gpu.read(MANIFEST, 3.0) == gpu.Build("GPU", "", 3.0, 1000, 0.96, 80.0)


@pytest.mark.parametrize(
    ("device", "reason"),
    [("CPU", "on the CPU, since the GPU failed"), ("GPU", "on the GPU with less scratch memory"), ("CPU", "")],
)
def test_a_build_that_fell_back_is_no_measurement(device: str, reason: str) -> None:
    fell = gpu.read({**MANIFEST, "device": device, "deviceReason": reason}, 3.0)
    with pytest.raises(gpu.FellBackError, match=reason or "no reason is given"):
        gpu.checked(fell, "GPU")
    assert gpu.checked(build("GPU", 1.0), "GPU") == build("GPU", 1.0)


def test_the_ratio_is_the_lowest_of_what_a_gpu_fills_and_of_equal_recall_alone() -> None:
    assert gpu.headlines(pairs()) == {"gpu.build_ratio": pytest.approx(100 / 12)}, "the graph is not filled there"
    assert gpu.headlines(pairs(apart=0.02)) == {}
    text = gpu.page(pairs(apart=0.02), "some data", "a GPU")
    assert text.count("not comparable") == 1
    assert "GPU: a GPU." in text
    assert gpu.median([build("GPU", seconds) for seconds in (3.0, 1.0, 2.0)]).seconds == 2.0
