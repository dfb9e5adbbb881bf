"""What Argo CD is told of a VectorIndex, from the Lua files of the chart's folder argocd/ and the table of commands.

`PYTHONPATH=hack python -m argocd_files --write` writes one action per command of core/commands.py, which writes the
annotation that the operator reads, and the same scripts as a patch of Argo CD's ConfigMap and as values of its chart;
`--check` tells whether all these are what the code says.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from vectorindex_operator.api.v1alpha1 import GROUP
from vectorindex_operator.core.commands import COMMANDS, PREFIX, CommandKind
from vectorindex_searcher.generated import write_or_check

ARGOCD = Path(__file__).resolve().parents[1] / "charts" / "vectorindex-operator" / "argocd"
KIND = ARGOCD / GROUP / "VectorIndex"
_TITLE = "# Made by `make generate`: health and actions of a VectorIndex for Argo CD, as {form}. See docs/gitops.md.\n"
_PATCH = """apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
data:
"""
_VALUES = """configs:
  cm:
"""


def action(kind: CommandKind) -> str:
    """The script of one action. The nonce tells this request from the one before, and who it came through."""
    return f"""-- Made by `make generate`: asks for {kind.name} (docs/operations.md) as `kubectl vectorindex` does.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {{}}
end
obj.metadata.annotations["{PREFIX}{kind.name}"] = "argocd-" .. os.time()
return obj
"""


def customizations() -> str:
    """The keys of Argo CD's ConfigMap with their scripts, as YAML."""
    health = (KIND / "health.lua").read_text(encoding="utf-8")
    discovery = (KIND / "actions" / "discovery.lua").read_text(encoding="utf-8")
    parts = [f"discovery.lua: |\n{indent(discovery, '  ')}definitions:\n"]
    parts += [f"- name: {one.name}\n  action.lua: |\n{indent(action(one), '    ')}" for one in COMMANDS.values()]
    texts = {"health": health, "actions": "".join(parts)}
    keys = {f"resource.customizations.{what}.{GROUP}_VectorIndex": text for what, text in texts.items()}
    return "".join(f"{key}: |\n{indent(text, '  ')}" for key, text in keys.items())


def files() -> dict[Path, str]:
    """All that is made, by path."""
    made = {KIND / "actions" / one.name / "action.lua": action(one) for one in COMMANDS.values()}
    patch, values = indent(customizations(), "  "), indent(customizations(), "    ")
    made[ARGOCD / "argocd-cm.yaml"] = f"{_TITLE.format(form='a patch of its ConfigMap')}{_PATCH}{patch}"
    made[ARGOCD / "argo-cd-values.yaml"] = f"{_TITLE.format(form='values of its chart')}{_VALUES}{values}"
    return made


def main(arguments: list[str] | None = None) -> int:
    """Write the files (--write) or tell whether they are what they should be (--check)."""
    for path in files():
        path.parent.mkdir(exist_ok=True)
    return max(write_or_check("argocd_files", path, text, arguments) for path, text in files().items())


if __name__ == "__main__":
    raise SystemExit(main())
