-- Made by `make generate`: asks for rebuild (docs/operations.md) as `kubectl vectorindex` does.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["vectorindex.dev/rebuild"] = "argocd-" .. os.time()
return obj
