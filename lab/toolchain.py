"""Pulumi's command line, its Python host and the docker plugin, built from their Go modules where they are missing."""

import os
import shutil
from pathlib import Path

from .steps import CACHE, LabError, Step, answer, digest, sh

HERE = Path(__file__).parent / "toolchain"
BIN = CACHE / "bin"
PULUMI_HOME = CACHE / "pulumi"
PULUMI = "v3.256.0"
LANGUAGE = "v3.187.0"
DOCKER_PLUGIN = "5.2.0"
VERSION = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


def steps() -> list[Step]:
    """Nothing is built where the machine has its own `pulumi`: it fetches its plugins itself."""
    if own := _own():
        return [Step(name="pulumi", takes="", present=lambda: own, run=lambda: None)]
    return [
        _build("pulumi", "4 min", "pulumi", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", f"-X {VERSION}={PULUMI}"),
        _build(
            "python language host",
            "1 min",
            "language-python",
            "github.com/pulumi/pulumi/sdk/python/cmd/pulumi-language-python/v3",
            f"-X {VERSION}={LANGUAGE}",
        ),
        _build("docker plugin", "3 min", "docker", ".", ""),
        Step(
            name="python language launcher",
            takes="1 s",
            needs=("pulumi",),
            present=lambda: _there(BIN / "pulumi-language-python-exec"),
            run=_launcher,
        ),
        Step(
            name="docker plugin installed",
            takes="1 s",
            needs=("pulumi", "docker plugin"),
            present=_plugin_present,
            run=_install_plugin,
        ),
    ]


OUTPUTS = {
    "pulumi": BIN / "pulumi",
    "language-python": BIN / "pulumi-language-python",
    "docker": CACHE / "plugins" / f"pulumi-resource-docker-{DOCKER_PLUGIN}",
}


def _own() -> str | None:
    path = os.pathsep.join(part for part in os.get_exec_path() if Path(part) != BIN)
    found = shutil.which("pulumi", path=path)
    return f"{found}, with its own plugins" if found else None


def _there(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _recipe(module: Path, package: str, flags: str) -> str:
    files = sorted(file for file in module.rglob("*") if file.is_file())
    return f"{package} {flags} {digest(*files)}"


def _build(name: str, takes: str, module: str, package: str, flags: str) -> Step:
    output = OUTPUTS[module]
    stamp = output.with_suffix(".built-from")

    def present() -> str | None:
        if output.exists() and stamp.exists() and stamp.read_text() == _recipe(HERE / module, package, flags):
            return str(output)
        return None

    def run() -> None:
        go = answer("go", "version")
        if go is None:
            raise LabError(
                "it is built with Go 1.26 or newer, which is not here; install it (go.dev/doc/install), or Pulumi itself"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        fresh = output.with_suffix(".new")
        sh(
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            f"-s -w {flags}".strip(),
            "-o",
            fresh,
            package,
            log=f"build-{module}",
            cwd=HERE / module,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        )
        # Renamed when whole, stamped last: interrupted anywhere, it is built again.
        fresh.rename(output)
        stamp.write_text(_recipe(HERE / module, package, flags))

    return Step(name=name, takes=takes, present=present, run=run)


def _launcher() -> None:
    sdk = answer(
        "go",
        "-C",
        str(HERE / "pulumi"),
        "list",
        "-mod=readonly",
        "-m",
        "-f",
        "{{.Dir}}",
        "github.com/pulumi/pulumi/sdk/v3",
    )
    if not sdk:
        raise LabError("`go list` can't find the Pulumi SDK module it has just built with")
    target = BIN / "pulumi-language-python-exec"
    fresh = target.with_suffix(".new")
    shutil.copyfile(Path(sdk) / "python" / "cmd" / target.name, fresh)
    fresh.chmod(0o755)
    fresh.rename(target)


def _installed() -> Path:
    return PULUMI_HOME / "plugins" / f"resource-docker-v{DOCKER_PLUGIN}" / "pulumi-resource-docker"


def _plugin_present() -> str | None:
    installed, built = _installed(), OUTPUTS["docker"]
    if installed.exists() and built.exists() and installed.stat().st_mtime >= built.stat().st_mtime:
        return str(installed)
    return None


def _install_plugin() -> None:
    sh(
        BIN / "pulumi",
        "plugin",
        "install",
        "resource",
        "docker",
        DOCKER_PLUGIN,
        "--reinstall",
        "--file",
        OUTPUTS["docker"],
        log="plugin-docker",
        env={**os.environ, "PULUMI_HOME": str(PULUMI_HOME), "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
    _installed().touch()
