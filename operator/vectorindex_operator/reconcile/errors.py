"""What can go wrong while talking to the cluster. Failed work (a Job, a gate) is data in the Observation, not here.

ClusterError
    ConflictError      somebody wrote in between: the pass ends, and looks again at once
    UnreachableError   no answer, or the server's own fault: a read is made once more (adapters/second_tries.py), then
                       the pass ends, and is tried again with backoff
    RefusedError       the API server will not take this write (quota, admission, RBAC): said in the status, what is
                       safe is done all the same, and it is tried again with backoff
      InvalidError     since the object is none: a field that is not there, a value that is not allowed
      NamespaceTerminatingError   nothing can be made in this namespace any more
      UndoneError      the same write has been undone each time: it waits, and is said like any other refusal
    NotOursError       an object of a name that we need belongs to somebody else: the same
    ReportedError      a pass that met one of these two, and has said so
"""

from __future__ import annotations


class ClusterError(Exception):
    """Base of what the cluster port raises."""


class ConflictError(ClusterError):
    """A precondition (resourceVersion, uid) did not hold."""


class NotOursError(ClusterError):
    """An object with a name that we need has another owner."""


class RefusedError(ClusterError):
    """The API server answered 4xx for a reason other than a conflict."""


class InvalidError(RefusedError):
    """The object itself is wrong (400, 422): it would be refused in any namespace, and at any time."""


class NamespaceTerminatingError(RefusedError):
    """The namespace is being deleted: nothing new can be made in it, now or later."""


class UndoneError(RefusedError):
    """Somebody changes back what is written, each time: it is not written now (repeats.py)."""


class UnreachableError(ClusterError):
    """No answer, or 429 or 5xx. `retry_after`: seconds for which the server asks to be left alone."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ReportedError(ClusterError):
    """A write was refused, which the status says. `look_after`: seconds until the next look at the latest."""

    def __init__(self, message: str, look_after: float) -> None:
        super().__init__(message)
        self.look_after = look_after
