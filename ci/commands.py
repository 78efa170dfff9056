"""Table of the make targets: the function of each target, and the preparation before the function runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import process, pulumi_environment
from .make_call import REPOSITORY, Call, CallError

Command = Callable[[Call], int | None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Make target: its function, and the preparation before the function runs."""

    run: Command
    is_of_app: bool = True
    """True if the target runs in the application's folder."""
    has_stack: bool = True
    """True if the target needs a stack file."""
    needs_lab: bool = False
    """True if `main` installs the environment's parts of the lab before it runs the target.

    For an environment of a pull request, `main` also generates the stack file.
    """
    is_locked: bool = False
    """True if the target's function itself takes the stack's lock and checks that the stack file exists."""
    lab: tuple[str, ...] = ()
    """Parts of the lab that the target needs in every environment."""
    works_on_state: bool = False
    """True if the target works with invalid configuration files, because it reads the state."""


def main(call: Call) -> int:
    """Check the variables of a make call, run its target, and return the exit code.

    Raises:
        CallError: the target does not exist, or a variable has an invalid value.
    """
    if call.target not in TARGETS:
        raise CallError(f"there is no make target {call.target!r:.60}; see `make help`")
    target = TARGETS[call.target]
    call.validate()
    if target.is_of_app:
        pulumi_environment.set_variables(call, os.environ)
        if target.has_stack and not (target.is_locked or target.works_on_state or call.is_pull_request):
            call.refuse_missing_stack_file()
        writes_stack_file = call.is_pull_request and (target.needs_lab or call.target == "down")
        parts = (*(_lab_parts(call) if target.needs_lab or writes_stack_file else ()), *target.lab)
        if parts and (code := _lab("up", *parts)):
            return code
        os.chdir(call.folder)
        if writes_stack_file:
            _deploy("write_stack_file")(call)
            call.refuse_missing_stack_file()
    elif target.lab and (code := _lab("up", *target.lab)):
        return code
    return target.run(call) or 0


def _lab_parts(call: Call) -> list[str]:
    from .lab_parts import lab_parts

    return lab_parts(call)


def _lab(verb: str, *parts: str) -> int:
    # Use the machine's Python, because the lab's services keep running after this virtual environment is removed.
    return subprocess.call(["python3", "-m", "lab", verb, *parts], cwd=REPOSITORY)


def _deploy(name: str) -> Command:
    """Return a command that calls the function `name` of the module `deploy`.

    The command imports `deploy` when it runs. The import is slow, so other commands must not wait for it.
    """

    def run(call: Call) -> int | None:
        from . import deploy

        return getattr(deploy, name)(call)

    return run


# ---------------------------------------------------------------------- modules that read an environment


def _status(call: Call) -> None:
    from . import fallback_folder, status

    with fallback_folder.usable_folder(call.env, deploys=False):
        status.main(call.env)


def _trace(call: Call) -> None:
    from . import trace

    trace.main(call.env, call["ID"])


def _logs(call: Call) -> None:
    from . import fallback_folder, logs

    with fallback_folder.usable_folder(call.env, deploys=False):
        logs.main(call.env, call["SERVICE"], call["SLOT"], call["SINCE"], call["FOLLOW"])


def _exec(call: Call) -> None:
    from . import container

    container.execute(call.env, call["SERVICE"], call["CMD"], call["SLOT"])


def _run(call: Call) -> int:
    from . import one_off

    if call["JOB"]:
        return one_off.run_job(call.env, call["JOB"], call["SLOT"])
    return one_off.run(call.env, call["SERVICE"], call["CMD"], call["SLOT"])


def _console(call: Call) -> None:
    from . import container

    container.console(call.env, call["SERVICE"], call["SLOT"])


def _check(call: Call) -> int:
    from . import check

    return 1 if check.main(call.env) else 0


def _preview_comment(call: Call) -> int:
    from . import preview

    return preview.main(call.env)


def _dashboard(call: Call) -> None:
    from . import dashboard

    print(dashboard.dashboard_json(call.env))


def _backup(*words: str) -> Command:
    def run(call: Call) -> None:
        from . import backup

        command = [*(words or (_backup_kind(call),))]
        backup.main(call.env, [*command, "--service", call["SERVICE"]] if call["SERVICE"] else command)

    return run


def _backup_kind(call: Call) -> str:
    """Return the backup command of `make backup`. FULL=yes backs up everything, but a store has only one kind of backup."""
    return "all" if call["FULL"] and not call["SERVICE"] else "backup"


def _slo(verb: str) -> Command:
    def run(call: Call) -> None:
        from . import slo

        slo.main(verb, call.env, slot=call["SLOT"], window=call["WINDOW"])

    return run


