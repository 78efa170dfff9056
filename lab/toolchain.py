"""Steps that build missing programs (Pulumi, programs of a cluster, tools) from their Go modules."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .steps import CACHE, LabError, Step, command_output, digest, sh

HERE = Path(__file__).parent / "toolchain"
BIN = CACHE / "bin"
PULUMI_HOME = CACHE / "pulumi"
PLUGINS = {"docker": "5.2.0", "kubernetes": "4.25.0"}
PULUMI = "github.com/pulumi/pulumi/pkg/v3"
VERSION = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
KUBERNETES = "k8s.io/kubernetes"
KUBERNETES_VERSION = "k8s.io/component-base/version"
TRAEFIK = "github.com/traefik/traefik/v3"
LEGO = "github.com/go-acme/lego/v4"
COREDNS = "github.com/coredns/coredns"
COREDNS_PLUGINS = ("cache", "errors", "forward", "health", "kubernetes", "ready")
PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4"
DOCKER_PROVIDER = "github.com/terraform-providers/terraform-provider-docker"
ROLLOUTS = "github.com/argoproj/argo-rollouts"
CLOUDNATIVE_PG = "github.com/cloudnative-pg/cloudnative-pg"
OPERATOR = "github.com/prometheus-operator/prometheus-operator"
BARMAN = "github.com/cloudnative-pg/plugin-barman-cloud"
# Folder of the programs that run in pods, separate from the programs for the command line.
PODS = CACHE / "cluster" / "programs"
KUBERNETES_PROGRAM = PODS / "kubernetes"
# Run at most two builds at once. Each build uses all processors, so more builds only compete for memory.
BUILDS = threading.BoundedSemaphore(2)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Go sources of a program that the lab builds."""

    recipe: Callable[[], str]
    """Function that returns a text that differs for each version of the sources. A changed text causes a new build."""
    folder: Callable[[], Path]
    """Function that returns the folder to build in."""
    flags: Callable[[], tuple[str, ...]] = tuple
    """Function that returns the flags of `go build` that only this program needs."""


def steps(plugin: str) -> list[Step]:
    """Return the steps that build and install Pulumi with one plugin.

    If the machine already has a `pulumi`, no step builds anything, because that `pulumi` downloads its plugins itself.
    """
    if existing := _machine_program("pulumi"):
        description = f"{existing}, with its own plugins"
        return [Step(name="pulumi", takes="", present=lambda: description, run=lambda: None)]
    plugins = {
        "docker": _build("docker plugin", "3 min", _built("docker"), _docker()),
        "kubernetes": _build("kubernetes plugin", "8 min", _built("kubernetes"), _provider()),
    }
    return [
        plugins[plugin],
        _build(
            "pulumi",
            "4 min",
            BIN / "pulumi",
            _module("pulumi"),
            "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            f"-X {VERSION}={pinned_version('pulumi', PULUMI)}",
        ),
        _build(
            "python language host",
            "1 min",
            BIN / "pulumi-language-python",
            _module("language-python"),
            "github.com/pulumi/pulumi/sdk/python/cmd/pulumi-language-python/v3",
            f"-X {VERSION}={pinned_version('language-python', PULUMI)}",
        ),
        Step(
            name="python language launcher",
            takes="1 s",
            needs=("pulumi",),
            present=lambda: _existing(BIN / "pulumi-language-python-exec"),
            run=_launcher,
        ),
        Step(
            name=f"{plugin} plugin installed",
            takes="1 s",
            needs=("pulumi", f"{plugin} plugin"),
            present=lambda: _plugin_present(plugin),
            run=lambda: _install_plugin(plugin),
        ),
    ]


def cluster() -> list[Step]:
    """Return the steps that build the programs of a Kubernetes cluster, the longest build first."""
    version = pinned_version("kubernetes", KUBERNETES)
    major, minor, _ = version.removeprefix("v").split(".")
    return [
        _build(
            "kubernetes",
            "6 min",
            KUBERNETES_PROGRAM,
            _module("kubernetes"),
            flags=f"-X {KUBERNETES_VERSION}.gitVersion={version}"
            f" -X {KUBERNETES_VERSION}.gitMajor={major} -X {KUBERNETES_VERSION}.gitMinor={minor}",
        ),
        _build("pause", "5 s", PODS / "pause", _module("pause")),
        _build("coredns", "1 min", PODS / "coredns", _coredns()),
        _build(
            "local-path-provisioner",
            "1 min",
            PODS / "local-path-provisioner",
            _upstream("github.com/rancher/local-path-provisioner"),
        ),
        _build("traefik", "6 min", PODS / "traefik", _traefik(), "./cmd/traefik"),
        _build(
            "metrics-server",
            "2 min",
            PODS / "metrics-server",
            _upstream("sigs.k8s.io/metrics-server"),
            "./cmd/metrics-server",
        ),
    ]


