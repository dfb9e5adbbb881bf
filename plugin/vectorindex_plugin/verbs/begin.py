"""`init`: a first manifest from five answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
import yaml
from pydantic import ValidationError

from vectorindex_operator.api.places import GCS, S3, Azure, Place, Volume
from vectorindex_plugin.exits import EndedError, Exit
from vectorindex_searcher.contract import AZURE_SCHEME, GCS_SCHEME, VOLUME_SCHEME

_KINDS: Mapping[str, tuple[type[Place], tuple[str, ...]]] = {
    "s3://": (S3, ("bucket",)),
    AZURE_SCHEME: (Azure, ("account", "container")),
    GCS_SCHEME: (GCS, ("bucket",)),
    VOLUME_SCHEME: (Volume, ("claimName",)),
}
"""How a place of each kind is typed: fields with a slash between them, then its prefix."""
_FORMS = "s3://BUCKET/PREFIX, az://ACCOUNT/CONTAINER/PREFIX, gs://BUCKET/PREFIX, volume://CLAIM/PATH"
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
    {source}
    poll: 5m                # changed files make a new revision; 0: only an edit does
  artifacts:
    # Built indexes, their proofs, and what a rollback loads.
    {artifacts}
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


class _Typed(click.ParamType[Place]):
    """A place as it is typed."""

    name = "place"

    def convert(self, value: str | Place, param: click.Parameter | None, ctx: click.Context | None) -> Place:  # noqa: ARG002
        return value if isinstance(value, Place) else _place(value)  # click converts what was asked for once more


def _place(text: str) -> Place:
    for scheme, (kind, names) in _KINDS.items():
        if text.startswith(scheme):
            told, rest = {}, text.removeprefix(scheme)
            for name in names:
                told[name], _, rest = rest.partition("/")
            try:
                return kind.model_validate({**told, kind.root_field: rest})
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise click.BadParameter(f"{first['loc'][0]}: {first['msg']}") from None
    raise click.BadParameter(f"write one of {_FORMS}")


@click.command()
@click.option("--name", prompt="Name of the index", default="products", show_default=True, help="name of the index")
@click.option(
    "--source",
    prompt=f"Where are the vectors ({_FORMS})",
    type=_Typed(),
    metavar="PLACE",
    help="of vectors",
)
@click.option(
    "--artifacts",
    prompt="Where are built indexes kept (likewise)",
    type=_Typed(),
    metavar="PLACE",
    help="of indexes",
)
@click.option(
    "--recall", prompt="Lowest recall@10 that may be served", type=click.FloatRange(0.5, 0.99), default=0.95,
    show_default=True, help="lowest recall@10 that may be served",
)  # fmt: skip
@click.option("--secret", metavar="NAME", help="Secret with the keys of both; empty: the pods' own identity")
@click.option("--endpoint", default="", metavar="URL", help="of a store that is not the cloud's own; not asked for")
@click.option("-f", "--file", type=click.Path(), default="", metavar="FILE", help="to be written; else it is printed")
def init(
    name: str, source: Place, artifacts: Place, recall: float, secret: str | None, endpoint: str, file: str
) -> None:
    """Ask five questions, and write a manifest with comments. An option answers its question."""
    reached = {one.kind for one in (source, artifacts) if one.access}
    if endpoint and len(reached) != 1:
        raise click.UsageError("--endpoint is of one kind of store: write the endpoints of these places into the file")
    if secret is None:
        words = "Secret with the keys of both (empty: the pods' own identity)"
        secret = str(click.prompt(words, "", show_default=False)) if reached else ""
    text = _TEMPLATE.format(
        name=name,
        file=file or f"{name}.yaml",
        source=_line(source, secret, endpoint),
        artifacts=_line(artifacts, secret, endpoint),
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


def _line(place: Place, secret: str, endpoint: str) -> str:
    """A place of the spec, in one line."""
    told = {name: value for name, value in place.wire().items() if value}
    parts = [f"{name}: {_scalar(str(value))}" for name, value in told.items()]
    if endpoint and place.access:
        parts.append(f"endpoint: {json.dumps(endpoint)}")
    if secret and place.access:  # a volume has neither
        parts.append(f"secretRef: {{name: {_scalar(secret)}}}")
    return f"{place.kind}: {{{', '.join(parts)}}}"


def _scalar(text: str) -> str:
    """In quotes only where YAML would read something else."""
    try:
        plain = yaml.safe_load(f"{{a: {text}}}") == {"a": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text)
