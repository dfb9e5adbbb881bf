//go:build tools

// Keeps Argo CD's own program in go.mod, which is built of this module: its replacements are needed for that.
package tools

import _ "github.com/argoproj/argo-cd/v3/cmd"
