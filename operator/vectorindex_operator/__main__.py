"""`vectorindex-operator run`: hold the Lease, watch, reconcile. `remove-finalizers`: before it is uninstalled."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import signal
import sys
import threading
from types import FrameType

from vectorindex_operator import handlers, memory, telemetry, wiring
from vectorindex_operator.adapters.lease import LeaseLock, LeaseTimes, lead
from vectorindex_operator.settings import OperatorSettings, add_flags, from_flags
from vectorindex_operator.uninstall import remove_finalizers

log = logging.getLogger("vectorindex_operator")

REMOVE_FINALIZERS = "remove-finalizers"
VERBS = {
    "run": "run the operator",
    REMOVE_FINALIZERS: "before the operator is uninstalled: take it from its work, and its finalizers off revisions",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit codes: 0 clean stop, 1 the Lease was lost, or finalizers are left, 64 bad flags."""
    parser = argparse.ArgumentParser(
        prog="vectorindex-operator",
        description="Reconciles VectorIndex resources: builds, proves, rolls out and rolls back FAISS indexes.",
    )
    version = importlib.metadata.version("vectorindex-operator")
    parser.add_argument("--version", action="version", version=version)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, about in VERBS.items():
        add_flags(verbs.add_parser(verb, help=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    try:
        flags = parser.parse_args(argv)
        settings = from_flags(flags)
    except ValueError as error:
        print(f"vectorindex-operator: {error}", file=sys.stderr)  # noqa: T201
        return 64
    telemetry.set_up_logging(settings.log_level)
    return remove_finalizers(settings) if flags.verb == REMOVE_FINALIZERS else run(settings)


def run(settings: OperatorSettings) -> int:
    """Serve health, wait for the Lease, work until told to stop."""
    memory.few_arenas()
    if not settings.installation.internal_keys.current:
        log.info("requests to searchers are not signed: no --internal-key-dir")
    app = wiring.build(settings)
    telemetry.serve(settings.http_port, app.health, app.metrics)
    times = LeaseTimes.of(settings.tuning.lease_seconds)
    lock = LeaseLock(settings.namespace, settings.identity, app.cluster.api, times, settings.operator_class)
    app.cluster.seconds_left = lock.seconds_left
    memory.freeze()
    stop = threading.Event()

    def work() -> None:
        log.info("leading", extra={"key": settings.identity})
        app.metrics.leader.set(1)
        filled = threading.Event()
        relist = (stop, settings.tuning.relist_seconds, filled.set)
        threading.Thread(target=app.relist.until, args=relist, name="relist", daemon=True).start()
        filled.wait()
        app.queue.start()
        handlers.run(app.queue, app.relist, settings.watch_namespaces, app.watches, stop)
        if not stop.is_set():
            log.error("the watches ended by themselves")
            os._exit(1)

    def lost() -> None:
        # A worker may be in the middle of a pass; the process ends here and now, and any prefix of a plan is safe.
        log.error("the Lease is lost")
        os._exit(1)

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        log.info("stopping")
        stop.set()
        lock.stop()
        if app.queue.stop(wait=times.request):
            lock.release()
        # Else a write may still be under way: the Lease runs out by itself, later than that write can be done.
        os._exit(0)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, terminate)
    app.health.ready = True
    lead(lock, work, lost)
    return 1


if __name__ == "__main__":
    sys.exit(main())
