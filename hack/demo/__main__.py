"""`python -m demo`, as `make demo` calls it. Exit status 0: every outcome as expected and no query failed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from demo import stage
from demo.ask import ask
from demo.printer import Printer
from demo.story import Story
from demo.summary import Summary
from harness import cluster as clusters
from harness.base import CHECKOUT
from harness.errors import HarnessError
from harness.kube import Kube

PREPARED, IN_WORDS = "join path components", "open a web page from my program"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo, cleans after it, or asks one question."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--clean", action="store_true", help="remove what the demo made in the cluster")
    parser.add_argument(
        "--ask",
        metavar="TEXT",
        help="search; where the index takes vectors alone, with the first prepared query that contains TEXT",
    )
    options = parser.parse_args(arguments)
    printer = Printer()
    try:
        if options.clean:
            stage.clean(printer)
            return 0
        if options.ask:
            ask(Kube(clusters.choose()), printer, options.ask)
            return 0
        return _run(printer)
    except HarnessError as failure:
        printer.plain(f"\ndemo: {failure}")
    except KeyboardInterrupt:
        printer.plain("\ndemo: interrupted; run it again to start afresh, or `make demo-clean`")
    return 1


def _run(printer: Printer) -> int:
    summary = Summary()
    cluster = clusters.choose()
    stage.announce(printer, cluster)
    set_up = stage.build(printer, cluster)
    try:
        Story(set_up, printer, summary).tell()
    except HarnessError as failure:
        printer.plain(f"\ndemo: {failure}")
    summary.duration = printer.seconds
    summary.show(printer)
    target = stage.BUILD / "summary.json"
    summary.write(target)
    if not summary.as_expected:
        printer.plain(f"\nnot as expected; figures in {target.relative_to(CHECKOUT)}")
        return 1
    _what_now(printer, set_up)
    return 0


def _what_now(printer: Printer, set_up: stage.Stage) -> None:
    printer.title("It goes on serving")
    ask(set_up.kube, printer, IN_WORDS if set_up.encoder is not None else PREPARED)
    cluster, service = set_up.kube.cluster, set_up.index.service()
    if set_up.encoder is not None and cluster.direct and service is not None:
        body = json.dumps({"text": IN_WORDS, "k": 3, "include": ["metadata"]})
        printer.plain(f"\n  curl -s http://{service['spec']['clusterIP']}/v1/search -d '{body}'")
    tool = "hack/local-cluster/cluster kubectl" if cluster.name == "local" else "kubectl"
    printer.plain(f"\n  {tool} -n {set_up.index.namespace} get vix,vixr      what became of it")
    printer.plain('  PYTHONPATH=hack .venv/bin/python -m demo --ask "TEXT"      search')
    printer.plain("  make demo-clean      remove it")


if __name__ == "__main__":
    sys.exit(main())
