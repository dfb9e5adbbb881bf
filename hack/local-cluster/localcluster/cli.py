"""The command line: verbs to functions, failures to one readable message."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import builds, gateway, image_build, kueue, layout, lifecycle, node, registry, second, workloads
from .locks import exclusive
from .terminal import ClusterError

TOOLS = ("kubectl", "helm")


def main(arguments: Sequence[str]) -> int:
    """Runs one verb; its exit status."""
    try:
        # Before argparse, which would take kubectl's own flags for ours.
        if arguments and arguments[0] in TOOLS:
            return _tool(arguments[0], list(arguments[1:]))
        if arguments and arguments[0] == "network":
            return _in_network(list(arguments[1:]))
        return _verb(_parser().parse_args(arguments))
    except ClusterError as failure:
        print(f"cluster: {failure}", file=sys.stderr)
    except KeyboardInterrupt:
        print("cluster: interrupted; run the same command again to go on", file=sys.stderr)
    return 1


def _verb(options: argparse.Namespace) -> int:
    match options.verb:
        case "up":
            lifecycle.up()
        case "down":
            lifecycle.down(options.purge)
        case "status":
            return 0 if lifecycle.status() else 1
        case "check":
            return 0 if lifecycle.check() else 1
        case "kubeconfig":
            print(layout.KUBECONFIG)
        case "env":
            print("\n".join(f"{name}={value}" for name, value in lifecycle.environment().items()))
        case "binary":
            builds.ensure(options.name)
            print(layout.binary(options.name))
        case "node":
            _require_running()
            with exclusive():
                {"add": second.add, "lose": second.lose, "remove": second.remove}[options.what]()
        case "compact":
            _require_running()
            print(node.compact())
        case "fake-gpu":
            _require_running()
            workloads.set_fake_gpu(options.state == "on")
        case "gateway":
            _require_running()
            with exclusive("image-build"):
                {"on": gateway.on, "off": gateway.off}[options.state]()
        case "kueue":
            _require_running()
            with exclusive("image-build"):
                {"on": kueue.on, "off": kueue.off}[options.state]()
        case "registry":
            _require_running()
            with exclusive("registry"):
                {"on": registry.on, "off": registry.off}[options.state]()
        case "push-image":
            with exclusive("image-build"):
                to = image_build.Destination(options.to, options.authfile, options.plain_http)
                files = (options.context.resolve(), options.file.resolve())
                print(image_build.push(options.target, to, *files, options.platform, options.base))
        case "build-image":
            _require_running()
            with exclusive("image-build"):
                image_build.build(options.target, options.tag, options.context.resolve(), options.file.resolve())
        case _:
            raise AssertionError(f"argparse let {options.verb} through")
    return 0


def _tool(name: str, arguments: list[str]) -> int:
    _require_running()
    return workloads.run_tool([str(layout.TOOLS / name)], arguments)


def _in_network(command: list[str]) -> int:
    """Becomes a program in the node's network: what it listens on, the host's other networks do not see."""
    if not command:
        raise ClusterError("say which program: cluster network PROGRAM ARGS...")
    enter = ["nsenter", "--target", str(node.require_init_pid()), "--net", "--"]
    os.execvp(enter[0], [*enter, *command])


def _require_running() -> None:
    if not node.running():
        raise ClusterError("the local cluster is not running: start it with `cluster up`")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description="A real Kubernetes on this machine, without Docker.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up", help="start it; builds what is missing (first time about 12 min)")
    down = verbs.add_parser("down", help="stop it; state is kept")
    down.add_argument("--purge", action="store_true", help="delete its state too; the builds stay")
    verbs.add_parser("status", help="how it is; exit status 0 when healthy")
    verbs.add_parser("check", help="what this machine lacks and what to do about it")
    verbs.add_parser("kubeconfig", help="print the path of its kubeconfig")
    verbs.add_parser("env", help="print KUBECONFIG=..., S3_ENDPOINT=... for a shell or `env`")
    # Run by _tool; here for --help.
    verbs.add_parser("kubectl", help="kubectl ARGS... on this cluster")
    verbs.add_parser("helm", help="helm ARGS... on this cluster")
    verbs.add_parser("network", help="PROGRAM ARGS... in the network of the node")
    binary = verbs.add_parser("binary", help="print the path of a built program, building it if need be")
    binary.add_argument("name", choices=[build.name for build in builds.BUILDS])
    another = verbs.add_parser("node", help="a second node: add it, lose it as in a power cut, remove it")
    another.add_argument("what", choices=["add", "lose", "remove"])
    verbs.add_parser("compact", help="make etcd forget what was before now; print its revision")
    gpu = verbs.add_parser("fake-gpu", help="make the node claim one nvidia.com/gpu, or none")
    gpu.add_argument("state", choices=["on", "off"])
    routes = verbs.add_parser("gateway", help="a gateway of the Gateway API (Contour with Envoy), or none")
    routes.add_argument("state", choices=["on", "off"])
    queues = verbs.add_parser("kueue", help="Kueue, which says when Jobs run, or none")
    queues.add_argument("state", choices=["on", "off"])
    store = verbs.add_parser("registry", help="a registry with a password on the node's loopback address, or none")
    store.add_argument("state", choices=["on", "off"])
    pushed = verbs.add_parser("push-image", help="build a target and send it to a registry; print its digest")
    pushed.add_argument("--target", required=True, help="the stage of the Dockerfile")
    pushed.add_argument("--to", required=True, help="docker://HOST/NAME:TAG or oci:FOLDER:TAG")
    pushed.add_argument("--authfile", type=Path, help="a Docker configuration with the registry's password")
    pushed.add_argument("--plain-http", action="store_true", help="the registry has no TLS")
    pushed.add_argument("--platform", action="append", default=[], help="linux/amd64; may be given several times")
    pushed.add_argument("--base", default="", help="a base image to pull, in the place of the one made here")
    pushed.add_argument("--context", type=Path, default=Path())
    pushed.add_argument("--file", type=Path, default=Path("Dockerfile"))
    image = verbs.add_parser("build-image", help="build a Dockerfile's target and import it")
    image.add_argument("--target", required=True, help="the stage of the Dockerfile")
    image.add_argument("--tag", required=True, help="the reference manifests use, e.g. localhost/NAME:TAG")
    image.add_argument("--context", type=Path, default=Path())
    image.add_argument("--file", type=Path, default=Path("Dockerfile"))
    return parser