def _pins(verb: str) -> Command:
    def run(call: Call) -> None:
        from . import pins

        {"save": pins.save, "use": pins.use, "recall": pins.recall}[verb](call.env)

    return run


def _build(call: Call) -> None:
    from . import images

    images.build(call.env)


def _sbom(call: Call) -> None:
    from . import sbom

    sbom.main(call.env)


def _journey(call: Call) -> int:
    from .pulumi_stack import pulumi

    url = pulumi("stack", "output", "url", "--stack", call.env).strip()
    words = ["k6", "run", "--quiet", "--no-usage-report", "--address", "", "--", call.journey]
    return process.run(words, env={**os.environ, "URL": url})


def _deployed(call: Call) -> None:
    from .pulumi_stack import last_update

    variables: dict[str, Any] = last_update(call.env).get("environment") or {}
    if "git.head" not in variables:
        raise CallError(
            f"Pulumi recorded no git commit with the last update of {call.env}; commit your files, then run `make up ENV={call.env}`"
        )
    print(variables["git.head"])


def _built(_: Call) -> None:
    file = Path("reports/images.json")
    if not file.exists():
        raise CallError(f"the file {file} is missing; run `make sbom` to create it")
    print(f"images={file.read_text().strip()}")


def _drift_issue(call: Call) -> int:
    """Report drift on GitHub: comment on the environment's open drift issue, or open a new issue."""
    report = Path("reports") / f"drift-{call.env}.txt"
    if not report.exists():
        raise CallError(f"the file {report} is missing; run `make drift ENV={call.env}` to create it")
    title, body = f"drift: {call.env} is not what its files say", Path("reports/issue.md")
    end = report.read_bytes()[-20_000:].decode(errors="replace")
    body.write_text(f"Found by `make drift ENV={call.env}`. The end of its output:\n```\n{end}\n```\n")
    search = ["--state", "open", "--search", f'in:title "{title}"', "--json", "number", "--jq", ".[0].number"]
    listed = process.capture(["gh", "issue", "list", *search])
    if listed.returncode:
        raise CallError(f"`gh issue list` ended with exit code {listed.returncode}: {listed.stderr.strip()}")
    number = listed.stdout.strip()
    words = ["comment", number] if number else ["create", "--title", title]
    return process.run(["gh", "issue", *words, "--body-file", str(body)])


def _audit(call: Call) -> int:
    """Scan dependencies, then each built image, for known vulnerabilities."""
    from . import images

    options = ["--quiet", "--exit-code", "1", "--ignore-unfixed", "--severity", "HIGH,CRITICAL", "--scanners", "vuln"]
    # Skip the folder of the lab, because environments do not deploy the lab's programs.
    skipped = ["--skip-dirs", "lab", "--skip-dirs", ".venv"]
    if code := process.run(["trivy", "filesystem", *options, *skipped, "."], cwd=REPOSITORY):
        return code
    return max([process.run(["trivy", "image", *options, image]) for image in images.build(call.env)], default=0)


# ---------------------------------------------------------------------- applications and the machine


def _new(call: Call) -> None:
    from . import new

    new.main(call["NAME"], call["AT"])


def _import(call: Call) -> None:
    from .compose.__main__ import main as import_compose_file

    import_compose_file(call["COMPOSE"], call["NAME"])


def _shell(call: Call) -> int:
    """Start a shell in which `pulumi` uses the same backend and stack as make."""
    if (call.folder / f"Pulumi.{call.env}.yaml").exists():
        process.capture(["pulumi", "stack", "select", call.env, "--non-interactive"])
    shell = os.environ.get("SHELL") or "bash"
    os.execvp(shell, [shell])  # noqa: S606 (the user's own shell)


def _lab_up(call: Call) -> int:
    return _lab("up", *_lab_parts(call))


def _doctor(call: Call) -> int:
    """Print the tools that the machine has, and the tools that it lacks.

    Without the Python packages the stack file can't be read, so only the tools for dev are checked.
    """
    try:
        parts = _lab_parts(call)
    except ImportError:
        print(
            "  missing  python packages              will be installed, takes 40 s (`make venv`); without them only the Docker"
        )
        print(
            "                                        engine is checked, not the other programs that ENV needs",
            flush=True,
        )
        parts = ["dev"]
    return _lab("doctor", *parts)


