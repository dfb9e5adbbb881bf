"""Why a verb ends early: exceptions that carry a contract.Failure and an exit code. No logic beyond building them."""

# ruff: noqa: N818 - the domain's names say what happened, without a suffix.

from __future__ import annotations

from .contract import ExitCode, Failure


class TaskError(Exception):
    """A verb cannot go on. `failure` is what the user reads, `exit_code` is what the operator acts on."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        object: str | None = None,  # noqa: A002 - the contract's name
        row: int | None = None,
        field: str | None = None,
        remedy: str | None = None,
        exit_code: ExitCode | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, object=object, row=row, field=field, remedy=remedy)
        if exit_code is not None:
            self.exit_code = exit_code

    @property
    def reason(self) -> str:
        return self.failure.reason


class BadSpec(TaskError):
    """The spec asks for something impossible; waits for a new generation."""

    exit_code = ExitCode.BAD_SPEC


class BadData(TaskError):
    """The data is unusable as it is; waits for a new fingerprint."""

    exit_code = ExitCode.BAD_DATA


class SourceMissing(TaskError):
    """The source does not exist, is empty, or may not be read: a person must act."""

    exit_code = ExitCode.SOURCE_MISSING


class StoreUnavailable(TaskError):
    """An object store cannot be used now (network, 5xx), or the artifact store refuses us."""

    exit_code = ExitCode.STORE_UNAVAILABLE


class RetryableError(TaskError):
    """Try again from the start: an object changed under us, a disk was full, a device was not there."""

    exit_code = ExitCode.RETRY


class SourceChanged(RetryableError):
    """A listed object changed or vanished after it was listed."""

    def __init__(self, object: str) -> None:  # noqa: A002 - the contract's name
        super().__init__(
            "SourceChanged",
            f"{object} changed or vanished after it was listed",
            object=object,
            remedy="Nothing to do: the source is listed again and built from the new listing.",
        )


class ChecksumMismatch(TaskError):
    """A downloaded file is not the file the manifest names. Never opened, never served."""

    exit_code = ExitCode.RETRY

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(
            "ChecksumMismatch",
            f"{name}: {detail}",
            object=name,
            remedy="The stored file was altered after it was published: delete the revision's artifacts, then "
            "build it again (in a cluster: annotation retry).",
        )
