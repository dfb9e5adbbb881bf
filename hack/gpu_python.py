"""The Python that has FAISS for GPUs, for `make test-gpu` and `make bench-gpu`: build/gpu, made once from the lock.

faiss-cpu and faiss-gpu are one module, so it is an environment of its own (1.8 GB: CUDA's libraries come along).
GPU_PYTHON names another one that has faiss-gpu, pytest and pytest-timeout already: nothing is fetched then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DRIVER = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""There where an NVIDIA driver is; the second under WSL."""
_MADE = ROOT / "build" / "gpu"
_COUNT = "import faiss; print(faiss.get_num_gpus() if hasattr(faiss, 'StandardGpuResources') else -1)"


def python() -> Path:
    """The interpreter, be it there yet or not."""
    given = os.environ.get("GPU_PYTHON")
    return Path(shutil.which(given) or given) if given else _MADE / "bin" / "python"


def obstacle() -> str:
    """Why nothing can run on a GPU here; empty when it can, as far as can be seen before anything is fetched."""
    if not any(path.exists() for path in DRIVER):
        return f"no NVIDIA GPU: none of {', '.join(map(str, DRIVER))} is there. Run it where one and its driver are"
    return ""


def make() -> None:
    """Make the environment where it is not there. Raises CalledProcessError."""
    if os.environ.get("GPU_PYTHON"):
        return
    uv = shutil.which("uv") or str(ROOT / "build" / "tools" / "bin" / "uv")
    print("installing FAISS for GPUs and CUDA's libraries into build/gpu (1.8 GB, once)", flush=True)
    words = [uv, "sync", "--frozen", "--quiet", "--no-default-groups", "--group", "layer", "--extra", "gpu"]
    subprocess.run(words, cwd=ROOT, check=True, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(_MADE)})


def gpus() -> int:
    """GPUs that this Python's FAISS sees; -1: it is the FAISS for CPUs. Raises CalledProcessError without FAISS."""
    said = subprocess.run([python(), "-c", _COUNT], check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(said)


def main() -> int:
    """Make it ready, or say why that cannot be."""
    reason = obstacle()
    if not reason:
        make()
        count = gpus()
        if count < 0:
            reason = f"{python()} has the FAISS for CPUs"
        elif not count:
            reason = f"{python()} has FAISS for GPUs, which sees none: is the driver recent enough (nvidia-smi)?"
    if reason:
        print(reason, file=sys.stderr)
        return 1
    print(f"{count} GPUs, {python()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
