"""The pages: every link and anchor leads somewhere, every manifest is one, every command line is understood."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from chart import CHART
from layers import CHECKOUT

import docs_site
from vectorindex_operator.api.v1alpha1 import GROUP, VectorIndexSpec
from vectorindex_plugin.app import app
from vectorindex_plugin.facts import decisions
from vectorindex_plugin.lint import check
from vectorindex_plugin.lint.manifests import Manifest
from vectorindex_searcher.cli import flags
from vectorindex_searcher.cli.main import main

FILES = docs_site.site_files(CHECKOUT)
PAGES = {
    name: (CHECKOUT / name).read_text(encoding="utf-8")
    for name in FILES
    if (CHECKOUT / name).suffix == ".md" and (CHECKOUT / name).is_file()
}
HELD = {name: text for name, text in PAGES.items() if not name.startswith(("CHANGELOG", "bench/results/", "docs/adr/"))}
"""Pages that must hold today; the others tell what was."""


def of(pages: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(pages))


# ---------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """Of a page's headings, as forges and the site make them. One that stands twice leads to the first."""
    found = set()
    for is_text, line in docs_site.prose(text):
        if is_text and (heading := re.match(r"#{1,6} (.+)", line)):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


ANCHORS = {name: anchors(text) for name, text in PAGES.items()}


@of(PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    """Files are looked for when the site's are gathered, which would have raised."""
    page = CHECKOUT / name
    for link in docs_site.links(PAGES[name]):
        anchor = link.partition("#")[2]
        linked = page if link.startswith("#") else docs_site.target(page, link)
        if anchor and linked is not None:
            assert anchor in ANCHORS[linked.relative_to(CHECKOUT).as_posix()], link


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    for first in docs_site.FIRST[:-1]:
        (tmp_path / first).parent.mkdir(exist_ok=True)
        (tmp_path / first).write_text("# a page\n")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text("`[no](link)`\n\n```\n[nor](this)\n```\n[here](../README.md#a-page)\n")
    assert list(docs_site.links(page.read_text())) == ["../README.md#a-page"]
    docs_site.site_files(tmp_path)
    page.write_text("[gone](gone.md)\n")
    with pytest.raises(FileNotFoundError, match=r"docs/page\.md: gone\.md"):
        docs_site.site_files(tmp_path)


def test_folders_are_linked_by_a_page_and_lists_begin_a_block() -> None:
    page = CHECKOUT / "README.md"
    assert docs_site.readable("[all](docs/adr)\n", page) == "[all](docs/adr/README.md)\n"
    assert docs_site.readable("Words:\n- one\n- two\n", page) == "Words:\n\n- one\n- two\n"
    assert docs_site.readable("- one\n- two\n\n| a |\n|---|\n", page) == "- one\n- two\n\n| a |\n|---|\n"
    assert "[3. " in (FILES["docs/adr/README.md"] or "")


class _AnyTag(yaml.SafeLoader):
    """mkdocs.yml names a function of Python."""


_AnyTag.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def test_the_site_leads_to_every_page() -> None:
    site = yaml.load((CHECKOUT / "mkdocs.yml").read_text(), _AnyTag)
    listed = set(re.findall(r"[\w./-]+\.md", json.dumps(site["nav"])))
    assert listed <= FILES.keys()
    ours = {name for name in FILES if name.startswith("docs/") and name.endswith(".md") and "/adr/" not in name}
    assert ours - {"docs/reference/README.md"} <= listed


def test_every_alert_is_among_the_runbooks() -> None:
    groups = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        row = f"| [{rule['alert']}](operations.md#{rule['alert'].lower()}) | {rule['labels']['severity']} |"
        assert row in PAGES["docs/runbooks.md"]


@pytest.mark.parametrize("reason", decisions._SECTIONS)
def test_what_to_do_about_a_guardrail_is_where_the_plugin_says(reason: str) -> None:
    """And nowhere else: a heading that stands twice leads to the first, which explains and does not help."""
    page, _, anchor = decisions.runbook(reason).partition("#")
    before, _, runbook = PAGES[page].partition("## Runbook\n")
    assert anchor in anchors(runbook)
    assert anchor not in anchors(before)
    assert f"(guardrails.md#{anchor})" in PAGES["docs/runbooks.md"]


def test_sizes_are_those_of_the_formulas() -> None:
    computed = PAGES["docs/reference/pod-sizes.md"].partition("## 128 dimensions")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d,]+) x 128 \| (.+) \|$", PAGES["docs/how-large.md"], re.MULTILINE)
    assert len(rows) == 3
    for count, cells in rows:
        factory, file, searcher, build = cells.split(" | ")
        (line,) = [one for one in computed.splitlines() if one.startswith(f"| {count} | {factory} |")]
        wanted = line.strip("| ").split(" | ")
        assert [file, searcher, build] == [wanted[2], wanted[3], wanted[6]]


# ---------------------------------------------------------------- manifests


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks in one of these languages."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1] in languages:
            yield found[2]


SMALLEST = {
    "source": {"s3": {"bucket": "embeddings"}},
    "artifacts": {"s3": {"bucket": "indexes"}},
    "segments": [{"name": "keyword"}, {"name": "question"}],
}
"""What a fragment is merged into."""
FIELDS = {field.alias or name for name, field in VectorIndexSpec.model_fields.items()}
VALUES = json.loads((CHART / "values.schema.json").read_text())


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = base.keys() & over.keys()
    return base | over | {key: merged(base[key], over[key]) for key in both if isinstance(base[key], dict)}


