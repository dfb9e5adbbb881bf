"""How fast a searcher is ready, from an empty and from a filled cache, against the plainest script that does as much.

    python bench/start.py [--quick] [--rounds 5] [--count 200000] [--dimension 768]

A real artifact (Flat, so nearly all is one file), built and proven by the command line, lies in a folder and in a real
S3 server (versitygw on loopback, a process of this run). Each round, in turn: the plain script fetches the index file
with one stream, or copies it, and hashes it; then a process loads the artifact as a searcher does, with its phases
timed. For a filled cache the plain script only hashes. Before each, the pages of what is read are dropped from memory,
unless --hot. Wall time is what a start is about, as it waits for disk, network and hash; CPU time is given beside it,
because other programs on the machine do not change it. Ratios are of two things measured right after each other. Writes
bench/results/start.md and summary.json, except with --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import results
from artifacts import PROGRAM, Artifact, built
from datasets import clustered
from object_store import BUCKET, KEYS, client, object_store

from vectorindex_searcher import contract
from vectorindex_searcher.artifact.layout import INDEX_FILE, Layout
from vectorindex_searcher.artifact.manifest import load_manifest
from vectorindex_searcher.storage.store import Role, open_store

PIECE = 1 << 20
PHASES = ("manifest", "fetch", "open", "canary")
SIDES = ("S3, empty cache", "folder, empty cache", "filled cache")


# ---------------------------------------------------------------- the two places


def filled(endpoint: str, folder: Path) -> Any:
    """A client of the bucket that now holds everything below `folder`."""
    s3 = client(endpoint)
    s3.create_bucket(Bucket=BUCKET)
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    return s3


def proven(artifact: Artifact) -> contract.ServeTask:
    """The task of a searcher that must show the gate's canary recall, from a folder."""
    base = artifact.folder / "local" / "index" / artifact.manifest.digest
    if not list(base.glob("reports/*/report.json")):
        subprocess.run(
            [*PROGRAM, "validate", "--artifact", str(artifact.folder)], check=True, capture_output=True, timeout=1800
        )
    (report,) = base.glob("reports/*/report.json")
    place = contract.Location(folder=str(artifact.folder))
    store = open_store(place, Role.ARTIFACTS)
    identity = contract.Identity(name="index")
    _, sha256 = load_manifest(store, Layout(store.prefix, identity), artifact.manifest.digest)
    return contract.ServeTask(
        identity=identity,
        revision="bench",
        digest=artifact.manifest.digest,
        manifest_sha256=sha256,
        gate_hash=report.parent.name,
        report_sha256=hashlib.sha256(report.read_bytes()).hexdigest(),
        artifacts=place,
    )


# ---------------------------------------------------------------- the two sides


def drop(folder: Path) -> None:
    """Forget the pages of every file below, so that the next read is the disk's. Needs no privilege."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


Spent = tuple[float, float]
"""Seconds of wall time and of this process's CPU."""