def _screenshots(call: Call) -> int:
    """Deploy each example, take a screenshot of its first page with a real browser, and remove the deployment."""
    from .pulumi_stack import pulumi_in

    shots = REPOSITORY / "docs" / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    build = ["docker", "build", "--quiet", "--tag", "tiers-browser", "tests/browser"]
    if code := process.run(build, cwd=REPOSITORY):
        return code
    for name in call["ONLY"].split() or ("about_me", "pmanager", "django_site", "palmonas"):
        runner = [sys.executable, "-m", "ci"]
        if code := process.run([*runner, "up", f"APP=examples/{name}"], cwd=REPOSITORY):
            return code
        url = pulumi_in(REPOSITORY / "examples" / name, "stack", "output", "url", "--stack", "dev").strip()
        with (shots / f"{name}.png").open("wb") as file:
            subprocess.run(
                ["docker", "run", "--rm", "--network", "host", "tiers-browser", url], stdout=file, check=True
            )
        if code := process.run([*runner, "down", f"APP=examples/{name}"], cwd=REPOSITORY):
            return code
    return 0


def _prose(call: Call) -> None:
    from . import prose

    prose.main(call["SEED"], call["COUNT"])


def _scan(_: Call) -> int:
    """Scan the Git history for secrets, then check Dockerfiles and manifests for insecure settings."""
    trivy = ["--quiet", "--exit-code", "1", "--severity", "HIGH,CRITICAL", "--skip-check-update"]
    tests = ["-m", "pytest", "--noconftest", "tests/e2e/test_yardsticks.py", "-k", "kube_score"]
    for words in (
        ["gitleaks", "git", "--no-banner", "--redact", "."],
        ["trivy", "config", *trivy, "examples"],
        [sys.executable, *tests],
    ):
        print(" ".join(words), flush=True)
        if code := process.run(words, cwd=REPOSITORY):
            return code
    return 0


TARGETS: dict[str, Target] = {
    "up": Target(run=_deploy("up"), needs_lab=True),
    "down": Target(run=_deploy("down"), is_locked=True, works_on_state=True),
    "back": Target(run=_deploy("back"), is_locked=True, works_on_state=True),
    "promote": Target(run=_deploy("promote"), is_locked=True),
    "heal": Target(run=_deploy("heal_stack"), is_locked=True, works_on_state=True),
    "reseal": Target(run=_deploy("reseal"), is_locked=True),
    "secrets": Target(run=_deploy("complete_secrets"), is_locked=True, lab=("provider",)),
    "images": Target(run=_deploy("push_images"), needs_lab=True),
    "preview": Target(run=_deploy("preview"), needs_lab=True),
    "preview-comment": Target(run=_preview_comment, needs_lab=True),
    "drift": Target(run=_deploy("drift"), needs_lab=True),
    "drift-issue": Target(run=_drift_issue, has_stack=False),
    "move": Target(run=_deploy("move"), needs_lab=True),
    "reopen": Target(run=_deploy("reopen"), is_locked=True),
    "restore": Target(run=_deploy("restore"), needs_lab=True),
    "refresh": Target(run=_deploy("refresh"), needs_lab=True),
    "status": Target(run=_status, works_on_state=True),
    "logs": Target(run=_logs, works_on_state=True),
    "exec": Target(run=_exec),
    "console": Target(run=_console),
    "run": Target(run=_run),
    "trace": Target(run=_trace),
    "check": Target(run=_check),
    "dashboard": Target(run=_dashboard),
    "backup": Target(run=_backup()),
    "backups": Target(run=_backup("list")),
    "verify": Target(run=_backup("verify")),
    "waiting": Target(run=_deploy("print_waiting_release")),
    "deployed": Target(run=_deployed),
    "smoke": Target(run=_slo("smoke"), lab=("load",)),
    "perf": Target(run=_slo("perf"), lab=("load",)),
    "watch": Target(run=_slo("watch"), lab=("load",)),
    "journey": Target(run=_journey, lab=("load",)),
    "pins-save": Target(run=_pins("save")),
    "pins-use": Target(run=_pins("use")),
    "pins-recall": Target(run=_pins("recall")),
    "build": Target(run=_build),
    "sbom": Target(run=_sbom, lab=("scan",)),
    "built": Target(run=_built, has_stack=False),
    "audit": Target(run=_audit, lab=("scan",)),
    "scan": Target(run=_scan, is_of_app=False, lab=("scan",)),
    "prose": Target(run=_prose, is_of_app=False),
    "shell": Target(run=_shell, needs_lab=True),
    "new": Target(run=_new, is_of_app=False, lab=("dev",)),
    "import": Target(run=_import, is_of_app=False, lab=("dev", "compose")),
    "lab": Target(run=_lab_up, is_of_app=False),
    "doctor": Target(run=_doctor, is_of_app=False),
    "screenshots": Target(run=_screenshots, is_of_app=False),
}
