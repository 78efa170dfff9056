// Package shim re-exports the upstream provider, whose constructor is internal to its module path, and adds
// the one field the program uses that this upstream version lacks: a container's `cpus`.
package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/docker/client"
	"github.com/hashicorp/terraform-plugin-sdk/v2/diag"
	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

type cpusKey struct{}

// New returns the provider that pulumi-docker bridges too.
func New(version string) *schema.Provider {
	p := provider.New(version)()
	container := p.ResourcesMap["docker_container"]
	container.Schema["cpus"] = &schema.Schema{Type: schema.TypeString, Optional: true, ForceNew: true}
	create := container.CreateContext
	container.CreateContext = func(ctx context.Context, d *schema.ResourceData, meta any) diag.Diagnostics {
		return create(context.WithValue(ctx, cpusKey{}, d.Get("cpus").(string)), d, meta)
	}
	configure := p.ConfigureContextFunc
	p.ConfigureContextFunc = func(ctx context.Context, d *schema.ResourceData) (any, diag.Diagnostics) {
		meta, diags := configure(ctx, d)
		if config, ok := meta.(*provider.ProviderConfig); ok && !diags.HasError() {
			limited := config.DockerClient.HTTPClient()
			limited.Transport = limiter{limited.Transport}
			if err := client.WithHTTPClient(limited)(config.DockerClient); err != nil {
				return nil, diag.FromErr(err)
			}
		}
		return meta, diags
	}
	return p
}

// limiter adds NanoCpus to the engine API's container creation, before the container starts: an update
// afterwards would let it boot without its limit.
type limiter struct{ http.RoundTripper }

func (l limiter) RoundTrip(r *http.Request) (*http.Response, error) {
	cpus, _ := r.Context().Value(cpusKey{}).(string)
	if cpus == "" || !strings.HasSuffix(r.URL.Path, "/containers/create") {
		return l.RoundTripper.RoundTrip(r)
	}
	nano, err := opts.ParseCPUs(cpus)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	host, _ := body["HostConfig"].(map[string]any)
	if host == nil {
		host = map[string]any{}
		body["HostConfig"] = host
	}
	host["NanoCpus"] = nano
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return l.RoundTripper.RoundTrip(r)
}
