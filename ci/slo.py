"""Load tests of an environment with its users' most frequent requests, and checks against its SLO.

`python -m ci.slo smoke STACK [--slot idle]`: checks that each of `app.visits` answers, on the live or the waiting
release.

`python -m ci.slo perf STACK`: sends `environment.slo.rate` requests a second for `slo.window`, and checks the limits.

`python -m ci.slo watch STACK`: does the same for a release that has just gone live. If a limit is exceeded, the
previous release is made live again, and the command fails.

`--window 30s` overrides the duration. The measurements of k6 are written to `reports/`.
"""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import RunError
from pydantic import TypeAdapter, ValidationError

from components.config import App, ConfigError, Environment, Seconds, Slo
from components.release import Slot

from . import edge, heal, process
from .described import ROOT, load, pulumi

SCRIPT = Path(__file__).with_name("slo.js")
REPORTS = ROOT / "reports"
TIMES = 3
"""Requests of a smoke test to each path, as a slot has more than one replica."""
BEYOND = 99
"""Exit code of k6 if a threshold was crossed. Any other code except 0 means that it could not measure."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Result of a k6 run."""

    summary: Mapping[str, Any]
    beyond: bool
    answers: tuple[str, ...]
    """First failed requests: path and reason."""

    def __str__(self) -> str:
        seconds = self.summary["state"]["testRunDurationMs"] / 1000
        requests, durations = self._of("http_reqs"), self._of("http_req_duration")
        text = f"{requests['count']} requests in {seconds:.0f} s, {self._of('failed')['count']} failed"
        text += f", 95 in 100 within {durations['p(95)']:.0f} ms, 99 within {durations['p(99)']:.0f} ms"
        return text + "".join(f"\n    {answer}" for answer in self.answers)

    def _of(self, metric: str) -> dict[str, Any]:
        return self.summary["metrics"][metric]["values"]

    @property
    def why(self) -> str:
        """Exceeded limits in one line."""
        exceeded = (
            f"{self._of(name)['count']} of {self.summary['due']} requests {_SAID[name]}, and {int(most)} may"
            for name, most in self.summary["allowed"].items()
            if self._of(name)["count"] > most
        )
        return "; ".join(exceeded)


_SAID = {"failed": "failed", "p95": "took longer than slo.p95", "p99": "took longer than slo.p99"}


def smoke(stack: str, slot: str) -> None:
    """Request every path of `app.visits`.

    Raises:
        RunError: a request fails, or `slot` is idle and no release waits there.
    """
    app, _ = load(stack)
    stack_outputs = outputs(stack)
    if slot and "waiting" not in stack_outputs:
        raise RunError(f"no release waits on stack {stack} for promotion; leave out SLOT to test the live one")
    target = Slot(stack_outputs["live"]).other if slot else ""
    result = measure(f"smoke-{stack}", app, stack_outputs["url"], {"TIMES": str(TIMES), "SLOT": target})
    print(f"  {target or 'live'}: {result}")
    if result.beyond:
        raise RunError(f"stack {stack} does not answer what users ask")


def perf(stack: str, slo: Slo, app: App) -> None:
    """Check an environment against its SLO.

    Raises:
        RunError: a limit is exceeded.
    """
    result = measure(f"perf-{stack}", app, outputs(stack)["url"], limits(slo))
    print(f"  {result}")
    if result.beyond:
        raise RunError(f"stack {stack} is beyond its SLO: {result.why}")


def watch(stack: str, slo: Slo, app: App) -> None:
    """Check a new release against the SLO, and go back to the previous one if a limit is exceeded.

    Raises:
        RunError: a limit is exceeded; the message says whether the previous release is live again.
    """
    watched = outputs(stack)
    result = measure(f"watch-{stack}", app, watched["url"], limits(slo))
    print(f"  {watched['release']}: {result}")
    if not result.beyond:
        return
    release = f"{watched['release']} is beyond the SLO: {result.why}"
    now = outputs(stack)["release"]
    if now != watched["release"]:
        raise RunError(f"{release}; by now {now} is live, so nothing was changed")
    print(f"  {release}; going back")
    go_back(stack, f"make watch: {result.why}")
    raise RunError(f"{release}; {outputs(stack)['release']} is live again")


