"""`kubectl vectorindex init`: its screen, and that what it writes is what it was told and has no fault."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from vectorindex_plugin.exits import Exit
from vectorindex_plugin.lint.check import lint
from vectorindex_plugin.lint.manifests import parse
from vectorindex_plugin.verbs.begin import init

GOLDEN = Path(__file__).parent / "golden" / "init"
PLACES = ("--source", "s3://embeddings/products/", "--artifacts", "s3://indexes")
TOLD = ("--name", "mine", "--recall", "0.95", "--secret", "")


def say(*words: str, answers: str = "") -> Result:
    return CliRunner().invoke(init, words, input=answers)


def spec_of(text: str) -> Any:
    """Of the manifest, which has no fault."""
    facts = lint(parse("mine.yaml", text))
    assert (facts.checked, facts.faults) == (1, ())
    return yaml.safe_load(text)["spec"]


@pytest.mark.parametrize(
    ("store", "answers"),
    {
        "s3": ("docs", "s3://embeddings/docs/", "s3://indexes", "0.9", "s3"),
        "azure": ("", "az://acme/embeddings/docs/", "az://acme/indexes", "", ""),
        "gcs": ("", "gs://embeddings/docs/", "gs://indexes", "", "gcs"),
        "volume": ("", "volume://vectors/docs", "volume://indexes", ""),
        "corrected": ("", "embeddings", "az://acme", "s3://embeddings", "gs://indexes", "1", "0.97", ""),
    }.items(),
)
def test_the_screen(store: str, answers: tuple[str, ...]) -> None:
    done = say(answers="".join(f"{one}\n" for one in answers))
    assert done.exit_code == 0, done.output
    golden = GOLDEN / f"{store}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(done.output, encoding="utf-8")
    assert done.output == golden.read_text(encoding="utf-8")
    spec_of(done.output[done.output.index("# Check it:") :])


def test_an_option_answers_its_question() -> None:
    done = say(*PLACES, "--name", "mine", "--secret", "s3", "--endpoint", "https://s3.example:9000", "--recall", "0.99")
    assert done.output.startswith("# Check it:")
    spec = spec_of(done.output)
    reached = {"endpoint": "https://s3.example:9000", "secretRef": {"name": "s3"}}
    assert spec["source"]["s3"] == {"bucket": "embeddings", "prefix": "products/"} | reached
    assert spec["artifacts"]["s3"] == {"bucket": "indexes"} | reached
    assert (spec["index"]["objective"]["recall"], spec["gate"]["recall"]["min"]) == (1.0, 0.99)
    assert done.output.count("#") > 5


def test_what_takes_keys_is_told_apart_and_words_of_yaml_are_quoted() -> None:
    places = ("--source", "volume://vectors", "--artifacts", "az://acme/indexes/12, {: x}/")
    spec = spec_of(say(*TOLD[:4], *places, "--secret", "azure", "--endpoint", "http://azurite:10000/acme").output)
    assert spec["source"]["volume"] == {"claimName": "vectors"}
    named = {"account": "acme", "container": "indexes", "prefix": "12, {: x}/"}
    reached = {"endpoint": "http://azurite:10000/acme", "secretRef": {"name": "azure"}}
    assert spec["artifacts"]["azure"] == named | reached


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    words = (*PLACES, *TOLD, "-f", str(file))
    assert say(*words).exit_code == 0
    before = file.read_text()
    again = say(*words)
    assert again.exception is not None
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--source", "embeddings", "--artifacts", "s3://indexes"), "write one of s3://"),
        (("--source", "http://embeddings", "--artifacts", "s3://indexes"), "write one of s3://"),
        (("--source", "az://acme", "--artifacts", "s3://indexes"), "container"),
        (("--source", "volume://vectors/../x", "--artifacts", "s3://indexes"), "path"),
        (("--source", "s3://vectors", "--artifacts", "gs://indexes", "--endpoint", "http://one"), "one kind of store"),
        (("--source", "volume://a", "--artifacts", "volume://b", "--endpoint", "http://one"), "one kind of store"),
    ],
)
def test_what_is_no_place_is_refused(words: tuple[str, ...], says: str) -> None:
    done = say(*TOLD, *words)
    assert done.exit_code == int(Exit.USAGE)
    assert says in done.output
