"""Where a client's searcher is, from its URL."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """A scheme, a host, a port, and what stands before every path."""

    tls: bool
    host: str
    """Without the brackets of an IPv6 address."""
    port: int
    prefix: str
    """Empty, or beginning with a slash and ending without one."""

    authority: str
    """As in a Host header: without a port that is the scheme's own."""

    @property
    def base(self) -> str:
        """What a URL of a path begins with."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.prefix}"


def address_of(url: str) -> Address:
    """The address that `url` names. Raises ValueError, which never shows a password."""
    if not url.startswith(("http://", "https://")):
        scheme, _, rest = url.rpartition("://")
        shown = rest.rpartition("@")[2]
        raise ValueError(
            f"url must begin with http:// or https://, not {f'{scheme}://' * bool(scheme)}{shown!r}: write http://{shown}"
        )
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("url must not hold a user or password: give a bearer token as token=...")
    if parts.query or parts.fragment:
        raise ValueError(f"url must end with the path, not with {parts.query or parts.fragment!r}: leave that out")
    if not parts.hostname:
        raise ValueError(f"url names no host: {url!r}; write http://products.shop.svc")
    if not parts.path.isascii() or not parts.path.isprintable() or " " in parts.path:
        raise ValueError(f"url has a path that is not percent-encoded: {parts.path!r}")
    tls = parts.scheme == "https"
    own = 443 if tls else 80
    try:
        port = parts.port or own
    except ValueError:
        raise ValueError(f"url has a port that is none: {parts.netloc!r}; write a number from 1 to 65535") from None
    host = _host(parts.hostname)
    shown = f"[{host}]" if ":" in host else host
    return Address(tls, host, port, parts.path.rstrip("/"), shown if port == own else f"{shown}:{port}")


def _host(name: str) -> str:
    """In ASCII. Raises ValueError for what no resolver knows."""
    try:
        found = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        found = ""
    if not found or not found.isprintable() or " " in found:
        raise ValueError(f"url has a host that is none: {name!r}; write http://products.shop.svc")
    return found
