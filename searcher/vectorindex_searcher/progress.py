"""How far a long step is: JSON log lines every few seconds in a pod, a bar on a terminal. And the log format itself."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

import orjson

LOG_SECONDS = 5.0
BAR_SECONDS = 0.2
_BAR_WIDTH = 30
_log = logging.getLogger(__name__)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and whatever came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr: text for a person at a terminal, JSON lines otherwise. Called by the command line only."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for chatty in ("botocore", "boto3", "s3transfer", "urllib3", "faiss.loader"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Progress:
    """Rows done of a step. `step`: what is being done, in the present ("reading rows")."""

    def __init__(self, step: str, total: int) -> None:
        self._step, self._total = step, total
        self._began = self._said = time.monotonic()
        self._done = 0
        self._bar = sys.stderr.isatty()

    def add(self, rows: int) -> None:
        """`rows` more are done. Says so at most every few seconds, and at the end."""
        self._done += rows
        now = time.monotonic()
        if now - self._said >= (BAR_SECONDS if self._bar else LOG_SECONDS) or self._done >= self._total:
            self._said = now
            self._say(now - self._began)

    def _say(self, seconds: float) -> None:
        rate = self._done / seconds if seconds > 0 else 0.0
        left = (self._total - self._done) / rate if rate else 0.0
        if self._bar:
            full = _BAR_WIDTH * self._done // max(1, self._total)
            bar = "#" * full + "." * (_BAR_WIDTH - full)
            end = "\n" if self._done >= self._total else ""
            line = f"\r{self._step:>14} [{bar}] {self._done:,}/{self._total:,}  {rate:,.0f}/s  {left:.0f} s left  {end}"
            sys.stderr.write(line)
            sys.stderr.flush()
            return
        figures = {"rows": self._done, "total": self._total, "rowsPerSecond": round(rate), "etaSeconds": round(left)}
        _log.info(self._step, extra=figures)
