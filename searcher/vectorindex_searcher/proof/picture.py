"""The frontier as a picture: recall over latency as inline SVG, with the points that serve and the floor.

Built as an element tree, so every text is escaped. No script, no font, no file from elsewhere; colours come from the
page's style sheet (page.py), which knows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree  # builds only, never parses

from ..contract import OperatingPoint

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 16, 48
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_LINES = 8
ZOOM = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that serves: one or two characters beside it, the text that a pointer shows, a CSS class."""

    point: OperatingPoint
    label: str
    title: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """Recall linear from `low` to 1, latency logarithmic."""

    low: float
    fast: float
    slow: float

    def x(self, latency_us: float) -> float:
        share = (math.log10(max(latency_us, 1e-3)) - math.log10(self.fast)) / math.log10(self.slow / self.fast)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, recall: float) -> float:
        return TOP + (1 - recall) / (1 - self.low) * (HEIGHT - TOP - BOTTOM)


def frontier_picture(
    frontier: Sequence[OperatingPoint], marks: Sequence[Mark], floor: float | None
) -> ElementTree.Element:
    """An <svg> element. `floor`: a line across at this recall."""
    scale = _scale(frontier, marks, floor)
    frontier = [point for point in frontier if point.recall >= scale.low]
    label = "Recall at k over latency of one query, of the points no other one beats, and of those that serve"
    root = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": label, "class": "frontier"}
    )
    _axes(root, scale)
    if floor is not None:
        _line(root, LEFT, scale.y(floor), WIDTH - RIGHT, scale.y(floor), "floor")
        _text(root, WIDTH - RIGHT - 4, scale.y(floor) - 5, f"floor {floor:g}", "floor-label", "end")
    if frontier:
        ordered = sorted(frontier, key=lambda point: point.latency_us)
        path = " ".join(f"{scale.x(p.latency_us):.1f},{scale.y(p.recall):.1f}" for p in ordered)
        ElementTree.SubElement(root, "polyline", {"points": path, "class": "curve"})
    for point in frontier:
        _interval(root, scale, point, "curve")
        _dot(root, scale, point, 3, "measured", describe(point))
    for mark in marks:
        _interval(root, scale, mark.point, mark.kind)
        _dot(root, scale, mark.point, 6, mark.kind, f"{mark.title}: {describe(mark.point)}")
        beside = scale.x(mark.point.latency_us) + 9
        _text(root, beside, scale.y(mark.point.recall) - 7, mark.label, f"label {mark.kind}-label", "start")
    return root


def describe(point: OperatingPoint) -> str:
    """A point in words."""
    params = ", ".join(f"{name} {value}" for name, value in point.params.items()) or "no parameters"
    return f"recall {point.recall:.4f} (at least {point.recall_low:.4f}), {point.latency_us:.0f} µs, {params}"


def _scale(frontier: Sequence[OperatingPoint], marks: Sequence[Mark], floor: float | None) -> _Scale:
    """All marks and the floor are inside. A frontier that begins at .1 would press what matters into the upper edge, so
    points at more than ZOOM times the chosen points' distance from 1 are left to the table."""
    chosen = [mark.point.recall_low for mark in marks] + ([floor] if floor is not None else [])
    lowest = min([*chosen, *(point.recall_low for point in frontier)], default=0.9)
    if chosen:
        lowest = max(lowest, 1 - ZOOM * max(1 - min(chosen), 0.005))
    low = max(0.0, min(lowest, 0.99) - 0.005)
    points = [*(point for point in frontier if point.recall >= low), *(mark.point for mark in marks)]
    latencies = [max(point.latency_us, 1e-3) for point in points] or [1.0]
    fast, slow = min(latencies) / 1.25, max(latencies) * 1.4
    return _Scale(low, fast, max(slow, fast * 2))


def _axes(root: ElementTree.Element, scale: _Scale) -> None:
    step = next((s for s in _STEPS if (1 - scale.low) / s <= _MOST_LINES), 0.25)
    count = int((1 - scale.low) / step + 1e-9)
    for number in range(count + 1):
        value = 1 - number * step
        _line(root, LEFT, scale.y(value), WIDTH - RIGHT, scale.y(value), "grid")
        _text(root, LEFT - 8, scale.y(value) + 4, f"{value:.3f}".rstrip("0").rstrip("."), "tick", "end")
    for value in _round_latencies(scale.fast, scale.slow):
        _line(root, scale.x(value), TOP, scale.x(value), HEIGHT - BOTTOM, "grid")
        _text(root, scale.x(value), HEIGHT - BOTTOM + 18, f"{value:g}", "tick", "middle")
    _line(root, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    _line(root, LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis")
    _text(root, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "latency of one query, µs (one thread)", "axis-label", "middle")
    name = _text(root, 0, 0, "recall@k", "axis-label", "middle")
    name.set("transform", f"translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)")


def _round_latencies(fast: float, slow: float) -> list[float]:
    """1, 2 and 5 of each decade between the two; fewer when there are many decades."""
    decades = range(math.floor(math.log10(fast)), math.ceil(math.log10(slow)) + 1)
    digits = (1, 2, 5) if len(decades) <= 4 else (1,)
    found = [digit * 10.0**decade for decade in decades for digit in digits]
    return [value for value in found if fast <= value <= slow]


def _interval(root: ElementTree.Element, scale: _Scale, point: OperatingPoint, kind: str) -> None:
    """A whisker from the recall down to its lower bound."""
    x = scale.x(point.latency_us)
    _line(root, x, scale.y(point.recall), x, scale.y(max(point.recall_low, scale.low)), f"whisker {kind}-whisker")


def _dot(root: ElementTree.Element, scale: _Scale, point: OperatingPoint, radius: float, kind: str, title: str) -> None:
    place = {"cx": f"{scale.x(point.latency_us):.1f}", "cy": f"{scale.y(point.recall):.1f}", "r": f"{radius}"}
    dot = ElementTree.SubElement(root, "circle", place | {"class": kind})
    ElementTree.SubElement(dot, "title").text = title


def _line(root: ElementTree.Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    place = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ElementTree.SubElement(root, "line", place | {"class": kind})


def _text(root: ElementTree.Element, x: float, y: float, text: str, kind: str, anchor: str) -> ElementTree.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind, "text-anchor": anchor}
    element = ElementTree.SubElement(root, "text", place)
    element.text = text
    return element
