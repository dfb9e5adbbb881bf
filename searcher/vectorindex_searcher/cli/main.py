"""The command line: resolve | partition | build | publish | validate | serve | route | collect | outcomes | inspect |
encoder.

In a pod a verb takes its task as JSON from the environment (contract.TASK_ENV); a person gives flags. The result or the
failure is JSON: in the termination log for the operator, on stdout for a person. Exit codes are contract.ExitCode.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from ..contract import TASK_ENV, ExitCode, Failure, Model, ValidateTask
from ..errors import BadSpec, RetryableError, TaskError
from ..progress import configure_logging
from . import commands, flags, termination
from .flag_names import for_a_person

if TYPE_CHECKING:
    from ..proof.report import Report

_log = logging.getLogger("vectorindex_searcher")


class _ToldToEnd(BaseException):
    """SIGTERM came; as KeyboardInterrupt nothing on the way may take it for an error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    parser = flags.parser()
    options = parser.parse_args(arguments)
    configure_logging(verbose=options.verbose)
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a fault in FAISS names the place before it ends the process
    try:
        # The first process of a container never gets a SIGTERM that it does not handle: a Job that is given up would go
        # on until it is killed. What came before this line was held back by the image's ENTRYPOINT. `serve` puts one of
        # its own in the place, and drains.
        signal.signal(signal.SIGTERM, _end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return _VERBS[options.verb](options)
    except TaskError as error:
        return _failed(error.failure, error.exit_code, options)
    except ValidationError as error:
        return _failed(_bad_task(error, options).failure, ExitCode.BAD_SPEC, options)
    except MemoryError:
        remedy = "Raise spec.build.resources.limits.memory."
        failure = Failure(reason="OutOfMemory", message="memory ran out", remedy=remedy)
        return _failed(failure, ExitCode.MEMORY, options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except _ToldToEnd:
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if _disk_is_full(error):
            return _failed(_disk_full(error).failure, ExitCode.RETRY, options)
        return _bug(error, options)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _ToldToEnd


def _resolve(options: argparse.Namespace) -> int:
    from ..dataset.resolve import resolve

    return _done(resolve(commands.resolve_task(options, _from_environment())), options)


def _partition(options: argparse.Namespace) -> int:
    from ..build.partition import partition

    task = commands.partition_task(options, _from_environment())
    return _done(partition(task, commands.work_folder(options)), options)


def _publish(options: argparse.Namespace) -> int:
    from ..artifact.whole import publish_whole

    return _done(publish_whole(commands.publish_task(options, _from_environment())), options)


def _build(options: argparse.Namespace) -> int:
    from ..build.task import build
    from .task_metrics import serving

    task = commands.build_task(options, _from_environment())
    with serving("build", options.metrics_port):
        return _done(
            build(task, commands.work_folder(options), checkpoint_after_seconds=options.checkpoint_after), options
        )


def _validate(options: argparse.Namespace) -> int:
    from ..proof.merged import whole_of
    from ..proof.task import answer, prove

    task = commands.validate_task(options, _from_environment())
    if whole_of(task):
        return _validate_merged(task, options)
    report, sha256 = prove(task, commands.work_folder(options))
    code = _done(answer(task, report, sha256), options)
    return code if _from_environment() is not None else _show(report, options)


def _validate_merged(task: ValidateTask, options: argparse.Namespace) -> int:
    """A sharded artifact as a whole."""
    from ..proof.merged import answer_merged, prove_merged

    report, sha256 = prove_merged(task, commands.work_folder(options))
    code = _done(answer_merged(task, report, sha256), options)
    if _from_environment() is not None:
        return code
    lines, proven = report.verdicts(options.floor)
    sys.stderr.writelines(line + "\n" for line in ([*report.lines(), *lines] if sys.stderr.isatty() else lines))
    return ExitCode.OK if proven else ExitCode.BELOW_FLOOR


def _show(report: Report, options: argparse.Namespace) -> int:
    """What a person wants of `validate` beside the JSON: a summary on a terminal, a page, a verdict as exit code."""
    from ..artifact.inspection import report_lines, verdicts
    from ..proof.page import page

    floors = commands.segment_floors(options)
    lines, proven = verdicts(report, options.floor, floors)
    if sys.stderr.isatty():
        lines = [*report_lines(report), *lines]
    sys.stderr.writelines(line + "\n" for line in lines)
    if options.html is not None:
        # A report that was there already may have been measured when another floor was asked for.
        _write(options.html, page(report.model_copy(update={"floor": options.floor})))
    return ExitCode.OK if proven else ExitCode.BELOW_FLOOR


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise BadSpec("CannotWrite", f"--html {path}: {error.strerror or error}", field="html") from error


def _serve(options: argparse.Namespace) -> int:
    from .. import serve

    flags = {**vars(options), "fresh": commands.fresh_text(options)}
    return serve.main(commands.serve_task(options, _from_environment()), flags)


def _route(options: argparse.Namespace) -> int:
    from ..serve import route

    return route.main(commands.route_task(options, _from_environment()), vars(options))


def _collect(options: argparse.Namespace) -> int:
    from ..artifact.collect import collect

    return _done(collect(commands.collect_task(options, _from_environment())), options)


def _outcomes(options: argparse.Namespace) -> int:
    from ..artifact.outcomes import outcomes

    return _done(outcomes(commands.outcomes_task(options, _from_environment())), options)


def _inspect(options: argparse.Namespace) -> int:
    from ..artifact.inspection import inspect, report_page

    for line in inspect(options.artifact, options.endpoint, options.region):
        sys.stdout.write(line + "\n")
    if options.html is not None:
        _write(options.html, report_page(options.artifact, options.endpoint, options.region))
    return ExitCode.OK


def _encoder(options: argparse.Namespace) -> int:
    from ..text.shown import lines, reranker_lines

    shown = reranker_lines if options.cross else lines
    for line in shown(commands.model_place(options), options.text):
        sys.stdout.write(line + "\n")
    return ExitCode.OK


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "resolve": _resolve,
    "partition": _partition,
    "build": _build,
    "publish": _publish,
    "validate": _validate,
    "serve": _serve,
    "route": _route,
    "collect": _collect,
    "outcomes": _outcomes,
    "inspect": _inspect,
    "encoder": _encoder,
}


def _from_environment() -> str | None:
    return os.environ.get(TASK_ENV) or None


def _done(result: Model, options: argparse.Namespace) -> int:
    termination.write(result)
    if _from_environment() is None or sys.stdout.isatty() or options.verbose:
        sys.stdout.write(result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
    return ExitCode.OK


def _failed(failure: Failure, code: ExitCode, options: argparse.Namespace) -> int:
    if _from_environment() is None:
        failure = for_a_person(failure, options.verb)
    termination.write(failure)
    if _from_environment() is None or sys.stdout.isatty():
        sys.stdout.write(failure.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
    _log.error(failure.message, extra={"reason": failure.reason, "exitCode": int(code), "remedy": failure.remedy})
    return code


def _bug(error: Exception, options: argparse.Namespace) -> int:
    _log.exception("bug")
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]
    return _failed(Failure(reason="Bug", message=_without_secrets(message)), ExitCode.BUG, options)


def _disk_is_full(error: Exception) -> bool:
    """FAISS, which writes files itself, has only the system's words for it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) in str(error)


def _disk_full(error: Exception) -> RetryableError:
    """A folder for temporary files that is full; stores and caches name their own."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    remedy = "Free space there, or name a folder on a larger disk with --work-dir (in a pod: more ephemeral storage)."
    return RetryableError("DiskFull", f"{where}no space left for temporary files", remedy=remedy)


def _bad_task(error: ValidationError, options: argparse.Namespace) -> BadSpec:
    """What the first wrong value is, by the name of its flag when a person gave it."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if _from_environment() is not None or where not in vars(options):
        message = ": ".join(part for part in (error.title, where, first["msg"]) if part)
        return BadSpec("BadTask", message, field=where or None)
    flag = "-k" if where == "k" else "--" + where.replace("_", "-")
    example = "for example 500Mi or 4Gi" if where == "memory_limit" else "another value"
    remedy = f"Give {example}; `vectorindex-searcher {options.verb} --help` has all flags."
    return BadSpec("BadTask", f"{flag} {first['input']!r:.100}: {first['msg']}", field=flag, remedy=remedy)


def _without_secrets(text: str) -> str:
    """The text with the values of secret-like environment variables taken out."""
    for name, value in os.environ.items():
        if len(value) >= 8 and any(word in name for word in ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY")):
            text = text.replace(value, "***")
    return text