def operators() -> list[Step]:
    """Return the step that builds CloudNativePG, the operator of database clusters."""
    number = pinned_version("upstream", CLOUDNATIVE_PG).removeprefix("v")
    version = f"-X {CLOUDNATIVE_PG}/pkg/versions.buildVersion={number}"
    return [
        _build("cloudnative-pg", "2 min", PODS / "cloudnative-pg", _upstream(CLOUDNATIVE_PG), "./cmd/manager", version)
    ]


def storage() -> Step:
    """Return the step that builds rclone, which serves files as S3, and encrypts files on their way to a bucket."""
    version = "-X github.com/rclone/rclone/fs.Version=v1.71.0"
    return _build("rclone", "2 min", PODS / "rclone", _upstream("github.com/rclone/rclone"), ".", version)


def barman() -> Step:
    """Return the step that builds CloudNativePG's plugin for point-in-time recovery."""
    return _build("barman plugin", "2 min", PODS / "plugin-barman-cloud", _upstream(BARMAN), "./cmd/manager")


def tools() -> list[Step]:
    """Return the steps that build the tools of the end-to-end tests."""
    return [
        *load(),
        _score(),
        _build(
            "kubeconform",
            "20 s",
            BIN / "kubeconform",
            _upstream("github.com/yannh/kubeconform"),
            "./cmd/kubeconform",
            "-X main.version=v0.7.0",
        ),
    ]


def lint() -> list[Step]:
    """Return the step that builds the linter of GitHub workflows."""
    return [_program("actionlint", "15 s", "github.com/rhysd/actionlint", "./cmd/actionlint")]


def load() -> list[Step]:
    """Return the step that builds the load generator."""
    return [_build("k6", "1 min", BIN / "k6", _upstream("go.k6.io/k6"))]


def scan() -> list[Step]:
    """Return the steps that build the scanners of the Git history (for secrets), of manifests and of images."""
    version = "-X github.com/aquasecurity/trivy/pkg/version/app.ver=0.64.1"
    return [
        _program("trivy", "8 min", "github.com/aquasecurity/trivy", "./cmd/trivy", version),
        _program("gitleaks", "1 min", "github.com/zricethezav/gitleaks/v8"),
        _score(),
    ]


def _score() -> Step:
    source, flags = _upstream("github.com/zegl/kube-score"), "-X main.version=1.20.0"
    return _build("kube-score", "20 s", BIN / "kube-score", source, "./cmd/kube-score", flags)


def peers() -> list[Step]:
    """Return the step that builds Argo Rollouts, with which the benchmarks compare Tiers."""
    return [
        _build(
            "rollouts-controller",
            "4 min",
            BIN / "rollouts-controller",
            _upstream(ROLLOUTS),
            "./cmd/rollouts-controller",
            f"-X {ROLLOUTS}/utils/version.version=1.8.3",
        )
    ]


def prometheus_operator() -> list[Step]:
    """Return the step that builds prometheus-operator, which configures a cluster's Prometheus."""
    return [_build("prometheus-operator", "3 min", BIN / "prometheus-operator", _operator(), "./cmd/operator")]


# ---------------------------------------------------------------------- sources


def _module(name: str) -> Source:
    """Return the source of a module in `lab/toolchain`. The module's go.mod and go.sum pin all versions."""

    def recipe() -> str:
        return digest(*sorted(file for file in (HERE / name).rglob("*") if file.is_file()))

    return Source(recipe=recipe, folder=lambda: HERE / name)


def _upstream(path: str) -> Source:
    """Return the source of an unmodified upstream module. Upstream's go.mod and go.sum pin its dependencies."""

    def recipe() -> str:
        lines = (HERE / "upstream" / "go.sum").read_text().splitlines()
        return "".join(line for line in lines if line.startswith(f"{path} "))

    return Source(recipe=recipe, folder=lambda: download_module("upstream", path))