def go_back(stack: str, who: str) -> None:
    """Make the previous release live again, and record the reason in the journal.

    Raises:
        RunError: there is no previous release, or going back to it is refused.
    """
    heal.main(stack)
    words = ["pulumi", "up", "--stack", stack, "--yes", "--skip-preview", "--non-interactive"]
    if process.run(words, cwd=ROOT, env={**os.environ, "TIERS_RELEASE": "previous", "TIERS_WHO": who}):
        raise RunError(f"and going back has failed: see above; stack {stack} still serves what broke the SLO")


def limits(slo: Slo) -> dict[str, str]:
    """Return an SLO as environment variables of the script: milliseconds, seconds, requests a second."""
    values = {
        "RATE": slo.rate,
        "SECONDS": slo.window,
        "ERRORS": slo.errors,
        "P95": slo.p95 * 1000,
        "P99": slo.p99 * 1000,
    }
    return {name: f"{value:g}" for name, value in values.items()}


def measure(name: str, app: App, url: str, settings: Mapping[str, str]) -> Measured:
    """Run k6 to its end, or until a limit is certain to be exceeded.

    Raises:
        RunError: k6 could not measure, which proves nothing about the environment.
    """
    if not shutil.which("k6"):
        raise RunError("no `k6` on PATH to measure with; run `python3 -m lab up load`, or install it")
    REPORTS.mkdir(exist_ok=True)
    summary, answers = REPORTS / f"{name}.json", REPORTS / f"{name}.txt"
    variables = {"URL": url, "VISITS": json.dumps(app.visits), "SUMMARY": str(summary)}
    # No address for k6's API, whose port would collide with that of a second run.
    words = ["--quiet", "--no-usage-report", "--address", "", "--log-format", "raw", "--console-output", str(answers)]
    done = subprocess.run(
        ["k6", "run", *words, str(SCRIPT)], env={**os.environ, **variables, **settings}, capture_output=True, text=True
    )
    if done.returncode not in (0, BEYOND):
        raise RunError(f"k6 could not measure {url}, so nothing was decided: {(done.stderr or done.stdout).strip()}")
    failures = tuple(dict.fromkeys(answers.read_text().splitlines()))[:5] if answers.exists() else ()
    return Measured(summary=json.loads(summary.read_text()), beyond=done.returncode == BEYOND, answers=failures)


def outputs(stack: str) -> dict[str, Any]:
    """Return the stack's outputs, `live`, `url` and `release` among them.

    Raises:
        RunError: no release is live.
    """
    values = json.loads(pulumi("stack", "output", "--json", "--stack", stack))
    if values.get("live") not in [*Slot] or not all(isinstance(values.get(key), str) for key in ("url", "release")):
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    return values


def _slo(environment: Environment, window: str) -> Slo:
    if not window:
        return environment.slo
    try:
        return environment.slo.model_copy(update={"window": TypeAdapter[float](Seconds).validate_python(window)})
    except ValidationError as error:
        raise ConfigError(f"--window: {error.errors()[0]['msg']}") from None


def main(verb: str, stack: str, slot: str = "", window: str = "") -> None:
    """Run a verb; an empty window means the environment's own.

    Raises:
        ConfigError: the window is not a time, or the files are invalid.
        RunError: the environment fails the check.
    """
    if verb == "smoke":
        smoke(stack, slot)
        return
    app, environment = load(stack)
    {"perf": perf, "watch": watch}[verb](stack, _slo(environment, window), app)


def _words() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("verb", choices=["smoke", "perf", "watch"])
    words.add_argument("stack")
    words.add_argument("--slot", choices=["", "idle"], default="")
    words.add_argument("--window", default="")
    return words.parse_args()


if __name__ == "__main__":
    asked = _words()
    edge.end("slo", lambda: main(asked.verb, asked.stack, asked.slot, asked.window))
