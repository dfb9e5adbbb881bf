"""What became of each turn, on disk as soon as it is known: a run that is cut off loses nothing, and can go on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.campaign import Campaign, Turn

BETWEEN = "between two faults"


@dataclass(slots=True)
class Row:
    """What a fault cost. `wrong`: what ended otherwise than it must, and what was said of it.

    `times`: how often it happened; `phases`: and where that is told, in which phase of the newest revision.
    """

    fault: str
    turn: int = 0
    rollouts: int = 0
    """Of good data, to Stable."""
    rollbacks: int = 0
    """Of bad data, by a guardrail; or asked for."""
    times: int = 0
    queries: int = 0
    failed: int = 0
    unproven: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    phases: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Lines of JSON in `file`. `begun_by`: whence and when each part of the run is."""

    def __init__(self, file: Path, campaign: Campaign) -> None:
        self.file, self.campaign = file, campaign
        self.rows: list[Row] = []
        self.left: list[str] = []
        """What was still there after everything was deleted."""
        self.done: set[int] = set()
        """Turns that are over, however what they befell has ended."""
        self.broken: dict[int, str] = {}
        """Turns that broke off, and how."""
        self.parts: list[str] = []
        self.planned = 0
        self.changed: Callable[[], None] = lambda: None
        """After each turn."""
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, part: str, *, resume: bool) -> None:
        """A new file; to `resume`: the one that is there. Raises ValueError when that is of another campaign."""
        if resume and self.file.exists():
            self._read()
        else:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("")
            self._write({"campaign": asdict(self.campaign)})
        self.parts.append(part)
        self._write({"part": part})

    def is_done(self, turn: Turn) -> bool:
        return turn.number in self.done

    def went_right(self, turn: Turn) -> bool:
        """It ended, and all ended as it must."""
        return self.is_done(turn) and not any(row.wrong for row in self.rows if row.turn == turn.number)

    def add(self, row: Row) -> None:
        with self._lock:
            self.rows.append(row)
            self._write({"row": asdict(row)})

    def leaves(self, what: list[str]) -> None:
        with self._lock:
            for one in what:
                self.left.append(one)
                self._write({"left": one})

    def ended(self, turn: Turn, error: str = "") -> None:
        """A turn is over. `error`: it broke off."""
        with self._lock:
            self._over(turn.number, error)
            self._write({"turn": turn.number, "fault": turn.fault, "error": error})
            print(self._progress(turn), flush=True)
            self.changed()

    def _over(self, number: int, error: str) -> None:
        self.broken.pop(number, None)
        if error:
            self.broken[number] = error
        else:
            self.done.add(number)

    def _progress(self, turn: Turn) -> str:
        mine = [row for row in self.rows if row.turn == turn.number][-1:]
        said = [
            f"{row.rollouts} rollouts, {row.rollbacks} rollbacks, {row.times} times, {row.queries:,} queries, "
            f"{row.failed} failed, {row.unproven} unproven, {row.seconds:.0f} s"
            + "".join(f"\n  {one}" for one in row.wrong)
            for row in mine
        ]
        broken = self.broken.get(turn.number)
        after = f"{(time.monotonic() - self._began) / 60:.0f} min"
        head = f"{time.strftime('%H:%M:%S')}  {len(self.done)} of {self.planned}, {after}  {turn.fault}"
        return "  ".join([head, *said, *([f"BROKE OFF: {broken}"] if broken else [])])

    def _write(self, line: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _read(self) -> None:
        whole = self.file.read_text()
        if not whole.endswith("\n"):
            with self.file.open("a") as file:
                file.write("\n")
        for text in whole.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # it was cut off in the middle of a line
            if "campaign" in line and line["campaign"] | {"minutes": 0} != asdict(self.campaign) | {"minutes": 0}:
                raise ValueError(
                    f"{self.file} is of another run, {line['campaign']}: resume with its CYCLES, SEED, INDEXES and "
                    "ONLY, or begin anew without RESUME"
                )
            if "row" in line:
                self.rows.append(Row(**line["row"]))
            if "left" in line:
                self.left.append(line["left"])
            if "part" in line:
                self.parts.append(line["part"])
            if "turn" in line:
                self._over(line["turn"], line["error"])
