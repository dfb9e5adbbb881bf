-- Health of a VectorIndex, from what the operator says of it. docs/gitops.md has the table.
-- Argo CD gives scripts a second, and no library but base and table.

local status = obj.status or {}

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local blocked = {}
for _, row in ipairs(status.blockedBy or {}) do
  blocked[row.rule] = row
end

local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end

local function message_of(kind)
  return (conditions[kind] or {}).message or ""
end

local function said(kind)
  return (conditions[kind].reason or "") .. ": " .. message_of(kind)
end

local function enforces()
  local rules = (obj.spec.guardrails or {}).rules
  for _, rule in ipairs(rules or {}) do
    if rule.mode ~= "Observe" then
      return true
    end
  end
  return rules == nil
end

local function health(code, message)
  return {status = code, message = message}
end

-- What the last pass said is about another spec.
if status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "the operator has not looked at generation " .. obj.metadata.generation .. " yet")
end

-- Users get no answer: that is said first, whatever else goes on.
local outage = ""
if is("Ready", "False") and conditions.Ready.reason ~= "NoRevision" then
  outage = message_of("Ready") .. "; "
end

if is("Stalled", "True") then
  return health("Degraded", outage .. said("Stalled"))
end

if blocked.Paused ~= nil then
  return health("Suspended", outage .. blocked.Paused.subject .. " is held " .. blocked.Paused.message)
end

-- Before Degraded: what is on its way may be the remedy, and a sync fails at what is Degraded.
if is("Reconciling", "True") then
  local also = ""
  if is("Degraded", "True") then
    also = "; " .. said("Degraded")
  end
  return health("Progressing", outage .. message_of("Reconciling") .. also)
end

if is("Degraded", "True") then
  return health("Degraded", outage .. said("Degraded"))
end

-- Users get bad answers, and there is nothing to go back to, or it is not loaded yet, or people want no rollback. A rule
-- that only observes is on trial: it is told below. Which rule fails is not told apart here, so one that is enforced
-- is enough.
local going_back = blocked.RollbackImpossible or blocked.RollbackTargetNotReady
local waits = ""
if going_back ~= nil then
  waits = "; " .. going_back.rule .. ": " .. going_back.message
end
if is("GuardrailsHealthy", "False") and enforces() then
  return health("Degraded", outage .. said("GuardrailsHealthy") .. waits)
end
if going_back ~= nil then
  return health("Progressing", outage .. message_of("RolledOut") .. waits)
end

-- NoEndpoints is there for a moment after each switch, until Kubernetes has written the endpoints.
if outage ~= "" then
  local code = "Progressing"
  if conditions.Ready.reason == "NoReadyPods" then
    code = "Degraded"
  end
  return health(code, said("Ready"))
end

if is("RolledOut", "True") then
  local message = message_of("RolledOut")
  if (status.recall or "") ~= "" then
    message = message .. ", recall " .. status.recall
  end
  message = message .. ", " .. (status.ready or "") .. " pods ready"
  if is("GuardrailsHealthy", "False") then
    message = message .. "; " .. said("GuardrailsHealthy")
  end
  if is("Suspended", "True") then
    message = message .. "; " .. message_of("Suspended")
  end
  return health("Healthy", message)
end

if is("Suspended", "True") then
  return health("Suspended", message_of("RolledOut"))
end

return health("Progressing", "the operator has not said yet how it stands")
