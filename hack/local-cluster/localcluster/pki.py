"""Certificates and kubeconfigs: one CA, one client certificate per component, all under STATE."""

from __future__ import annotations

import base64
from pathlib import Path
from string import Template

from . import layout
from .terminal import output_of

# name: (subject, subject alternative names). Groups (O=) are what RBAC's built-in bindings name.
CERTIFICATES = {
    "apiserver": (
        "/CN=kube-apiserver",
        f"IP:127.0.0.1,IP:{layout.NODE_IP},IP:{layout.KUBERNETES_SERVICE_IP},DNS:localhost,DNS:kubernetes,"
        "DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
    ),
    "admin": ("/O=system:masters/CN=admin", ""),
    "controller-manager": ("/CN=system:kube-controller-manager", ""),
    "scheduler": ("/CN=system:kube-scheduler", ""),
    "kubelet": (
        f"/O=system:nodes/CN=system:node:{layout.NODE_NAME}",
        f"IP:{layout.NODE_IP},DNS:{layout.NODE_NAME}",
    ),
    "proxy": ("/CN=system:kube-proxy", ""),
    "coredns": ("/CN=system:coredns", ""),
    "apiserver-kubelet": ("/O=system:masters/CN=apiserver-kubelet", ""),
    "front-proxy-client": ("/CN=front-proxy-client", ""),
}
KUBECONFIGS = ("admin", "controller-manager", "scheduler", "kubelet", "proxy", "coredns")
DAYS = "3650"


def ensure() -> None:
    """Makes what is missing. Existing keys stay: a cluster that was stopped must still trust its own."""
    layout.PKI.mkdir(parents=True, exist_ok=True)
    layout.PKI.chmod(0o700)
    authority = layout.PKI / "ca"
    if not authority.with_suffix(".crt").exists():
        _key(authority.with_suffix(".key"))
        output_of([
            "openssl", "req", "-x509", "-new", "-key", f"{authority}.key", "-days", DAYS,
            "-subj", "/CN=local-ca", "-out", f"{authority}.crt",
        ])  # fmt: skip
    for name, (subject, alternatives) in CERTIFICATES.items():
        ensure_certificate(layout.PKI / name, subject, alternatives)
    if not (layout.PKI / "sa.pub").exists():
        output_of(["openssl", "genrsa", "-out", layout.PKI / "sa.key", "2048"])
        output_of(["openssl", "rsa", "-in", layout.PKI / "sa.key", "-pubout", "-out", layout.PKI / "sa.pub"])


def write_kubeconfigs() -> None:
    """One kubeconfig per component, and the user's: admin.kubeconfig."""
    for name in KUBECONFIGS:
        write_kubeconfig(layout.CONF / f"{name}.kubeconfig", name, layout.PKI / name)


def write_kubeconfig(path: Path, user: str, stem: Path) -> None:
    """One kubeconfig. `stem`: of the user's certificate and key, without their suffixes."""
    text = Template((layout.HERE / "config" / "kubeconfig.yaml").read_text()).substitute(
        layout.substitutions(),
        USER=user,
        CA=_base64(layout.PKI / "ca.crt"),
        CERTIFICATE=_base64(Path(f"{stem}.crt")),
        KEY=_base64(Path(f"{stem}.key")),
    )
    path.touch(mode=0o600)
    path.write_text(text)


def ensure_certificate(stem: Path, subject: str, alternatives: str) -> None:
    """A key and its certificate, signed by the cluster's CA, unless they are there."""
    if Path(f"{stem}.crt").exists():
        return
    extensions = "keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n"
    if alternatives:
        extensions += f"subjectAltName={alternatives}\n"
    Path(f"{stem}.ext").write_text(extensions)
    _key(Path(f"{stem}.key"))
    output_of(["openssl", "req", "-new", "-key", f"{stem}.key", "-subj", subject, "-out", f"{stem}.csr"])
    output_of([
        "openssl", "x509", "-req", "-in", f"{stem}.csr", "-days", DAYS, "-extfile", f"{stem}.ext",
        "-CA", layout.PKI / "ca.crt", "-CAkey", layout.PKI / "ca.key", "-CAcreateserial", "-out", f"{stem}.crt",
    ])  # fmt: skip


def _key(path: Path) -> None:
    output_of(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
