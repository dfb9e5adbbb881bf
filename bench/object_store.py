"""A real S3 server for a benchmark: versitygw on loopback, over a folder, whose files are the objects."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

BUCKET = "indexes"
KEYS = ("bench-key", "bench-key-secret")


@contextlib.contextmanager
def object_store(root: Path) -> Iterator[str]:
    """versitygw over a folder that is made; its endpoint."""
    binary = Path(__file__).resolve().parents[1] / "hack" / "local-cluster" / "cluster"
    program = subprocess.run([binary, "binary", "versitygw"], check=True, capture_output=True, text=True).stdout.strip()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    root.mkdir()
    environment = os.environ | {"ROOT_ACCESS_KEY": KEYS[0], "ROOT_SECRET_KEY": KEYS[1]}
    command = [program, "--port", f"127.0.0.1:{port}", "--region", "us-east-1", "--quiet", "posix", str(root)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def client(endpoint: str) -> Any:
    config = Config(
        signature_version="s3v4", request_checksum_calculation="when_required", s3={"addressing_style": "path"}
    )
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1],
        config=config,
    )  # fmt: skip
