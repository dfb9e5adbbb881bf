"""`init`: a first manifest from five answers."""

from __future__ import annotations

import re
from pathlib import Path

import click

from vectorindex_plugin.exits import EndedError, Exit

_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]*[a-z0-9])/?(.*)")
_TEMPLATE = """\
# Check it:   kubectl vectorindex lint {file}
# Then:       kubectl apply -f {file} && kubectl vectorindex get {name} -w
apiVersion: vectorindex.dev/v1alpha1
kind: VectorIndex
metadata:
  name: {name}
spec:
  source:
    # Parquet with the columns id and vector, or another format: docs/sources.md
    s3: {source}
    poll: 5m                # changed files make a new revision; 0: only an edit does
  artifacts:
    # Built indexes, their proofs, and what a rollback loads.
    s3: {artifacts}
  index:
    factory: Auto           # measures several kinds of index on a sample; or for example HNSW32, or Flat (exact)
    objective:
      recall: {objective}          # what is built and tuned for
  gate:
    recall:
      min: {floor}             # the lower bound of recall@10, with 95 % confidence: below it nothing is served
  searcher:
    replicas: 2             # memory and disk are computed from what was built
  rollout:
    soak:
      duration: 15m         # a new revision has the traffic, and the one before stays loaded to go back to
  guardrails:
    rules:
      - {{name: errors, metric: ErrorRate, max: 2%}}
      # More of them, and how to choose bounds: docs/guardrails.md
"""


def _place(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _PLACE.fullmatch(value):
        raise click.BadParameter("write s3://BUCKET/PREFIX")
    return value


@click.command()
@click.option("--name", prompt="Name of the index", default="products", show_default=True, help="name of the index")
@click.option(
    "--source",
    prompt="Where are the vectors (s3://BUCKET/PREFIX/)",
    callback=_place,
    metavar="PLACE",
    help="of vectors",
)
@click.option(
    "--artifacts",
    prompt="Where are built indexes kept (s3://BUCKET)",
    callback=_place,
    metavar="PLACE",
    help="of indexes",
)
@click.option(
    "--secret", prompt="Secret with the keys of both (empty: the pods' own identity)", default="", show_default=False,
    metavar="NAME", help="Secret with the keys of both; empty: the pods' own identity",
)  # fmt: skip
@click.option(
    "--recall", prompt="Lowest recall@10 that may be served", type=click.FloatRange(0.5, 0.99), default=0.95,
    show_default=True, help="lowest recall@10 that may be served",
)  # fmt: skip
@click.option("--endpoint", default="", metavar="URL", help="of a store that is not AWS; not asked for")
@click.option("-f", "--file", type=click.Path(), default="", metavar="FILE", help="to be written; else it is printed")
def init(name: str, source: str, artifacts: str, secret: str, recall: float, endpoint: str, file: str) -> None:
    """Ask five questions, and write a manifest with comments. An option answers its question."""
    text = _TEMPLATE.format(
        name=name,
        file=file or f"{name}.yaml",
        source=_s3(source, secret, endpoint),
        artifacts=_s3(artifacts, secret, endpoint),
        objective=f"{min(1.0, recall + 0.01):.4g}",
        floor=f"{recall:.4g}",
    )
    if not file:
        click.echo(text, nl=False)
        return
    try:
        with Path(file).open("x", encoding="utf-8") as out:  # what is there is somebody's work
            out.write(text)
    except OSError as error:
        raise EndedError(Exit.REFUSED, f"{file} is not written: {error}") from error
    click.echo(f"wrote {file}")


def _s3(place: str, secret: str, endpoint: str) -> str:
    """A place of the spec, in one line."""
    found = _PLACE.fullmatch(place)
    assert found is not None
    parts = [f"bucket: {found[1]}"]
    if found[2]:
        parts.append(f"prefix: {found[2]}")
    if endpoint:
        parts.append(f'endpoint: "{endpoint}"')
    if secret:
        parts.append(f"secretRef: {{name: {secret}}}")
    return f"{{{', '.join(parts)}}}"