CORRECTIONS = {
    'result <- fmt.Errorf("error inspecting container state: %s", err)\n': (
        'result <- fmt.Errorf("error inspecting container state: %s", err)\nreturn\n'
    ),
    "infos.State.Health.Status ==": "infos.State.Health != nil && infos.State.Health.Status ==",
}
"""Wrong text in the source code of the Docker provider → corrected text."""


def _docker() -> Source:
    """Return the source of the docker plugin, with the same correction as in the official plugin 5.2.0.

    Without the correction, the plugin's provider of 2022 panics if a container is not healthy in time, because the provider
    reads the container's state after a failed inspection. The panic ends the plugin, and with it all other operations of the
    update.
    """
    module = _module("docker")

    def folder() -> Path:
        copy = _copy_module("docker", module.folder())
        provider = _own_dependency(copy, DOCKER_PROVIDER, "docker-provider")
        file = provider / "internal" / "provider" / "resource_docker_container_funcs.go"
        text = file.read_text()
        for wrong, correct in CORRECTIONS.items():
            assert text.count(wrong) == 1
            text = text.replace(wrong, correct)
        file.write_text(text)
        return copy

    return Source(recipe=lambda: f"{CORRECTIONS} {module.recipe()}", folder=folder)


def _provider() -> Source:
    """Return the source of the Kubernetes provider.

    The build reads the provider's large schema from the downloaded module (`-overlay`), so this repository has no copy.
    """
    module = _module("kubernetes-provider")

    def flags() -> tuple[str, ...]:
        folder = download_module("kubernetes-provider", PROVIDER) / "cmd" / "pulumi-resource-kubernetes"
        files = ("schema.json", "terraform-mapping.json")
        overlay = CACHE / "kubernetes-provider-overlay.json"
        overlay.write_text(
            json.dumps({"Replace": {str(HERE / "kubernetes-provider" / name): str(folder / name) for name in files}})
        )
        return ("-overlay", str(overlay))

    return Source(recipe=module.recipe, folder=module.folder, flags=flags)


def _traefik() -> Source:
    """Return the source of Traefik.

    Traefik embeds a web page that its module lacks, so a copy of the module gets a placeholder page. The copy leaves out the
    ACME providers for a hundred DNS services, because the lab creates its own certificates.
    """
    module, no_providers = _upstream(TRAEFIK), HERE / "traefik" / "dns_providers.go"

    def folder() -> Path:
        copy = _copy_module("traefik", module.folder())
        page = copy / "webui" / "static" / "index.html"
        page.parent.mkdir()
        page.write_text("The dashboard is not built here.\n")
        acme = _own_dependency(copy, LEGO, "lego")
        shutil.copyfile(no_providers, acme / "providers" / "dns" / "zz_gen_dns_providers.go")
        return copy

    return Source(recipe=lambda: module.recipe() + digest(no_providers), folder=folder)


def _coredns() -> Source:
    """Return the source of CoreDNS with only the plugins of the lab's Corefile. Other plugins need cloud SDKs."""
    module = _upstream(COREDNS)

    def folder() -> Path:
        copy = _copy_module("coredns", module.folder())
        plugins = copy / "core" / "plugin" / "zplugin.go"
        enabled = re.compile(rf'.*/plugin/({"|".join(COREDNS_PLUGINS)})"')
        lines = plugins.read_text().splitlines(keepends=True)
        plugins.write_text("".join(line for line in lines if '_ "' not in line or enabled.match(line)))
        return copy

    return Source(recipe=lambda: f"{COREDNS_PLUGINS} {module.recipe()}", folder=folder)


def _operator() -> Source:
    """Return the source of prometheus-operator: a copy of its module, with two submodules that the download lacks."""
    module = _upstream(OPERATOR)

    def folder() -> Path:
        copy = _copy_module("prometheus-operator", module.folder())
        for part in ("pkg/apis/monitoring", "pkg/client"):
            _copy_module(f"prometheus-operator/{part}", download_module("upstream", f"{OPERATOR}/{part}"))
        return copy

    return Source(recipe=module.recipe, folder=folder)


def _own_dependency(module: Path, path: str, name: str) -> Path:
    """Replace a dependency of a module with a writable copy, and return the folder of the copy.

    Args:
        module: folder of the module, which must be writable.
        path: module path of the dependency.
        name: name of the copy.
    """
    copy = _copy_module(name, download_module(module, path))
    sh("go", "mod", "edit", f"-replace={path}={copy}", log="sources", cwd=module)
    return copy


