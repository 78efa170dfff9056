"""Tests that run the commands of the GitHub workflows on the lab's cluster, in the order of the workflows.

The tests cover staging, production and the environment of a pull request.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .stack import ClusterStack, Result, eventually

pytestmark = pytest.mark.long

SLO = {"errors": 0.01, "p95": "2s", "p99": "3s", "rate": 20, "window": "10s"}
"""Service level objective (SLO) that the stack can meet even on a busy machine."""

NGINX = """sed -e "s|@RELEASE@|$RELEASE|g" -e "s|@SLOT@|$SLOT|g" -e '{change}' /etc/nginx/board.conf > /tmp/nginx.conf &&
exec nginx -c /tmp/nginx.conf -g 'daemon off;'"""
FAILS_USERS = 's|location / {|& if ($http_x_tiers_slot = "") { return 503; }|'
DELAYS_USERS = 's|location / {|& if ($http_x_tiers_slot = "") { limit_rate 150; }|'
"""sed command that edits the nginx configuration. Requests of users become slow; with `FAILS_USERS` they fail.

Requests with the header X-Tiers-Slot are not affected. The smoke test sends this header, and users don't.
"""


class Pipeline(ClusterStack):
    """A stack with one replica of each tier, and a method that runs make in its folder."""

    def __init__(self, folder: Path, name: str, template: str) -> None:
        super().__init__(folder, name, template)
        self.namespace = f"board-{name}"
        self.environment["kubernetes"]["namespace"] = {"name": self.namespace}
        self.environment |= {"slo": SLO, "protect_data": False}
        for tier in ("web", "api", "worker"):
            settings = self.environment["tiers"][tier]
            settings["replicas"] = 1
            settings.pop("autoscale", None)
        # Remove the variables that an outer make has set, because the make under test must not inherit them.
        self.variables = {name: value for name, value in self.variables.items() if not name.startswith("MAKE")}
        # Apply the policy of staging to this stack, because the policy of production requires more replicas.
        policy_settings = folder / "policy/settings.py"
        policy_settings.write_text(policy_settings.read_text().replace('"staging"', f'"staging", "{name}"'))
        self.write()

    def keep_tiers(self, *tiers: str) -> None:
        """Remove all tiers except `tiers`, to shorten the deployment."""
        for tier in {"web", "api", "worker", "database", "cache"} - {*tiers}:
            self.app.pop(tier)
            self.environment["tiers"].pop(tier, None)
        self.app["visits"] = ["/"]
        # Remove the business metrics, because they are computed from metrics of the api.
        self.app.pop("figures")
        self.write()

    def live(self) -> dict[str, str]:
        return self.get("/release.json").json()

    def remove(self) -> None:
        """Delete only the namespace. The state needs no update, because it is in the temporary folder of the test."""
        self.remove_leftovers()

    def make(self, *words: str, env: str = "", check: bool = True, **variables: str) -> Result:
        process = subprocess.run(
            ["make", "--no-print-directory", *words, f"ENV={env or self.name}"],
            cwd=self.folder, env=self.variables | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300,
        )  # fmt: skip
        assert not check or not process.returncode, process.stdout
        return Result(code=process.returncode, text=process.stdout)

    def read_report(self, name: str) -> Any:
        """Return a JSON file of the folder reports."""
        return json.loads((self.folder / "reports" / name).read_text())


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path_factory.mktemp("staging"), "e2e-pipeline", "staging")
    try:
        yield pipeline
    finally:
        pipeline.remove()


@pytest.fixture(scope="module")
def prod(staging: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("prod")
    pipeline = Pipeline(folder, "e2e-pipeline-prod", "prod")
    pipeline.keep_tiers("web")
    shutil.copy(staging.folder / "release.json", folder)
    # Start the deletion of staging now, because no later test needs staging and the deletion takes time.
    staging.kubectl("delete", "namespace", staging.namespace, "--wait=false")
    try:
        yield pipeline
    finally:
        pipeline.remove()


def test_staging_runs_the_pinned_images_and_passes_smoke_test_and_journey_and_performance_test(
    staging: Pipeline,
) -> None:
    staging.make("images", "PIN=yes")
    staging.make("pins-save")
    pinned = json.loads((staging.folder / "release.json").read_text())
    # Reset the stack file, because the next job of the workflow has only release.json and the repository.
    staging.write()
    staging.make("pins-use")
    assert "answers 200" in staging.make("up").text
    running = {pod.spec.containers[0].image for tier in ("web", "api") for pod in staging.pods(tier)}
    assert running == {pinned["environment.images.web"], pinned["environment.images.api"]}
    assert "9 requests in" in staging.make("smoke").text
    assert "the worker has summarised it, once" in staging.make("journey").text
    assert " 0 failed" in staging.make("perf").text
    assert staging.read_report("perf-e2e-pipeline.json")["metrics"]["failed"]["values"]["count"] == 0


def test_performance_test_fails_beyond_the_slo(staging: Pipeline) -> None:
    staging.environment |= yaml.safe_load(staging.settings.read_text())["config"]["board:environment"]
    staging.environment["slo"] = SLO | {"p95": "1ms"}
    staging.write()
    process = staging.make("perf", check=False)
    staging.environment["slo"] = SLO
    staging.write()
    assert process.code
    assert "stack e2e-pipeline exceeds its SLO: " in process.text
    assert " of 200 requests took longer than slo.p95, at most 10 are allowed" in process.text


def test_drift_in_the_live_slot_is_reported(staging: Pipeline) -> None:
    assert set(staging.up().changes) == {"unchanged"}
    slot = staging.live()["slot"]
    staging.make("drift")
    staging.kubectl("set", "env", f"deployment/api-{slot}", "LOG_LEVEL=changed-by-hand")
    drifted = staging.make("drift", check=False)
    assert drifted.code
    assert '"debug" => "changed-by-hand"' in (staging.folder / "reports/drift-e2e-pipeline.txt").read_text()
    assert "the resources of stack e2e-pipeline differ from its state or from its files" in drifted.text


def release_and_watch(prod: Pipeline, version: str) -> Result:
    """Run the steps of production.yml for a release that passes every gate, and return the result of `make watch`."""
    prod.app["version"] = version
    prod.write()
    before = prod.live()
    prod.make("up")
    assert prod.make("--silent", "waiting").text.startswith(f"release={version}-")
    idle = "blue" if before["slot"] == "green" else "green"
    assert f"{idle}: 3 requests in" in prod.make("smoke", "SLOT=idle").text
    assert prod.live() == before
    prod.make("promote")
    eventually(lambda: prod.live()["slot"] == idle, 5)
    return prod.make("watch", check=False)


def test_production_deploys_the_images_tested_in_staging(prod: Pipeline) -> None:
    prod.make("pins-use")
    prod.environment |= yaml.safe_load(prod.settings.read_text())["config"]["board:environment"]
    assert prod.environment["pinned"]
    assert prod.environment["release"] == {"promote": "manual"}
    prod.make("up")
    assert prod.make("--silent", "waiting").text == ""
    assert (
        "no release of stack e2e-pipeline-prod waits for promotion" in prod.make("smoke", "SLOT=idle", check=False).text
    )
    watch = release_and_watch(prod, "1.1.0")
    assert not watch.code, watch.text
    assert prod.live()["release"].startswith("1.1.0-")


@pytest.mark.parametrize(
    ("version", "change", "reason"),
    [
        ("1.2.0", FAILS_USERS, "requests failed, at most 2 are allowed"),
        ("1.3.0", DELAYS_USERS, "requests took longer than slo.p99, at most 2 are allowed"),
    ],
    ids=["fails", "slow"],
)
def test_release_beyond_its_slo_is_rolled_back_automatically(
    prod: Pipeline, version: str, change: str, reason: str
) -> None:
    """Deploy a release that fails or delays the requests of users, but not of the smoke test (`DELAYS_USERS`)."""
    before, valid = prod.live(), prod.app["web"]
    prod.app["web"] = valid | {"command": ["sh", "-c", NGINX.replace("{change}", change)]}
    watch = release_and_watch(prod, version)
    prod.app["web"] = valid
    assert watch.code
    assert reason in watch.text, watch.text
    assert f"{before['release']} is live again" in watch.text
    assert prod.live() == before
    last_switch = prod.outputs()["last_switch"]
    assert last_switch["to"] == before["release"]
    assert last_switch["who"].startswith("make watch: ")


def test_environment_of_a_pull_request_is_deployed_and_then_removed_by_make_down(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "e2e-unused", "staging")
    pipeline.keep_tiers("web", "cache")  # Keep the cache, because the test compares its password.
    pipeline.pulumi("stack", "rm", "--yes", "e2e-unused", check=True)
    template = pipeline.folder / "Pulumi.staging.yaml"
    settings = yaml.safe_load(template.read_text())
    sizes = settings["config"]["board:environment"]["tiers"]
    settings["config"]["board:environment"]["tiers"] = {tier: sizes[tier] for tier in ("web", "cache")}
    template.write_text(yaml.safe_dump(settings))
    name, file = "pr-4711", pipeline.folder / "Pulumi.pr-4711.yaml"
    pipeline.namespace = f"board-{name}"
    try:
        assert "http://board-pr-4711.localhost:8000 answers 200" in pipeline.make("up", env=name).text
        pipeline.make("smoke", env=name)
        secret = yaml.safe_load(file.read_text())["config"]["board:secrets"]["cache-password"]
        # Delete the stack file, because another run of the pipeline has only the state and the repository.
        file.unlink()
        assert set(pipeline.make("up", env=name).changes) == {"unchanged"}
        assert yaml.safe_load(file.read_text())["config"]["board:secrets"]["cache-password"] == secret
        file.unlink()
        pipeline.make("down", env=name)
        assert not file.exists()
        assert name not in pipeline.pulumi("stack", "ls", check=True).text
        assert "NotFound" in pipeline.kubectl("get", "namespace", pipeline.namespace, check=False)
    finally:
        pipeline.remove_leftovers()
