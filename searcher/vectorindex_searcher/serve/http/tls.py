"""TLS of the user port from mounted files: TLS 1.2 and later, HTTP/1.1, renewed certificates taken up as they come.

New handshakes get the new certificate; open connections, which live half a minute, keep theirs.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from ...errors import BadSpec
from .mounted import Signature, signature

_log = logging.getLogger(__name__)


class Certificate:
    """A certificate chain and its key (PEM). `context` is what a server listens with."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises BadSpec when the files cannot be used, naming which."""
        self._chain = chain
        self._key = key
        self._seen: Signature | None = None
        for path, flag in ((chain, "--tls-cert"), (key, "--tls-key")):
            if not path.is_file():
                remedy = "Give both --tls-cert and --tls-key, or VECTORINDEX_TLS_CERT and VECTORINDEX_TLS_KEY."
                raise BadSpec("CertificateMissing", f"{path} does not exist", field=flag, remedy=remedy)
        try:
            self._seen = signature((chain, key))
            self._current = _loaded(chain, key)
            self.context = _loaded(chain, key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            message = f"{chain} and {key} are no certificate chain with its private key: {_said(error)}"
            remedy = "Give PEM files that belong together, the key without a passphrase."
            raise BadSpec("BadCertificate", message, field="--tls-cert", remedy=remedy) from None
        self.context.sni_callback = self._use_current

    def _use_current(self, connection: ssl.SSLObject, *_: object) -> None:
        """At the beginning of each handshake. Loading into the one context that listens would leave it without its key
        when the files are replaced between the reading of one and the other."""
        connection.context = self._current

    def refresh(self) -> None:
        """Take up changed files. Those that do not fit together (yet) leave the old certificate in use."""
        try:
            seen = signature((self._chain, self._key))
            if seen == self._seen:
                return
            self._seen = seen
            self._current = _loaded(self._chain, self._key)
        except (OSError, ValueError) as error:
            extra = {"path": str(self._chain), "problem": _said(error)}
            _log.error("the certificate was not renewed; the old one stays in use", extra=extra)
            return
        _log.info("certificate renewed", extra={"path": str(self._chain)})


def _loaded(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(chain, key, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key is protected by a passphrase")


def _said(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
