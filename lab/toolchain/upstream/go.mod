// Programs of others that are built as they are, each with the versions its own go.mod and go.sum pin: these two files
// only say which release, and its digest. Not for `go mod tidy`, which would find nothing imported and remove all.
module tiers.dev/lab/upstream

go 1.26

require (
	github.com/aquasecurity/trivy v0.64.1
	github.com/argoproj/argo-rollouts v1.8.3
	github.com/cloudnative-pg/cloudnative-pg v1.27.0
	github.com/cloudnative-pg/plugin-barman-cloud v0.7.0
	github.com/coredns/coredns v1.12.4
	github.com/prometheus-operator/prometheus-operator v0.84.0
	github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring v0.84.0
	github.com/prometheus-operator/prometheus-operator/pkg/client v0.84.0
	github.com/rancher/local-path-provisioner v0.0.30
	github.com/rclone/rclone v1.71.0
	github.com/rhysd/actionlint v1.7.7
	github.com/traefik/traefik/v3 v3.5.0
	github.com/yannh/kubeconform v0.7.0
	github.com/zegl/kube-score v1.20.0
	github.com/zricethezav/gitleaks/v8 v8.28.0
	go.k6.io/k6 v1.3.0
	sigs.k8s.io/gateway-api v1.3.0
	sigs.k8s.io/metrics-server v0.7.2
)
