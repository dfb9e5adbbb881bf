"""What the operator asks Prometheus, and what it makes of answers: over real sockets, of honest and hostile servers."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import urllib3

from vectorindex_operator.adapters import prometheus
from vectorindex_operator.adapters.admin_port import AdminPort
from vectorindex_operator.adapters.prometheus import Prometheus, Server
from vectorindex_operator.api.quantities import share
from vectorindex_operator.core.judging.comparison import Bound
from vectorindex_operator.core.judging.figures import FigureAnswer, FigureQuestion

FIRST = 1_700_000_000.0
THREE = FigureQuestion("orders", "products-b", "sum(orders)", FIRST, FIRST + 120, 60.0)


def matrix(*series: list[tuple[float, str]]) -> bytes:
    result = [{"metric": {}, "values": [[at, value] for at, value in one]} for one in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


GOOD = matrix([(FIRST, "1"), (FIRST + 60, "2.5"), (FIRST + 120, "3e2")])


class Fake:
    """A server that answers all with `body`; `seen`: what it was asked, with path and headers."""

    def __init__(self, body: bytes = GOOD, status: int = 200, before: Callable[[], None] = lambda: None) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fake.seen.append((self.path, dict(self.headers), parse_qs(form)))
                before()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def up(self) -> Iterator[Fake]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[AdminPort]:
    one = AdminPort()
    yield one
    one.close()


def ask(port: AdminPort, server: Server, *questions: FigureQuestion, namespace: str = "shop") -> Any:
    return Prometheus(server, port.start).ask(namespace, questions or (THREE,)).result(30)


def test_one_query_asks_for_all_windows(port: AdminPort) -> None:
    with Fake().up() as fake:
        assert ask(port, Server(fake.url)) == (FigureAnswer((1.0, 2.5, 300.0)),)
    ((path, _, form),) = fake.seen
    assert path == "/api/v1/query_range"
    assert form == {
        "query": ["sum(orders)"], "start": ["1700000000.000"], "end": ["1700000120.000"], "step": ["60.000"],
        "timeout": ["5s"],
    }  # fmt: skip


def test_who_asks_is_named_as_the_installation_says(port: AdminPort, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    with Fake().up() as fake:
        ask(port, Server(f"{fake.url}/base/?namespace={{namespace}}", "X-Scope-OrgID", str(tmp_path)))
        (tmp_path / "token").unlink()
        (tmp_path / "username").write_text("me")
        (tmp_path / "password").write_text("pass")
        ask(port, Server(f"{fake.url}/{{namespace}}", secret=str(tmp_path)))
        ask(port, Server(fake.url))
    (first, second, third) = fake.seen
    assert first[0] == "/base/api/v1/query_range?namespace=shop"
    assert (first[1]["X-Scope-OrgID"], first[1]["Authorization"]) == ("shop", "Bearer secret-token")
    assert second[0] == "/shop/api/v1/query_range"
    assert second[1]["Authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()
    assert "Authorization" not in third[1]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (matrix(), "no series"),
        (matrix([(FIRST, "1")], [(FIRST, "2")]), "2 series: one number is wanted"),
        (b"{}", "not understood"),
        (b"[" * 100_000, "not understood"),
        (b"<html>", "not understood"),
        (json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode(), "something else"),
        (json.dumps({"status": "success", "data": {"resultType": "matrix", "result": {}}}).encode(), "something else"),
        (matrix([(FIRST, "many")]), "not understood"),
        (matrix([(float("inf"), "1")]), "not understood"),
        (b'"' + b"x" * (prometheus.LARGEST_ANSWER + 1) + b'"', "larger than 256 KiB"),
    ],
)  # fmt: skip
def test_anything_but_one_series_is_no_number(port: AdminPort, body: bytes, says: str) -> None:
    with Fake(body).up() as fake:
        (answer,) = ask(port, Server(fake.url))
    assert answer.invalid
    assert says in answer.problem
    assert answer.values == ()


def test_a_time_without_a_number_is_told_apart(port: AdminPort) -> None:
    with Fake(matrix([(FIRST, "NaN"), (FIRST + 60, "2"), (FIRST + 6000, "9"), (FIRST + 120, "+Inf")])).up() as fake:
        assert ask(port, Server(fake.url)) == (FigureAnswer((None, 2.0, None)),)


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_of_which_no_bound_is_a_number_is_none(port: AdminPort, sign: str) -> None:
    """A status cannot hold infinity: nothing of that revision could be written any more."""
    with Fake(matrix([(FIRST, f"{sign}1e308"), (FIRST + 60, f"{sign}1e300"), (FIRST + 120, "1")])).up() as fake:
        ((none, highest, one),) = [answer.values for answer in ask(port, Server(fake.url))]
    assert (none, one) == (None, 1.0)
    assert highest is not None
    assert math.isfinite(Bound(1, None, share("999999.9999%")).limit(highest))


def test_a_refusal_is_told_in_the_servers_words_up_to_a_length(port: AdminPort) -> None:
    words = {"status": "error", "error": "parse error: unexpected end of input " + "x" * 1000}
    with Fake(json.dumps(words).encode(), 400).up() as fake:
        (answer,) = ask(port, Server(fake.url))
    assert "status 400: 'parse error" in answer.problem
    assert len(answer.problem) < 300
    with Fake(b"", 302).up() as fake:
        (answer,) = ask(port, Server(fake.url))
    assert "status 302" in answer.problem
    assert len(fake.seen) == 1, "it is not followed elsewhere"


def test_a_server_that_is_not_there_is_said_without_its_address(port: AdminPort) -> None:
    with Fake().up() as fake:
        gone = fake.url
    (answer,) = ask(port, Server(gone))
    assert "cannot be asked" in answer.problem
    assert "127.0.0.1" not in answer.problem
    assert not answer.invalid


def test_all_of_a_look_is_over_in_time_and_slow_queries_of_one_hold_up_nobody(
    port: AdminPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "DEADLINE_SECONDS", 1.0)
    stop = threading.Event()
    with Fake(before=lambda: stop.wait(20)).up() as slow:
        adapter = Prometheus(Server(slow.url), port.start)
        many = [FigureQuestion("r", f"rev-{number}", "q", FIRST, FIRST, 60.0) for number in range(200)]
        began = time.monotonic()
        hung = [adapter.ask(f"team-{number}", many) for number in range(5)]
        time.sleep(0.2)
        assert len(slow.seen) < prometheus.PARALLEL, "somebody else gets a turn"
        reached = len(slow.seen)
        adapter.ask("other", [THREE]).add_done_callback(lambda _: None)
        while len(slow.seen) == reached and time.monotonic() - began < 0.9:
            time.sleep(0.01)
        assert len(slow.seen) > reached
        answers = [answer for one in hung for answer in one.result(30)]
        took = time.monotonic() - began
        stop.set()
    assert {answer.problem for answer in answers} == {"no whole answer within 1 s"}
    assert took < 10


def test_what_cannot_change_is_asked_once(port: AdminPort) -> None:
    with Fake().up() as fake:
        adapter = Prometheus(Server(fake.url), port.start)
        for _ in range(3):
            adapter.ask("shop", [THREE]).result(30)
        assert len(fake.seen) == 1
        adapter.ask("other", [THREE]).result(30)
        assert len(fake.seen) == 2, "another namespace may not see the same"
    with Fake(matrix([(FIRST, "1"), (FIRST + 60, "2")])).up() as fake:
        adapter = Prometheus(Server(fake.url), port.start)
        for _ in range(2):
            assert adapter.ask("shop", [THREE]).result(30)[0].values == (1.0, 2.0, None)
        assert len(fake.seen) == 2, "the newest may be scraped yet"
    with Fake(b"", 503).up() as fake:
        adapter = Prometheus(Server(fake.url), port.start)
        for _ in range(2):
            adapter.ask("shop", [THREE]).result(30)
        assert len(fake.seen) == 2


def test_a_real_prometheus_answers_as_the_fake_one_does(port: AdminPort, tmp_path: Path) -> None:
    """With orders of two revisions in its store: a healthy one, and one that sells half."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("no prometheus and promtool on the PATH (Debian: apt install prometheus)")
    began = time.time() // 60 * 60 - 1200
    lines = ["# TYPE orders counter"]
    for revision, rate in (("products-a", 2), ("products-b", 1)):
        lines += [f'orders_total{{revision="{revision}"}} {rate * at} {began + at:.0f}' for at in range(0, 1200, 15)]
    (tmp_path / "orders.txt").write_text("\n".join([*lines, "# EOF\n"]))
    (tmp_path / "config.yml").write_text("global: {}\n")
    data = tmp_path / "data"
    make = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "orders.txt"), str(data)]
    subprocess.run(make, check=True, capture_output=True)
    with Fake().up() as free:
        address = free.url.removeprefix("http://")
    command = [
        "prometheus", f"--config.file={tmp_path / 'config.yml'}", f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}", "--storage.tsdb.retention.time=30d",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _until_ready(f"http://{address}/-/ready")
            questions = [
                FigureQuestion("orders", name, query.replace("{}", name), began + 300, began + 900, 60.0)
                for name in ("products-a", "products-b")
                for query in ('sum(rate(orders_total{revision="{}"}[60s]))',)
            ]
            stray = FigureQuestion("stray", "x", "rate(orders_total[60s])", began + 300, began + 900, 60.0)
            wrong = FigureQuestion("wrong", "x", "sum(rate(", began + 300, began + 900, 60.0)
            a, b, several, refused = ask(port, Server(f"http://{address}"), *questions, stray, wrong)
        finally:
            process.terminate()
    assert a.values == pytest.approx((2.0,) * 11)
    assert b.values == pytest.approx((1.0,) * 11)
    assert several.problem.startswith("2 series")
    assert "parse error" in refused.problem


def _until_ready(address: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if urllib3.request("GET", address, retries=False, timeout=2.0).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail("prometheus did not become ready")
