"""Load tests of an environment, and checks against its SLO. The tests send the users' most frequent requests.

`python -m ci.slo smoke STACK [--slot idle]`: checks that each path of `app.visits` answers, on the live release or on
the release that waits for promotion in the idle slot.

`python -m ci.slo perf STACK`: sends requests at the rate `environment.slo.rate` during `slo.window`, and checks the
limits of the SLO.

`python -m ci.slo watch STACK`: does the same as `perf` for a release that has just gone live. If a limit is exceeded,
the previous release is made live again, and the command fails.

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
from components.release.planner import Slot

from . import command_line, heal, process
from .pulumi_stack import ROOT, load, pulumi

SCRIPT = Path(__file__).with_name("slo.js")
REPORTS = ROOT / "reports"
TIMES = 3
"""Number of requests to each path in a smoke test. A single request could miss a failing replica."""
LIMIT_EXCEEDED = 99
"""Exit code of k6 if a limit was exceeded. Any other code except 0 means that k6 failed."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Result of a k6 run."""

    summary: Mapping[str, Any]
    limit_exceeded: bool
    """True if a limit was exceeded."""
    answers: tuple[str, ...]
    """Path and reason of the first failed requests, at most five."""

    def __str__(self) -> str:
        seconds = self.summary["state"]["testRunDurationMs"] / 1000
        requests, durations = self._of("http_reqs"), self._of("http_req_duration")
        text = f"{requests['count']} requests in {seconds:.0f} s, {self._of('failed')['count']} failed"
        text += f", 95 in 100 within {durations['p(95)']:.0f} ms, 99 within {durations['p(99)']:.0f} ms"
        return text + "".join(f"\n    {answer}" for answer in self.answers)

    def _of(self, metric: str) -> dict[str, Any]:
        return self.summary["metrics"][metric]["values"]

    @property
    def exceeded_limits(self) -> str:
        """Exceeded limits, as one line."""
        exceeded = (
            f"{self._of(name)['count']} of {self.summary['due']} requests {_LIMIT_TEXTS[name]}, at most {int(maximum)} are allowed"
            for name, maximum in self.summary["allowed"].items()
            if self._of(name)["count"] > maximum
        )
        return "; ".join(exceeded)


_LIMIT_TEXTS = {"failed": "failed", "p95": "took longer than slo.p95", "p99": "took longer than slo.p99"}


def smoke(stack: str, slot: str) -> None:
    """Request every path of `app.visits`: from the live release, or from the waiting release if `slot` is `idle`.

    Raises:
        RunError: a request fails, `slot` is neither empty nor `idle`, or no release waits for promotion in the idle slot.
    """
    if slot not in ("", "idle"):
        raise RunError(
            f"SLOT: `make smoke` can't check the slot {slot}; set SLOT to idle, or remove SLOT for the live release"
        )
    app, _ = load(stack)
    stack_outputs = outputs(stack)
    if slot and "waiting" not in stack_outputs:
        raise RunError(f"no release of stack {stack} waits for promotion; remove SLOT to test the live release")
    target = Slot(stack_outputs["live"]).other if slot else ""
    result = measure(f"smoke-{stack}", app, stack_outputs["url"], {"TIMES": str(TIMES), "SLOT": target})
    print(f"  {target or 'live'}: {result}")
    if result.limit_exceeded:
        raise RunError(
            f"stack {stack} does not answer all paths of app.visits; run `make check ENV={stack}` to find the cause"
        )


def perf(stack: str, slo: Slo, app: App) -> None:
    """Run a load test on an environment, and check the result against its SLO.

    Raises:
        RunError: a limit is exceeded.
    """
    result = measure(f"perf-{stack}", app, outputs(stack)["url"], limits(slo))
    print(f"  {result}")
    if result.limit_exceeded:
        raise RunError(f"stack {stack} exceeds its SLO: {result.exceeded_limits}")


