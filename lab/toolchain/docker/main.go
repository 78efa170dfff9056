// The lab's stand-in for pulumi-docker where the official plugin cannot be downloaded: the same upstream
// provider, bridged the same way. Field names follow the SDK of the pinned pulumi-docker release.
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/info"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/terraform-providers/terraform-provider-docker/shim"
)

const version = "5.2.0"

func resource(name string) *info.Resource {
	return &info.Resource{Tok: tfbridge.MakeResource("docker", "index", name)}
}

func main() {
	container := resource("Container")
	container.DeleteBeforeReplace = true
	container.Fields = map[string]*info.Schema{
		"command":           {Name: "command"},
		"networks_advanced": {Name: "networksAdvanced"},
	}
	image := resource("RemoteImage")
	image.Fields = map[string]*info.Schema{"build": {Elem: &info.Schema{Fields: map[string]*info.Schema{
		"path":      {Name: "context"},
		"build_arg": {Name: "buildArgs"},
	}}}}
	never := false
	tfbridge.Main("docker", version, info.Provider{
		P:       shimv2.NewProvider(shim.New(version)),
		Name:    "docker",
		Version: version,
		Config: map[string]*info.Schema{
			"host":          {Default: &info.Default{EnvVars: []string{"DOCKER_HOST"}}},
			"registry_auth": {Name: "registryAuth", MaxItemsOne: &never},
		},
		Resources: map[string]*info.Resource{
			"docker_container":      container,
			"docker_image":          image,
			"docker_network":        resource("Network"),
			"docker_volume":         resource("Volume"),
			"docker_registry_image": resource("RegistryImage"),
			"docker_tag":            resource("Tag"),
			"docker_secret":         resource("Secret"),
			"docker_config":         resource("ServiceConfig"),
			"docker_service":        resource("Service"),
			"docker_plugin":         resource("Plugin"),
		},
		IgnoreMappings: []string{
			"docker_image", "docker_logs", "docker_network", "docker_plugin", "docker_registry_image",
		},
	}, []byte(`{"name":"docker","version":"5.2.0"}`))
}