def manifest_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The VectorIndex that a document is, or is a fragment of."""
    if str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
        return document
    spec = document["spec"] if document.keys() == {"spec"} else document
    if "kind" in document or not spec.keys() <= FIELDS:
        return None
    spec = merged(SMALLEST, spec)
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "products"}, "spec": spec}


@of({name: text for name, text in HELD.items() if "```yaml" in text})
def test_every_manifest_is_one(name: str) -> None:
    """Whole ones and fragments; what is neither is a values file of the chart, or of a kind that is not ours."""
    for block in blocks(HELD[name], "yaml"):
        for document in yaml.safe_load_all(block):
            manifest = manifest_of(document)
            if manifest is not None:
                faults = check.lint([Manifest(name, manifest)], tries=False).faults
                assert not faults, (block, faults)
            elif "kind" not in document:
                jsonschema.validate(merged({"image": {"repository": "REGISTRY/operator"}}, document), VALUES)


# ---------------------------------------------------------------- command lines


def commands(text: str, program: str, *, inline: bool) -> Iterator[list[str]]:
    """The words after `program` wherever a block, or code within text (`inline`), has a command line of it."""
    lines = [line for block in blocks(text, "", "sh", "bash") for line in block.replace("\\\n", " ").splitlines()]
    plain = "".join(line for is_text, line in docs_site.prose(text) if is_text)
    lines += [line[4:] for line in plain.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`([^`\n]+)`", plain) if inline else []
    for line in lines:
        if program not in line or re.match(r"\s*#", line):
            continue
        with contextlib.suppress(ValueError):  # no command line: a quote that is not closed
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;()")
            lexer.whitespace_split, lexer.commenters = True, "#"
            yield from _parts(list(lexer), program.split())


def _parts(words: list[str], program: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("|&;()"):
            if part[: len(program)] == program:
                yield part[len(program) :]
            part = []
        else:
            part.append(word)


@of({name: text for name, text in HELD.items() if "kubectl vectorindex" in text})
def test_the_plugin_understands_its_command_lines(name: str) -> None:
    for words in commands(HELD[name], "kubectl vectorindex", inline=True):
        given = [re.sub(r"^\[(--?\w+)\]$", r"\1", word) for word in words]
        if given:
            context = app.make_context("kubectl vectorindex", list(given))
            verb, command, rest = app.resolve_command(context, given)
            assert command is not None
            asks = any(isinstance(one, click.Option) and one.prompt for one in command.params)
            if rest:  # text may name a verb alone
                command.make_context(verb, rest, parent=context, resilient_parsing=asks)


@of({name: text for name, text in HELD.items() if "vectorindex-searcher " in text})
def test_the_searcher_understands_its_command_lines(name: str) -> None:
    for words in commands(HELD[name], "vectorindex-searcher", inline=False):
        try:
            flags.parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{name}: vectorindex-searcher {shlex.join(words)}")


TARGETS = set(re.findall(r"^([a-z0-9-]+)(?= ?[a-z0-9 -]*:)", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


@of({name: text for name, text in HELD.items() if "make " in text})
def test_every_target_of_make_exists(name: str) -> None:
    for words in commands(HELD[name], "make", inline=True):
        targets = [word for word in words if "=" not in word and not word.startswith("-")]
        assert set(targets) <= TARGETS, words


def test_what_is_wrong_is_found() -> None:
    text = "`kubectl vectorindex list` and\n\n```sh\nmake nothing && make demo   # words\n```\n"
    assert list(commands(text, "make", inline=True)) == [["nothing"], ["demo"]]
    assert list(commands(text, "kubectl vectorindex", inline=True)) == [["list"]]
    assert list(commands(text, "kubectl vectorindex", inline=False)) == []
    assert "demo" in TARGETS
    assert "nothing" not in TARGETS


# ---------------------------------------------------------------- five minutes


def test_the_five_minutes_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a laptop: the rows of the page, built, proven and looked at by its own commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vectorindex_searcher.cli.main.configure_logging", lambda verbose: None)
    page = PAGES["docs/start.md"].partition("## On a laptop")[2].partition("## In a cluster")[0]
    rows = page.partition("<<'END'\n")[2].partition("\nEND")[0]
    (tmp_path / "vectors").mkdir()
    with (tmp_path / "vectors" / "rows.jsonl").open("w") as file, contextlib.redirect_stdout(file):
        exec(rows, {})
    ran = [words for words in commands(page, "vectorindex-searcher", inline=False) if words[0] != "serve"]
    assert [words[0] for words in ran] == ["resolve", "build", "validate", "inspect"]
    for words in ran:
        assert main(words) == 0, (words, capsys.readouterr())
    assert (tmp_path / "report.html").stat().st_size > 1000
    (asked,) = re.findall(r"-d '(\{.*\})'", page, re.DOTALL)
    (manifest,) = tmp_path.rglob("manifest.json")
    built = json.loads(manifest.read_text())
    assert len(json.loads(asked)["vector"]) == built["dimension"]
    assert set(json.loads(asked)["filter"]) <= set(built["metadataColumns"])
