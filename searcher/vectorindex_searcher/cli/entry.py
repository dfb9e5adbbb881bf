"""Where the program begins: Ctrl-C while the libraries load ends it without a traceback. Must import nothing large."""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command line; its exit code."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else somebody ignores it, or has a handler of their own
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import main as command_line

    signal.signal(signal.SIGINT, handler)
    return command_line.main()