def timed(work: Callable[[], object]) -> Spent:
    """Do it."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - cpu


def plain_fetch(url: str, target: Path) -> None:
    """Fetch with one stream into a file, hashing on the way: the loop that everybody writes first."""
    hasher = hashlib.sha256()
    with urllib.request.urlopen(url) as answer, target.open("wb") as out:
        while piece := answer.read(PIECE):
            hasher.update(piece)
            out.write(piece)
    hasher.hexdigest()


def plain_copy(source: Path, target: Path) -> None:
    """Copy a file and hash the copy."""
    shutil.copyfile(source, target)
    plain_hash(target)


def plain_hash(path: Path) -> None:
    """Hash a file."""
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()


def plainly(script: str, *places: object) -> Spent:
    """One of the plain scripts in a process of its own too, so that both sides begin with the same cold process."""
    command = [sys.executable, __file__, "--plain", script, *map(str, places)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu = json.loads(done.stdout)
    return wall, cpu


def load(task: contract.ServeTask, place: contract.Location, cache: Path) -> Mapping[str, float]:
    """Seconds of each phase of a searcher's load in a process of its own."""
    changed = task.model_copy(update={"artifacts": place, "cache_dir": str(cache)})
    environment = os.environ | {"ARTIFACTS_AWS_ACCESS_KEY_ID": KEYS[0], "ARTIFACTS_AWS_SECRET_ACCESS_KEY": KEYS[1]}
    done = subprocess.run(
        [sys.executable, __file__, "--load", changed.model_dump_json(by_alias=True)],
        check=True, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def load_here(text: str) -> None:
    """In the child: load and say how long each phase took, and how much memory it took at most."""
    from vectorindex_searcher.serve.load import load

    cpu: list[float] = []
    # It tells before each phase; fetching comes second.
    loaded = load(contract.ServeTask.model_validate_json(text), lambda _: cpu.append(time.process_time()))
    status = Path("/proc/self/status").read_text().splitlines()  # not ru_maxrss, which begins with the parent's
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    print(json.dumps({**loaded.seconds, "fetchCpu": cpu[2] - cpu[1], "peakMiB": peak}))


# ---------------------------------------------------------------- rounds


def measure(artifact: Artifact, rounds: int, hot: bool) -> tuple[dict[str, list[Spent]], dict[str, list[Any]]]:
    """Seconds of the plain script, and phases of the searcher, by side and round."""
    task = proven(artifact)
    plain: dict[str, list[Spent]] = defaultdict(list)
    ours: dict[str, list[Any]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(dir=artifact.folder.parent, prefix="start-") as name,
        contextlib.ExitStack() as stack,
    ):
        work = Path(name)
        endpoint = stack.enter_context(object_store(work / "s3"))
        s3 = filled(endpoint, artifact.folder)
        key = (artifact.files / INDEX_FILE).relative_to(artifact.folder).as_posix()
        url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key})
        remote = contract.Location(s3=contract.S3(bucket=BUCKET, endpoint=endpoint, region="us-east-1"))
        cache, copy, index = work / "cache", work / "copy", artifact.files / INDEX_FILE

        def cold(folder: Path) -> None:
            if not hot:
                drop(folder)

        for number in range(rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                source = work / "s3" if side.startswith("S3") else artifact.folder
                cold(source)
                if side == "filled cache":
                    if not cache.exists():
                        load(task, task.artifacts, cache)
                    shutil.copyfile(artifact.files / INDEX_FILE, copy)
                    cold(work)
                    plain[side].append(plainly("hash", copy))
                    cold(work)
                    ours[side].append(load(task, task.artifacts, cache))
                    continue
                by_s3 = side.startswith("S3")
                plain[side].append(plainly("fetch", url, copy) if by_s3 else plainly("copy", index, copy))
                copy.unlink()
                shutil.rmtree(cache, ignore_errors=True)
                cold(source)
                ours[side].append(load(task, remote if by_s3 else task.artifacts, cache))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return plain, ours


def page(
    artifact: Artifact, plain: Mapping[str, list[Spent]], ours: Mapping[str, list[Any]], hot: bool
) -> tuple[str, dict[str, float]]:
    """The results page and its headline ratios."""
    size = (artifact.files / INDEX_FILE).stat().st_size
    rows, shares = [], {}
    for side in SIDES:
        script = statistics.median(wall for wall, _ in plain[side])
        phases = {phase: statistics.median(one[phase] for one in ours[side]) for phase in PHASES}
        pairs = list(zip(plain[side], ours[side], strict=True))
        share = statistics.median(wall / one["fetch"] for (wall, _), one in pairs)
        shares[side] = statistics.median(cpu / one["fetchCpu"] for (_, cpu), one in pairs)
        peak = max(one["peakMiB"] for one in ours[side])
        rows.append(
            [side, script, size / script / 1e6, *phases.values(), sum(phases.values()), share, shares[side], peak]
        )
    head = ["", "plain script, s", "MB/s", *(f"{phase}, s" for phase in PHASES), "sum, s"]
    head += ["plain / fetch, wall", "plain / fetch, CPU", "peak MiB"]
    pages = "were in memory" if hot else "were dropped from memory before each"
    text = f"""# Start

`python bench/start.py`, {results.stamp()}.
{results.machine()}.

{artifact.manifest.count} vectors, {size / 1e6:.0f} MB of index file; medians of {len(plain[SIDES[0]])} rounds, wall
time; pages of what is read {pages}. *plain / fetch* is how many times as fast
as the plain script the searcher fetches and verifies: for an empty cache one stream (or copy) into a file and SHA-256,
for a filled one SHA-256 alone. The searcher verifies ids beside the index file, and is ready after the canary queries.

{results.table(head, rows)}
"""
    names = {"S3, empty cache": "cold_s3", "folder, empty cache": "cold_folder", "filled cache": "warm"}
    return text, {f"start.{names[side]}_cpu_ratio": share for side, share in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes no results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--hot", action="store_true", help="leave pages in memory: network and hash alone")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--plain", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        scripts: dict[str, Callable[..., None]] = {"fetch": plain_fetch, "copy": plain_copy, "hash": plain_hash}
        name, *places = options.plain
        first = places[0] if name == "fetch" else Path(places[0])
        print(json.dumps(timed(lambda: scripts[name](first, *map(Path, places[1:])))))
        return
    if options.load:
        load_here(options.load)
        return
    count, rounds = (20_000, 1) if options.quick else (options.count, options.rounds)
    artifact = built(clustered(count, options.dimension), "Flat")
    text, headline = page(artifact, *measure(artifact, rounds, options.hot), options.hot)
    print(text)
    if not options.quick:
        results.write_page("start", text)
        results.add_to_summary(headline)


if __name__ == "__main__":
    main()
