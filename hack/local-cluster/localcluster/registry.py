"""A registry, only where it is asked for: the CNCF's distribution, on the node's loopback address, with a password.

Its certificate is of the cluster's CA, which nobody knows: as with a registry of a house, the node's containerd and
who pushes are told of it. It ends with the node; what was pushed stays until `off`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from string import Template

from . import builds, layout, node, pki, processes
from .terminal import ClusterError, last_lines, say

ADDRESS = "127.0.0.1:5000"
DATA = layout.CACHE / "registry"
RECORD = layout.CACHE / "registry.json"
AUTH = layout.CACHE / "registry-auth.json"
"""What the password is told to buildah, Helm and a pull Secret by: a Docker configuration."""
CA = layout.CACHE / "registry-ca.crt"
"""Who vouches for it, for Go's programs (SSL_CERT_FILE): buildah, Helm, cosign."""
CERTIFICATE = layout.PKI / "registry"
HOSTS = layout.CONF / "registries"
"""What containerd reads at each pull: a folder for each registry."""
LOG = layout.NODE_LOGS / "registry.log"
FILES = layout.HERE / "registry"
PASSWORDS = FILES / "htpasswd"
READY_SECONDS = 15
WITHOUT_A_PASSWORD = "401"
"""How one answers that is well."""


def on() -> None:
    """Builds what the cache lacks, starts it and waits until it asks for a password."""
    builds.ensure("registry")
    DATA.mkdir(parents=True, exist_ok=True)
    AUTH.write_text(docker_configuration())
    _make_known()
    if processes.init_pid(RECORD) is None:
        written = DATA / "config.yaml"
        written.write_text(configuration())
        command = [str(layout.binary("registry")), "serve", str(written)]
        quiet = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        processes.begin_inside(node.require_init_pid(), command, RECORD, LOG, quiet)
    deadline = time.monotonic() + READY_SECONDS
    while not answers():
        if time.monotonic() > deadline:
            raise ClusterError(f"the registry does not answer. {LOG} says:\n{last_lines(LOG)}")
        time.sleep(0.1)
    say(f"pods pull from {ADDRESS}; its password, as a Docker configuration: {AUTH}")


def off() -> None:
    """Ends it and deletes what was pushed. Nodes keep what they pulled."""
    processes.end(RECORD)
    shutil.rmtree(DATA, ignore_errors=True)
    for known in (AUTH, CA):
        known.unlink(missing_ok=True)


def answers() -> bool:
    """Whether it asks for a password, as it does when it is well."""
    ask = ["curl", "-s", "--cacert", str(CA), "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "2"]
    done = subprocess.run([*network(), *ask, f"https://{ADDRESS}/v2/"], capture_output=True, text=True, check=False)
    return done.stdout == WITHOUT_A_PASSWORD


def network() -> list[str]:
    """What a command line begins with that is to reach the node's loopback address; all else is the host's."""
    return ["nsenter", "-t", str(node.require_init_pid()), "-n"]


def reached_by(destination: str) -> list[str]:
    """The same, of a command that speaks to `destination` (`docker://HOST/NAME:TAG`): empty where that is another."""
    return network() if _is_here(destination) else []


def trusted_by(destination: str) -> Mapping[str, str]:
    """What the environment of such a command has to say beside."""
    return {"SSL_CERT_FILE": str(CA)} if _is_here(destination) else {}


def _is_here(destination: str) -> bool:
    return destination.removeprefix("docker://").startswith(f"{ADDRESS}/")


def _make_known() -> None:
    """Its certificate, and its CA where pods' pulls and this machine's pushes look for it."""
    pki.ensure_certificate(CERTIFICATE, "/CN=registry", f"IP:{ADDRESS.partition(':')[0]}")
    shutil.copy2(layout.PKI / "ca.crt", CA)
    folder = HOSTS / ADDRESS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(hosts())


def hosts() -> str:
    """As containerd reads it. Named both as the server and as a host of it: else it speaks plain HTTP to loopback."""
    url = f"https://{ADDRESS}"
    return f'server = "{url}"\n[host."{url}"]\n  ca = "{layout.PKI / "ca.crt"}"\n'


def docker_configuration() -> str:
    """The password as ~/.docker/config.json has it."""
    known = credentials()
    both = f"{known['REGISTRY_USER']}:{known['REGISTRY_PASSWORD']}".encode()
    return json.dumps({"auths": {ADDRESS: {"auth": base64.b64encode(both).decode()}}})


def credentials() -> dict[str, str]:
    """REGISTRY_USER and REGISTRY_PASSWORD from credentials.env."""
    lines = (FILES / "credentials.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def configuration() -> str:
    """The file that it is started with."""
    values = {"REGISTRY_ADDRESS": ADDRESS, "REGISTRY_DATA": str(DATA), "REGISTRY_PASSWORDS": str(PASSWORDS)}
    values["REGISTRY_CERTIFICATE"] = str(CERTIFICATE)
    return Template((FILES / "config.yaml").read_text()).substitute(values)
