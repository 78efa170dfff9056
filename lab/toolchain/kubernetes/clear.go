package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace/noop"
	api "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

const grace = 5 // seconds

// clearCommand removes all pods from a container runtime by the interface the kubelet uses: their processes,
// networks and mounts go with them. It is for when no kubelet runs that would start them again.
func clearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear ENDPOINT",
		Short: "Remove all pods from the container runtime at ENDPOINT",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			return clearPods(command.Context(), arguments[0])
		},
	}
}

func clearPods(ctx context.Context, endpoint string) error {
	service, err := cri.NewRemoteRuntimeService(endpoint, time.Minute, noop.NewTracerProvider(), nil)
	if err != nil {
		return err
	}
	containers, err := service.ListContainers(ctx, &api.ContainerFilter{
		State: &api.ContainerStateValue{State: api.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		return err
	}
	// What stores data may close it; what does not listen is killed.
	err = each(containers, func(container *api.Container) error {
		return service.StopContainer(ctx, container.Id, grace)
	})
	if err != nil {
		return err
	}
	sandboxes, err := service.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	return each(sandboxes, func(sandbox *api.PodSandbox) error {
		return errors.Join(service.StopPodSandbox(ctx, sandbox.Id), service.RemovePodSandbox(ctx, sandbox.Id))
	})
}

// each does something to all at once.
func each[T any](all []T, do func(T) error) error {
	results := make(chan error)
	for _, one := range all {
		go func() { results <- do(one) }()
	}
	var err error
	for range all {
		err = errors.Join(err, <-results)
	}
	return err
}
