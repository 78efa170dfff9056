//go:build tools

// Package tools pins Pulumi's Python language host: the import keeps go.mod and go.sum complete for `go build`.
package tools

import _ "github.com/pulumi/pulumi/sdk/python/cmd/pulumi-language-python/v3"
