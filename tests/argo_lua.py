"""Runs Lua as Argo CD does: Lua 5.1 with the libraries that it opens for scripts of its ConfigMap, and no other.

What it opens, and how it reads a script's answer: util/lua/lua.go of Argo CD 3.2, which
`make test-gitops` runs.
"""

from __future__ import annotations

from typing import Any

from lupa import lua51

Json = Any
_AS_ARGO_CD = """
local safe = {time = os.time, date = os.date}
string, math, io, debug, coroutine, os = nil, nil, nil, nil, nil, nil
package.loaded.os = nil
package.preload.os = function() return safe end
getmetatable("").__index = nil
"""
"""gopher-lua is opened with base, package and table; `require("os")` has time and date."""


def run(script: str, obj: Json) -> Json:
    """What a script answers about an object. An empty table is an empty list, as Argo CD reads it."""
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(_AS_ARGO_CD)
    lua.globals().obj = _to_lua(lua, obj)
    return _from_lua(lua.execute(script))


def _to_lua(lua: lua51.LuaRuntime, value: Json) -> Any:
    """Numbers are all the same kind, and null is no entry at all."""
    if isinstance(value, dict):
        return lua.table_from({name: _to_lua(lua, part) for name, part in value.items() if part is not None})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, part) for part in value])
    return value


def _from_lua(value: Any) -> Json:
    if lua51.lua_type(value) != "table":
        return value
    items = dict(value.items())
    if all(isinstance(key, int) for key in items):
        return [_from_lua(items[key]) for key in sorted(items)]
    return {str(key): _from_lua(part) for key, part in items.items()}


def cleaned(answer: Json, before: Json) -> Json:
    """What an action answered, with an empty object where there was one (Argo CD's cleanReturnedObj)."""
    if isinstance(answer, dict) and isinstance(before, dict):
        return {name: cleaned(part, before.get(name)) for name, part in answer.items()}
    if isinstance(answer, list) and isinstance(before, list):
        return [cleaned(part, old) for part, old in zip(answer, before, strict=True)]
    return {} if answer == [] and before == {} else answer