def watch(stack: str, slo: Slo, app: App) -> None:
    """Run a load test on a new release, and go back to the previous release if a limit of the SLO is exceeded.

    Raises:
        RunError: a limit is exceeded; the message says whether the previous release is live again.
    """
    monitored = outputs(stack)
    result = measure(f"watch-{stack}", app, monitored["url"], limits(slo))
    print(f"  {monitored['release']}: {result}")
    if not result.limit_exceeded:
        return
    release = f"{monitored['release']} exceeds the SLO: {result.exceeded_limits}"
    now = outputs(stack)["release"]
    if now != monitored["release"]:
        raise RunError(f"{release}; nothing was changed, because {now} is live now")
    print(f"  {release}; going back")
    go_back(stack, f"make watch: {result.exceeded_limits}")
    raise RunError(f"{release}; {outputs(stack)['release']} is live again")


def go_back(stack: str, who: str) -> None:
    """Make the previous release live again, and record `who` as the author in the journal of switches.

    Raises:
        RunError: there is no previous release, or going back to it is refused.
    """
    heal.main(stack)
    words = ["pulumi", "up", "--stack", stack, "--yes", "--skip-preview", "--non-interactive"]
    if process.run(words, cwd=ROOT, env={**os.environ, "TIERS_RELEASE": "previous", "TIERS_WHO": who}):
        raise RunError(
            f"going back to the previous release failed: see above; stack {stack} still serves the release that exceeded the SLO"
        )


def limits(slo: Slo) -> dict[str, str]:
    """Return an SLO as environment variables of slo.js. Latencies are in milliseconds, the window in seconds."""
    values = {
        "RATE": slo.rate,
        "SECONDS": slo.window,
        "ERRORS": slo.errors,
        "P95": slo.p95 * 1000,
        "P99": slo.p99 * 1000,
    }
    return {name: f"{value:g}" for name, value in values.items()}


def measure(name: str, app: App, url: str, settings: Mapping[str, str]) -> Measurement:
    """Run k6 to its end, or until a limit is certain to be exceeded.

    Raises:
        RunError: k6 failed, so the result is unknown.
    """
    if not shutil.which("k6"):
        raise RunError("k6 is not on PATH; run `python3 -m lab up load`, or install k6")
    REPORTS.mkdir(exist_ok=True)
    summary, answers = REPORTS / f"{name}.json", REPORTS / f"{name}.txt"
    variables = {"URL": url, "VISITS": json.dumps(app.visits), "SUMMARY": str(summary)}
    # Disable k6's API, because two runs would use the same port.
    words = ["--quiet", "--no-usage-report", "--address", "", "--log-format", "raw", "--console-output", str(answers)]
    done = subprocess.run(
        ["k6", "run", *words, str(SCRIPT)], env={**os.environ, **variables, **settings}, capture_output=True, text=True
    )
    if done.returncode not in (0, LIMIT_EXCEEDED):
        raise RunError(f"k6 failed, so {url} was not measured: {(done.stderr or done.stdout).strip()}")
    failures = tuple(dict.fromkeys(answers.read_text().splitlines()))[:5] if answers.exists() else ()
    return Measurement(
        summary=json.loads(summary.read_text()), limit_exceeded=done.returncode == LIMIT_EXCEEDED, answers=failures
    )


def outputs(stack: str) -> dict[str, Any]:
    """Return the outputs of a stack, which include `live`, `url` and `release`.

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
    """Run the verb `smoke`, `perf` or `watch`. If `window` is empty, the window of the environment's SLO is used.

    Raises:
        ConfigError: the window is not a time, or the files are invalid.
        RunError: the environment fails the check.
    """
    if verb == "smoke":
        smoke(stack, slot)
        return
    app, environment = load(stack)
    {"perf": perf, "watch": watch}[verb](stack, _slo(environment, window), app)


def _parse_options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("verb", choices=["smoke", "perf", "watch"])
    words.add_argument("stack")
    words.add_argument("--slot", choices=["", "idle"], default="")
    words.add_argument("--window", default="")
    return words.parse_args()


if __name__ == "__main__":
    options = _parse_options()
    command_line.run_and_exit("slo", lambda: main(options.verb, options.stack, options.slot, options.window))
