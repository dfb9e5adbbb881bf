"""Pictures of the headline ratios: bench/results/*.svg, drawn from summary.json; of the proof from its splits.

    python bench/pictures.py

Draws what is there: shares of FAISS by itself that a server reaches, what other vector stores cost beside ours, and how
far what the gate states lies from what is true, split by split.
"""

from __future__ import annotations

import json
import re
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from results import FOLDER, SUMMARY

PROOF = FOLDER / "proof.json"

FORMATS = {"binary": "#4c72b0", "json": "#dd8452"}
CONNECTIONS = (1, 8, 64)
matplotlib.rcParams |= {"svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def serving(figures: dict[str, float]) -> None:
    """Queries per CPU-second of the whole server as a share of FAISS by itself."""
    names = sorted({match[1] for key in figures if (match := re.fullmatch(r"serving\.(.+)\.binary_64_share", key))})
    if not names:
        return
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.6 * len(names), 2.6), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for number, (kind, colour) in enumerate(FORMATS.items()):
            shares = [figures[f"serving.{name}.{kind}_{connections}_share"] for connections in CONNECTIONS]
            bars = axis.bar([place + 0.4 * number for place in range(3)], shares, 0.38, color=colour, label=kind)
            axis.bar_label(bars, fmt="%.2f", fontsize=8)
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_xticks([place + 0.2 for place in range(3)], [f"{count} conn." for count in CONNECTIONS])
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, 1.3)
    axes[0][0].set_ylabel("share of FAISS by itself")
    axes[0][0].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    _save(figure, "serving")


def peers(figures: dict[str, float]) -> None:
    """Server CPU a query of other vector stores, as a multiple of ours (binary)."""
    found = {
        match[1]: value
        for key, value in figures.items()
        if (match := re.fullmatch(r"peers\.(.+)_ratio", key)) and match[1] != "best_peer"
    }
    if not found:
        return
    figure, axis = pyplot.subplots(figsize=(5, 0.5 + 0.4 * len(found)))
    names = sorted(found, key=lambda name: found[name], reverse=True)
    bars = axis.barh(["vectorindex-searcher", *names][::-1], [1.0, *(found[name] for name in names)][::-1])
    axis.bar_label(bars, fmt="%.1f x", padding=3, fontsize=8)
    axis.set_xscale("log")
    axis.set_xlabel("server CPU a query, as a multiple of ours (binary, 64 connections)")
    _save(figure, "peers")


def proof(splits: list[dict[str, Any]]) -> None:
    """Of each split what the gate stated, and its bound, minus the recall of the hidden queries."""
    cells = sorted({(one["data"], one["factory"]) for one in splits})
    figure, axis = pyplot.subplots(figsize=(7, 0.8 + 0.34 * len(cells)))
    for place, cell in enumerate(reversed(cells)):
        mine = [one for one in splits if (one["data"], one["factory"]) == cell]
        for name, shift, mark, colour in (("stated", 0.14, "o", "#4c72b0"), ("bound", -0.14, "|", "#dd8452")):
            gaps = [one[name] - one["fresh"] for one in mine]
            axis.plot(
                gaps, [place + shift] * len(gaps), mark, color=colour, markersize=4, label=None if place else name
            )
    axis.axvline(0.0, color="grey", linewidth=0.8, linestyle="--")
    axis.set_yticks(range(len(cells)), [f"{data}  {factory}" for data, factory in reversed(cells)], fontsize=7)
    axis.set_xlabel("minus the recall of hidden queries: a bound right of the line promised too much")
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    _save(figure, "proof")


def _save(figure: pyplot.Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    figures = json.loads(SUMMARY.read_text()) if SUMMARY.exists() else {}
    serving(figures)
    peers(figures)
    if PROOF.exists():
        proof(json.loads(PROOF.read_text()))


if __name__ == "__main__":
    main()
