// Pulumi's Kubernetes provider as upstream serves it. The schema and the mapping lie in the provider's module
// (8 MB): the build lays them over this folder, so that they are not copied into the repository.
package main

import (
	"bytes"
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
)

const version = "4.25.0"

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var mapping []byte

func main() {
	// Upstream's release build writes the version into the schema; the module's copy has none.
	schema = bytes.Replace(schema, []byte("{"), []byte(`{"version": "`+version+`",`), 1)
	provider.Serve("kubernetes", version, schema, mapping)
}
