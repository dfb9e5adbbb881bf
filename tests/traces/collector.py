"""OpenTelemetry's collector as a process on loopback: OTLP over HTTP in, a file with a message a line out."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layers import program
from waiting import until

Json = dict[str, Any]
LAYER = "traces"
_CONFIGURATION = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{file: {{path: {file}, flush_interval: 50ms}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}
"""


@dataclass(slots=True)
class Collector:
    """`folder`: of its files; `port`: where it listens while it runs."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Json]:
        """All that it has written, each with the name of its service and its attributes as a mapping."""
        written = self._file.read_text() if self._file.exists() else ""
        messages = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
        return [
            {**span, "attributes": _read(span.get("attributes", ())), "service": _read(of["resource"]["attributes"])}
            for message in messages
            for of in message["resourceSpans"]
            for scope in of["scopeSpans"]
            for span in scope["spans"]
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """It takes spans in this block."""
        settings = self.folder / "collector.yaml"
        settings.write_text(_CONFIGURATION.format(port=self.port, file=self._file))
        with (self.folder / "collector.log").open("ab") as log:
            command = [program(LAYER, "otelcol"), "--config", str(settings)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(self._listens)
            yield
        finally:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections, and answers nobody in this block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @property
    def _file(self) -> Path:
        return self.folder / "spans.jsonl"

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "collector.log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def _read(attributes: Any) -> dict[str, str]:
    return {one["key"]: str(next(iter(one["value"].values()))) for one in attributes}
