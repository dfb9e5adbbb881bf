"""How far a long task is: JSON log lines every few seconds in a pod, a bar on a terminal, and `NOW` for metrics.

And the log format itself. Knows nothing of what the steps do.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LOG_SECONDS = 5.0
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


@dataclass(slots=True)
class Now:
    """Where the task of this process is. Written by one thread, read by any: each field is one assignment."""

    step: str = ""
    """What is being done, in the present ("reading rows")."""
    began: float = 0.0
    """time.monotonic() at the step's start."""
    done: int = 0
    """Rows of this step; 0 of 0 for a step that is not counted."""
    total: int = 0
    row_bytes: int = 0

    @property
    def rate(self) -> float:
        """Rows per second of this step so far."""
        seconds = time.monotonic() - self.began
        return self.done / seconds if self.done and seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds this step still takes at its rate; None when it is not known yet."""
        return (self.total - self.done) / self.rate if self.rate else None


NOW = Now()


@dataclass(slots=True)
class Texts:
    """Texts that were encoded by the task of this process; as Now, written by one thread (`waits`: by some)."""

    encoded: int = 0
    known: int = 0
    """Rows whose text needed no encoder: it had been encoded before, or stood in another row."""
    cut: int = 0
    """Rows of whose text only the beginning was encoded."""
    seconds: float = 0.0
    waits: int = 0
    """Calls of an endpoint that did not answer, or asked to wait."""

    def facts(self) -> dict[str, float]:
        """As logs and manifests have them."""
        return {"encoded": self.encoded, "known": self.known, "cut": self.cut, "seconds": round(self.seconds, 3)}


TEXTS = Texts()


def step(name: str, total: int = 0, row_bytes: int = 0) -> None:
    """The task goes on to another step. total, row_bytes: rows there will be and the bytes of one, where counted."""
    NOW.step, NOW.began, NOW.done, NOW.total, NOW.row_bytes = name, time.monotonic(), 0, total, row_bytes


class Progress:
    """Rows done of a step; use with `with`. `name`: what is being done, in the present. row_bytes: of one vector."""

    def __init__(self, name: str, total: int, row_bytes: int = 0) -> None:
        step(name, total, row_bytes)
        self._said = time.monotonic()
        self._bar = _bar(name, total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, rows: int) -> None:
        """`rows` more are done. Says so at most every few seconds, and at the end."""
        NOW.done += rows
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], rows)
            return
        now = time.monotonic()
        if now - self._said < LOG_SECONDS and NOW.done < NOW.total:
            return
        self._said = now
        figures = {"rows": NOW.done, "total": NOW.total, "rowsPerSecond": round(NOW.rate)}
        if NOW.eta is not None:
            figures["etaSeconds"] = round(NOW.eta)
        if NOW.row_bytes:
            figures["megabytes"] = NOW.done * NOW.row_bytes // 1_000_000
        _log.info(NOW.step, extra=figures)


def _bar(name: str, total: int) -> Bar:
    from rich.console import Console  # a pod never needs it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(f"{name:>14}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bar = Bar(*columns, *times, console=Console(file=sys.stderr), refresh_per_second=5)
    bar.add_task(name, total=total)
    bar.start()
    return bar
