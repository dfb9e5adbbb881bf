"""Whole builds with the command line: on a GPU, with the answers of a CPU's; and one shard on each GPU at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices import random

PROGRAM = (sys.executable, "-m", "vectorindex_searcher")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    np.save(folder / "a.npy", random(20_000, 64))
    return folder


def run(*words: str, gpu: int | None = None) -> None:
    """A verb, with all GPUs or one of them."""
    known = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
    subprocess.run([*PROGRAM, *words], check=True, env=known, timeout=300)


def manifests(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.rglob("manifest.json"))]


@pytest.mark.parametrize("factory", ["Flat", "IVF128,SQ8", "IVF128,PQ32", "IVF128,PQ16x4fs,Refine(SQ8)", "HNSW16,SQ8"])
def test_a_build_on_a_gpu_is_proven_by_a_cpu(source: Path, tmp_path: Path, factory: str) -> None:
    found = []
    for device in ("GPU", "CPU") if "PQ32" not in factory else ("GPU",):
        out = tmp_path / device
        run("build", "--source", str(source), "--out", str(out), "--factory", factory, "--device", device)
        (manifest,) = manifests(out)
        assert (manifest["device"], manifest.get("deviceReason", "")) == (device, "")
        run("validate", "--artifact", str(out), "--floor", "0.5")
        found.append(manifest["defaultPoint"]["recall"])
    assert min(found) > 0.9 * max(found)


def test_several_gpus_are_several_shards(source: Path, tmp_path: Path, gpus: int) -> None:
    """As many builds at once as there are GPUs, each sees one; on a single one they take turns."""
    shards, common = max(2, gpus), ["--source", str(source), "--out", str(tmp_path), "--factory", "IVF64,SQ8"]
    run("partition", *common, "--shards", str(shards))
    words = [[*PROGRAM, "build", *common, "--device", "GPU", "--shard", f"{n}/{shards}"] for n in range(shards)]
    for first in range(0, shards, gpus):
        at_once = [
            subprocess.Popen(words[n], env={**os.environ, "CUDA_VISIBLE_DEVICES": str(n - first)})
            for n in range(first, min(first + gpus, shards))
        ]
        assert [process.wait(300) for process in at_once] == [0] * len(at_once)
    run("publish", "--artifact", str(tmp_path))
    run("validate", "--artifact", str(tmp_path), "--floor", "0.5")
    parts = [one for one in manifests(tmp_path) if one.get("device")]
    assert [one["device"] for one in parts] == ["GPU"] * shards


def test_a_gpu_that_is_hidden_is_not_there(source: Path, tmp_path: Path) -> None:
    words = ["build", "--source", str(source), "--out", str(tmp_path), "--factory", "Flat", "--device", "GPU"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*PROGRAM, *words], env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert "GPUNotFound" in done.stdout + done.stderr
