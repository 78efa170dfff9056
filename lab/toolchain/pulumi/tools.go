//go:build tools

// Package tools pins the Pulumi CLI: the import keeps go.mod and go.sum complete for `go build`.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
