-- Which actions would be obeyed now, from what the operator says of the index. In doubt one is offered: the operator
-- refuses what does not apply, with the reason in an Event and in status.verbs.

local spec = obj.spec or {}
local status = obj.status or {}

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end

local blocked = {}
for _, row in ipairs(status.blockedBy or {}) do
  blocked[row.rule] = true
end

-- When a request of this name was last obeyed; "": never, or it was refused.
local function obeyed(name)
  for _, answer in ipairs(status.verbs or {}) do
    if answer.verb == name and answer.result == "Done" then
      return answer.at
    end
  end
  return ""
end

local phase = status.phase or ""
local candidate = (status.candidate or "") ~= ""
local under_way = candidate or (status.next or "") ~= ""
local built_again = phase == "Retrying" or (phase == "BuildFailed" and not is("Stalled", "True"))
local serves = conditions.Ready ~= nil and conditions.Ready.reason ~= "NoRevision"
local pinned = (spec.pinRevision or "") ~= ""
local suspended = spec.suspend == true and not pinned

local beside = candidate and (phase == "Shadowing" or phase == "Shifting")
local way_back = conditions.RollbackPossible ~= nil and conditions.RollbackPossible.reason ~= "NoPrior"
local too_early = phase == "Surging" or phase == "Shadowing"
local failed = is("Stalled", "True") or is("Degraded", "True") or is("DatasetResolved", "False")
  or built_again
  or blocked.RollbackImpossible or blocked.RollbackTargetNotReady
local held = blocked.Paused or (obeyed("pause") ~= "" and obeyed("pause") >= obeyed("resume"))
local makes_new = serves and not suspended and not pinned

local applies = {
  rollback = way_back or beside,
  abort = under_way or built_again,
  promote = candidate and not too_early,
  pause = (under_way or built_again) and not blocked.Paused,
  resume = (under_way or built_again) and held,
  retry = failed and not suspended,
  refresh = makes_new and (is("RolledOut", "True") or phase == "Soaking"),
  rebuild = is("Built", "True") and not under_way and not suspended and not pinned,
}
local icons = {
  rollback = "undo",
  abort = "stop",
  promote = "forward",
  pause = "pause",
  resume = "play",
  retry = "redo",
  refresh = "sync",
  rebuild = "hammer",
}

local actions = {}
for name, icon in pairs(icons) do
  actions[name] = {disabled = not applies[name], iconClass = "fa fa-fw fa-" .. icon}
end
return actions
