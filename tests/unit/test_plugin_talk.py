"""`kubectl vectorindex query` through a port that a stand-in for kubectl forwards."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from http_stub import Exchange, answering
from layers import CHECKOUT
from recorded import Recorded

from vectorindex_plugin.app import run
from vectorindex_plugin.cluster import connect
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.verbs.common import Session

Json = dict[str, Any]
Say = Callable[..., tuple[int, str]]


def searcher(asked: list[dict[str, str]]) -> Callable[[Exchange], None]:
    """Answers as a searcher of 3 dimensions."""

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/v1/index":
            return exchange.answer(200, {"dimension": 3, "metadataColumns": ["title"], "revision": "products-1"})
        exchange.rfile.read(int(exchange.headers["Content-Length"]))  # the vector, in binary
        asked.append(dict(parse_qsl(urlsplit(exchange.path).query)))
        if "bad" in asked[-1].get("filter", ""):
            return exchange.answer(400, {"type": "urn:vectorindex:problem:BadFilter", "detail": "no column bad"})
        hit = {"ids": [7], "scores": [0.5], "metadata": [{"title": "lamp"}]}
        document = {"revision": "products-1", "k": 1, "tookMs": 0.25, "results": [hit]}
        return exchange.answer(200, document, VectorIndex_Revision="products-1")

    return answer


def kubectl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name, first on the PATH."""
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def say() -> Say:
    def run_at(*words: str) -> tuple[int, str]:
        cluster = Recorded.at("at_rest")
        session = Session(cluster, "search", "screen", lambda: cluster.now)
        with redirect_stdout(io.StringIO()) as out:
            status = run(list(words), session)
        return status, out.getvalue()

    return run_at


def test_a_query_goes_through_a_forwarded_port(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []
    with answering(searcher(asked)) as url:
        port = url.rpartition(":")[2]
        script = f'echo "$@" > {tmp_path}/said; echo "Forwarding from 127.0.0.1:{port} -> 8080"; exec sleep 60'
        kubectl(tmp_path, script, monkeypatch)
        status, text = say("query", "products", "[1, 0, 0]", "-k", "3", "--filter", '{"title": "lamp"}')
        assert (status, asked[0]["k"], json.loads(asked[0]["filter"])) == (Exit.DONE, "3", {"title": "lamp"})
        assert "lamp" in text
        assert "1 answers of products-1 in 0.25 ms" in text
        assert "port-forward --address=127.0.0.1 service/products :http" in (tmp_path / "said").read_text()
        assert "random numbers" in say("query", "products")[1]
        status, text = say("query", "products", "-o", "json")
        assert json.loads(text)["hits"] == [{"id": 7, "score": 0.5, "metadata": {"title": "lamp"}}]
        assert say("query", "products", "[1, 0, 0]", "--filter", '{"bad": 1}')[0] == Exit.REFUSED


def test_no_way_to_it(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    kubectl(tmp_path, 'echo "error: pods are forbidden" >&2; exit 1', monkeypatch)
    assert say("query", "products")[0] == Exit.UNREACHABLE
    assert "pods are forbidden" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert say("query", "products")[0] == Exit.UNREACHABLE
    assert say("query", "nobody")[0] == Exit.NOT_FOUND


@pytest.mark.parametrize("words", [("[1,",), ('"text"',), ("[1]", "--filter", "{"), ("[1]", "--filter", "[]")])
def test_what_is_no_query(say: Say, words: tuple[str, ...]) -> None:
    assert say("query", "products", *words)[0] == Exit.USAGE


# ---------------------------------------------------------------- report


def test_the_page_comes_from_a_pod(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl(tmp_path, f'echo "$@" > {tmp_path}/said; echo said >&2; echo "<!doctype html>"', monkeypatch)
    page, opened = tmp_path / "page.html", list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert say("report", "products", "--html", str(page), "--open")[0] == Exit.DONE
    assert page.read_text() == "<!doctype html>\n"
    assert opened == [page.as_uri()]
    said = (tmp_path / "said").read_text()
    assert said.startswith("exec products-bf9ab92f-4 -c searcher -- sh -c ")
    assert "/report.json" in said


def test_no_page(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl(tmp_path, 'echo "pods/exec is forbidden" >&2; exit 1', monkeypatch)
    assert say("report", "products", "--open")[0] == Exit.UNREACHABLE
    assert "pods/exec is forbidden" in capsys.readouterr().err


# ---------------------------------------------------------------- what it needs

OTHERS = ("aiohttp", "boto3", "faiss", "h5py", "kopf", "numpy", "orjson", "prometheus_client", "pyarrow", "uvloop")
"""Of other extras."""
ALONE = f"""
import sys
for name in {OTHERS}:
    sys.modules[name] = None
from vectorindex_plugin.app import run
from vectorindex_plugin.cluster import connect
sys.exit(run(["lint", "--no-try", sys.argv[1]]) or run(["list", "--kubeconfig", sys.argv[2]]))
"""


def test_it_needs_its_own_extra_only(tmp_path: Path) -> None:
    example, config = next((CHECKOUT / "examples").rglob("*.yaml")), tmp_path / "none"
    command = [sys.executable, "-c", ALONE, str(example), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "kubeconfig cannot be used" in done.stderr) == (Exit.UNREACHABLE, True), done.stderr


# ---------------------------------------------------------------- the kubeconfig


def test_the_kubeconfig_says_which_cluster_and_namespace(tmp_path: Path) -> None:
    file = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    contexts = [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        {"name": "two", "context": {"cluster": "c", "user": "u"}},
    ]
    user = {"name": "u", "user": {"token": "t"}}
    config = {"clusters": [cluster], "contexts": contexts, "users": [user], "current-context": "one"}
    file.write_text(json.dumps(config))
    assert connect(str(file), None)[1] == "shop"
    assert connect(str(file), "two")[1] == "default"
    with pytest.raises(EndedError) as ended:
        connect(str(file), "three")
    assert ended.value.exit == Exit.UNREACHABLE
    with pytest.raises(EndedError):
        connect(str(tmp_path / "none"), None)
    assert run(["list", "--kubeconfig", str(file)]) == Exit.UNREACHABLE
