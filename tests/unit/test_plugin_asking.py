"""What people ask for through `kubectl vectorindex`, answered by the operator's own decision on recorded objects."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial

import pytest
from recorded import Json, Recorded

from vectorindex_operator.core.lifecycle import decide
from vectorindex_operator.core.state import Installation
from vectorindex_operator.reconcile.errors import UnreachableError
from vectorindex_operator.reconcile.observe import observe
from vectorindex_plugin.app import run
from vectorindex_plugin.asking import Asker
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_plugin.verbs.common import Session

SETTINGS = Installation(searcher_image="searcher:1")
Say = Callable[..., tuple[int, Json]]


def operated(moment: str) -> Recorded:
    """A recorded cluster with an operator that looks at what is asked at once."""
    cluster = Recorded.at(moment)
    cluster.on_merge = partial(answer, cluster)
    return cluster


def answer(cluster: Recorded, index: Json) -> None:
    obs = observe(cluster, "search", "products", cluster.now)  # type: ignore[arg-type]
    assert obs is not None
    index["status"] = decide(obs, SETTINGS, cluster.now).status.wire()


@pytest.fixture
def say() -> Say:
    """Run a command line; answers exit status and what it said as JSON."""

    def run_at(cluster: Recorded, *words: str) -> tuple[int, Json]:
        session = Session(cluster, "search", "json", lambda: cluster.now)
        with redirect_stdout(io.StringIO()) as out:
            status = run([*words, "-o", "json"], session)
        return status, json.loads(out.getvalue() or "{}")

    return run_at


@pytest.mark.parametrize(
    ("moment", "words", "says"),
    [
        ("promoted", ("rollback", "products"), "rolling back from"),
        ("soaking", ("abort", "products"), ""),
        ("soaking", ("pause", "products"), "holds products-878f3921"),
        ("paused", ("resume", "products"), "goes on"),
        ("rejected", ("retry", "products"), "trying products-878f3921 again"),
        ("suspended", ("unsuspend", "products"), ""),
        ("at_rest", ("suspend", "products"), ""),
        ("at_rest", ("pin", "products", "products-bf9ab92f"), ""),
    ],
)
def test_what_is_done(say: Say, moment: str, words: tuple[str, ...], says: str) -> None:
    status, told = say(operated(moment), *words)
    assert (status, told["result"]) == (Exit.DONE, "Done"), told
    assert says in told["message"]


@pytest.mark.parametrize(
    ("moment", "words", "says"),
    [
        ("at_rest", ("rollback", "products"), "no earlier proven revision"),
        ("at_rest", ("rollback", "products", "products-00000000"), "is not one to go back to"),
        ("at_rest", ("promote", "products"), ""),
        ("at_rest", ("abort", "products"), ""),
        ("at_rest", ("resume", "products"), "nothing is held"),
        ("at_rest", ("retry", "products"), "nothing has failed"),
        ("suspended", ("rebuild", "products"), "spec.suspend is true"),
        ("suspended", ("refresh", "products"), "spec.suspend is true"),
        ("at_rest", ("pin", "products", "products-00000000"), "products-00000000"),
    ],
)
def test_what_is_refused_says_why(say: Say, moment: str, words: tuple[str, ...], says: str) -> None:
    status, told = say(operated(moment), *words)
    assert (status, told["result"]) == (Exit.REFUSED, "Refused"), told
    assert says in told["message"]


def test_the_annotation_is_what_the_documentation_says(say: Say) -> None:
    cluster = operated("at_rest")
    _, told = say(cluster, "rollback", "products", "products-00000000")
    (written,) = cluster.written
    assert written["metadata"]["annotations"] == {"vectorindex.dev/rollback": f"products-00000000@{told['nonce']}"}
    say(cluster, "retry", "products")
    assert "@" not in cluster.written[1]["metadata"]["annotations"]["vectorindex.dev/retry"]
    say(cluster, "unpin", "products")
    assert cluster.written[2]["spec"] == {"pinRevision": None}


def test_two_requests_have_two_nonces(say: Say) -> None:
    cluster = operated("at_rest")
    assert say(cluster, "retry", "products")[1]["nonce"] != say(cluster, "retry", "products")[1]["nonce"]


def test_an_older_answer_is_no_answer() -> None:
    """The operator stands still: what status.verbs says of another nonce is not ours."""
    cluster = operated("at_rest")
    Asker(cluster, "search", "products", 1.0).command("retry")
    cluster.on_merge = lambda index: None
    clock = iter(range(100))
    asker = Asker(cluster, "search", "products", 5.0, clock=lambda: next(clock), sleep=lambda seconds: None)
    with pytest.raises(EndedError, match="not answered within 5 s") as ended:
        asker.command("retry")
    assert ended.value.exit == Exit.NO_ANSWER


def test_nobody_waits_who_does_not_want_to(say: Say) -> None:
    cluster = Recorded.at("at_rest")
    status, told = say(cluster, "rollback", "products", "--no-wait")
    assert (status, told["result"], len(cluster.written)) == (Exit.DONE, "Sent", 1)


def test_an_index_that_is_not_there(say: Say) -> None:
    assert say(operated("at_rest"), "retry", "nobody")[0] == Exit.NOT_FOUND


def test_a_cluster_that_is_not_there(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Recorded.at("at_rest")

    def fail(index: Json) -> None:
        raise UnreachableError("connection refused")

    cluster.on_merge = fail
    assert say(cluster, "retry", "products")[0] == Exit.UNREACHABLE
    assert "connection refused" in capsys.readouterr().err


def test_a_field_is_answered_once_it_was_seen() -> None:
    cluster = Recorded.at("at_rest")
    looks = iter(range(3))

    def sleep(seconds: float) -> None:
        if next(looks) == 1:
            answer(cluster, cluster.objects[0])

    said = Asker(cluster, "search", "products", 5.0, clock=lambda: 0.0, sleep=sleep).set_field(
        "suspend", "suspend", True
    )
    assert said.result == "Done"
    assert next(looks) == 2, "it was answered before the operator had looked"
