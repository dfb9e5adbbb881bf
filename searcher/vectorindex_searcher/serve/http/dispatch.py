"""From a request's path and method to its handler: the same on both ports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from .messages import Deferred, Problem, Request, Response

Answer = Response | Deferred | asyncio.Future[Response]
Handler = Callable[[Request], Answer]
Routes = Mapping[bytes, tuple[tuple[bytes, ...], Handler]]
"""Path -> allowed methods, handler."""


def dispatch(routes: Routes, request: Request) -> Answer:
    """Call the handler of the request's path. `routes`: path -> allowed methods, handler. Raises Problem 404 or 405."""
    route = routes.get(request.path)
    if route is None:
        raise Problem(
            404,
            "NotFound",
            "there is nothing at this path",
            field="path",
            value=request.path.decode("latin-1"),
            remedy=f"paths are: {', '.join(path.decode() for path in routes)}",
        )
    methods, handler = route
    if request.method not in methods:
        allowed = b", ".join(methods)
        raise Problem(
            405,
            "MethodNotAllowed",
            f"this path takes {allowed.decode()}",
            field="method",
            value=request.method.decode("latin-1"),
            headers=((b"Allow", allowed),),
        )
    return handler(request)
