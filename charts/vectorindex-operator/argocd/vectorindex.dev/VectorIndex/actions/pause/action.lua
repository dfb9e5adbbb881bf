-- Made by `make generate`: asks for pause (docs/operations.md) as `kubectl vectorindex` does.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["vectorindex.dev/pause"] = "argocd-" .. os.time()
return obj
