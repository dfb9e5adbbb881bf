"""What can go wrong while talking to the cluster. Failed work (a Job, a gate) is data in the Observation, not here.

ClusterError
    ConflictError      somebody wrote in between: observe again at once
    NotOursError       an object of our name belongs to somebody else
    RefusedError       the API server will not take this write (quota, admission, RBAC): said in the log, tried again
    UnreachableError   no answer, or the server's own fault: tried again with backoff
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


class UnreachableError(ClusterError):
    """No answer, or 429 or 5xx."""
