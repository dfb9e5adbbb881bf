"""Ask every shard of one revision and answer with the best of all: no index, no FAISS. See docs/shards.md.

link      a connection to a pod: a request at a time, an answer that is bounded
pods      the pods of one shard: who they are, whether they answer, which one is asked
ask       one request to one shard: another try, a second request, no more than that
sent      what all shards are sent for one request
parts     what a shard answered, checked
reading   when it is read, and what that may take
merge     the best of all parts, written as a searcher writes
facts     what the shards say of themselves, and whether they are one index
router    a request to all shards
canary    whether merged answers are what the gate measured, before anybody gets one
live_recall  what users got against the nearest rows of all shards, on a sample
admin_ports  what is asked of shards besides searches, signed
app       the user port
server    the life of a router
"""

from __future__ import annotations

from collections.abc import Mapping

from ... import contract


def main(task: contract.RouteTask, flags: Mapping[str, object] = {}) -> int:
    """Route until SIGTERM; returns contract.ExitCode.OK. `flags`: settings from the command line, by name.

    Raises TaskError for settings that cannot be used.
    """
    import uvloop

    from ..settings import from_process
    from .server import Server, Told

    uvloop.run(Server(task, from_process(flags), Told.from_process(flags)).run())
    return contract.ExitCode.OK
