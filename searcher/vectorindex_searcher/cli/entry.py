"""Where the program begins and ends. Ctrl-C while the libraries load ends it without a traceback. Must import nothing
large."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else somebody ignores it, or has a handler of their own
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import main as command_line

    signal.signal(signal.SIGINT, handler)
    _end(command_line.main())


def _end(code: int) -> NoReturn:
    """Here and now. A thread may still load an index or wait for a store: an interpreter that is taken down around one
    that runs native code can abort (SIGABRT), and the exit code, which says what went wrong, would be lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, for one
        sys.stderr.write(f"standard output: {error.strerror or error}\n")
        code = code or 120  # as Python itself ends then
    finally:
        logging.shutdown()
        os._exit(code)
