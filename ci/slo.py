"""Asks an environment what its users ask most, and holds the answers to what they are promised.

`python -m ci.slo smoke STACK [--slot idle]`: every one of `app.visits` answers, on the live slot or of the release that waits.
`python -m ci.slo perf STACK`: at `environment.slo.rate` for `slo.window`, within its limits.
`python -m ci.slo watch STACK`: the same of a release that has just gone live. Beyond a limit the release before it is live
again, and the command fails.

`--window 30s` measures for another time. What k6 has measured is left in `reports/`.
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
"""How often a smoke test asks each path: a slot has more than one replica."""
BEYOND = 99
"""k6's exit code where a threshold was crossed; any other than this and 0 says that it could not measure."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What k6 has seen."""

    summary: Mapping[str, Any]
    beyond: bool
    answers: tuple[str, ...]
    """The first answers that were none: path and reason."""

    def __str__(self) -> str:
        seconds = self.summary["state"]["testRunDurationMs"] / 1000
        asked, took = self._of("http_reqs"), self._of("http_req_duration")
        said = f"{asked['count']} requests in {seconds:.0f} s, {self._of('failed')['count']} failed"
        said += f", 95 in 100 within {took['p(95)']:.0f} ms, 99 within {took['p(99)']:.0f} ms"
        return said + "".join(f"\n    {answer}" for answer in self.answers)

    def _of(self, metric: str) -> dict[str, Any]:
        return self.summary["metrics"][metric]["values"]

    @property
    def why(self) -> str:
        """Which limits are exceeded, in one line."""
        found = (
            f"{self._of(name)['count']} of {self.summary['due']} requests {_SAID[name]}, and {int(most)} may"
            for name, most in self.summary["allowed"].items()
            if self._of(name)["count"] > most
        )
        return "; ".join(found)


_SAID = {"failed": "failed", "p95": "took longer than slo.p95", "p99": "took longer than slo.p99"}


def smoke(stack: str, slot: str) -> None:
    """Ask every path that users do; one that fails is an error.

    Raises:
        RunError: one does, or `slot` is idle and no release waits there.
    """
    app, _ = load(stack)
    known = outputs(stack)
    if slot and "waiting" not in known:
        raise RunError(f"no release waits on stack {stack} to be promoted; leave out SLOT to ask the one that is live")
    where = Slot(known["live"]).other if slot else ""
    seen = measure(f"smoke-{stack}", app, known["url"], {"TIMES": str(TIMES), "SLOT": where})
    print(f"  {where or 'live'}: {seen}")
    if seen.beyond:
        raise RunError(f"stack {stack} does not answer what users ask")


def perf(stack: str, slo: Slo, app: App) -> None:
    """Hold an environment to its SLO.

    Raises:
        RunError: it is beyond a limit.
    """
    seen = measure(f"perf-{stack}", app, outputs(stack)["url"], limits(slo))
    print(f"  {seen}")
    if seen.beyond:
        raise RunError(f"stack {stack} is beyond its SLO: {seen.why}")


def watch(stack: str, slo: Slo, app: App) -> None:
    """Hold a release to the SLO, and return to the one before if it is beyond.

    Raises:
        RunError: it is; the message says whether the one before is live again.
    """
    watched = outputs(stack)
    seen = measure(f"watch-{stack}", app, watched["url"], limits(slo))
    print(f"  {watched['release']}: {seen}")
    if not seen.beyond:
        return
    release = f"{watched['release']} is beyond the SLO: {seen.why}"
    now = outputs(stack)["release"]
    if now != watched["release"]:
        raise RunError(f"{release}; by now {now} is live, so nothing was changed")
    print(f"  {release}; going back")
    go_back(stack, f"make watch: {seen.why}")
    raise RunError(f"{release}; {outputs(stack)['release']} is live again")


def go_back(stack: str, who: str) -> None:
    """The release before is live again, with the reason in the journal.

    Raises:
        RunError: there is none, or it may not be gone back to.
    """
    heal.main(stack)
    words = ["pulumi", "up", "--stack", stack, "--yes", "--skip-preview", "--non-interactive"]
    if process.run(words, cwd=ROOT, env={**os.environ, "TIERS_RELEASE": "previous", "TIERS_WHO": who}):
        raise RunError(f"and going back has failed: see above; stack {stack} still serves what broke the SLO")


def limits(slo: Slo) -> dict[str, str]:
    """An SLO in the script's words: milliseconds, seconds, requests a second."""
    given = {
        "RATE": slo.rate,
        "SECONDS": slo.window,
        "ERRORS": slo.errors,
        "P95": slo.p95 * 1000,
        "P99": slo.p99 * 1000,
    }
    return {name: f"{value:g}" for name, value in given.items()}


def measure(name: str, app: App, url: str, settings: Mapping[str, str]) -> Measured:
    """Run k6 to its end, or until a limit can't be kept any more.

    Raises:
        RunError: it could not measure, which says nothing of what it was to ask.
    """
    if not shutil.which("k6"):
        raise RunError("no `k6` on PATH to measure with; run `python3 -m lab up load`, or install it")
    REPORTS.mkdir(exist_ok=True)
    summary, answers = REPORTS / f"{name}.json", REPORTS / f"{name}.txt"
    given = {"URL": url, "VISITS": json.dumps(app.visits), "SUMMARY": str(summary)}
    # The port of k6's own API would be the same for two that run beside each other.
    words = ["--quiet", "--no-usage-report", "--address", "", "--log-format", "raw", "--console-output", str(answers)]
    done = subprocess.run(
        ["k6", "run", *words, str(SCRIPT)], env={**os.environ, **given, **settings}, capture_output=True, text=True
    )
    if done.returncode not in (0, BEYOND):
        raise RunError(f"k6 could not measure {url}, so nothing was decided: {(done.stderr or done.stdout).strip()}")
    told = tuple(dict.fromkeys(answers.read_text().splitlines()))[:5] if answers.exists() else ()
    return Measured(summary=json.loads(summary.read_text()), beyond=done.returncode == BEYOND, answers=told)


def outputs(stack: str) -> dict[str, Any]:
    """Return the stack's outputs, with `live`, `url` and `release` among them.

    Raises:
        RunError: nothing is live there.
    """
    known = json.loads(pulumi("stack", "output", "--json", "--stack", stack))
    if known.get("live") not in [*Slot] or not all(isinstance(known.get(key), str) for key in ("url", "release")):
        raise RunError(f"nothing is live on stack {stack}; run `make up ENV={stack}`")
    return known


def _slo(environment: Environment, window: str) -> Slo:
    if not window:
        return environment.slo
    try:
        return environment.slo.model_copy(update={"window": TypeAdapter[float](Seconds).validate_python(window)})
    except ValidationError as error:
        raise ConfigError(f"--window: {error.errors()[0]['msg']}") from None


def main(verb: str, stack: str, slot: str = "", window: str = "") -> None:
    """Do what a verb is for; an empty window is the environment's own.

    Raises:
        ConfigError: the window is no time, or the files can't be used.
        RunError: the environment is not what it should be.
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