def _copy_module(name: str, module: Path) -> Path:
    """Copy a module's files to a writable folder, and return the folder."""
    copy = CACHE / "sources" / name
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    sh("cp", "-r", "--no-preserve=mode", module, copy, log="sources")
    return copy


def pinned_version(folder: str, path: str) -> str:
    """Return the version of the Go module `path`, such as `v1.34.0`. The file go.mod in `folder` pins this version."""
    pin = re.search(rf"^(?:require)?\s*{re.escape(path)} (v\S+)", (HERE / folder / "go.mod").read_text(), re.MULTILINE)
    assert pin, f"{folder}/go.mod pins {path}"
    return pin[1]


def download_module(pinned_by: str | Path, path: str) -> Path:
    """Download the module `path` in the version that go.mod in `pinned_by` pins, and return its folder.

    Go verifies the download against go.sum.
    """
    result = subprocess.run(
        ["go", "mod", "download", "-json", path],
        cwd=HERE / pinned_by,
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise LabError(f"`go mod download {path}` failed: {result.stdout}{result.stderr}")
    return Path(json.loads(result.stdout)["Dir"])


# ---------------------------------------------------------------------- builds


def _machine_program(program: str) -> str | None:
    path = os.pathsep.join(part for part in os.get_exec_path() if Path(part) != BIN)
    return shutil.which(program, path=path)


def _existing(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _program(name: str, takes: str, module: str, package: str = ".", flags: str = "") -> Step:
    """Return the step that builds a command line program. The step does nothing if the machine has the program."""
    if existing := _machine_program(name):
        return Step(name=name, takes="", present=lambda: existing, run=lambda: None)
    return _build(name, takes, BIN / name, _upstream(module), package, flags)


def _build(name: str, takes: str, output: Path, source: Source, package: str = ".", flags: str = "") -> Step:
    stamp = output.with_suffix(".built-from")

    def recipe() -> str:
        return f"{package} {flags} {source.recipe()}"

    def present() -> str | None:
        return str(output) if output.exists() and stamp.exists() and stamp.read_text() == recipe() else None

    def run() -> None:
        if command_output("go", "version") is None:
            alternative = name if output == BIN / name else "Pulumi"
            raise LabError(
                f"the build needs Go 1.26 or newer; install Go (go.dev/doc/install), or install {alternative} yourself"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        fresh = output.with_suffix(".new")
        with BUILDS:
            sh(
                "go",
                "build",
                "-trimpath",
                # Leave out debug information: the build takes a tenth less time, and `-s` would discard the information anyway.
                "-gcflags=all=-dwarf=false",
                *source.flags(),
                "-ldflags",
                f"-s -w {flags}".strip(),
                "-o",
                fresh,
                package,
                log=f"build-{name.replace(' ', '-')}",
                cwd=source.folder(),
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
            )
        # Rename the complete file, and write the stamp last. Otherwise an interrupted build could count as complete.
        fresh.rename(output)
        stamp.write_text(recipe())

    return Step(name=name, takes=takes, present=present, run=run)


def _launcher() -> None:
    sdk = download_module("pulumi", "github.com/pulumi/pulumi/sdk/v3")
    target = BIN / "pulumi-language-python-exec"
    fresh = target.with_suffix(".new")
    shutil.copyfile(sdk / "python" / "cmd" / target.name, fresh)
    fresh.chmod(0o755)
    fresh.rename(target)


# ---------------------------------------------------------------------- plugins


def _built(plugin: str) -> Path:
    return CACHE / "plugins" / f"pulumi-resource-{plugin}-{PLUGINS[plugin]}"


def _installed(plugin: str) -> Path:
    return PULUMI_HOME / "plugins" / f"resource-{plugin}-v{PLUGINS[plugin]}" / f"pulumi-resource-{plugin}"


def _plugin_present(plugin: str) -> str | None:
    installed, built = _installed(plugin), _built(plugin)
    if installed.exists() and built.exists() and installed.stat().st_mtime >= built.stat().st_mtime:
        return str(installed)
    return None


def _install_plugin(plugin: str) -> None:
    sh(
        BIN / "pulumi",
        "plugin",
        "install",
        "resource",
        plugin,
        PLUGINS[plugin],
        "--reinstall",
        "--file",
        _built(plugin),
        log=f"plugin-{plugin}",
        env={**os.environ, "PULUMI_HOME": str(PULUMI_HOME), "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
    _installed(plugin).touch()
