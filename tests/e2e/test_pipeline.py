"""The commands of the workflows, in their order, on the lab's cluster: staging, production, and a pull request's environment."""

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
"""An SLO loose enough for a busy machine."""

NGINX = """sed -e "s|@RELEASE@|$RELEASE|g" -e "s|@SLOT@|$SLOT|g" -e '{change}' /etc/nginx/board.conf > /tmp/nginx.conf &&
exec nginx -c /tmp/nginx.conf -g 'daemon off;'"""
FAILS_ITS_USERS = 's|location / {|& if ($http_x_tiers_slot = "") { return 503; }|'
KEEPS_ITS_USERS_WAITING = 's|location / {|& if ($http_x_tiers_slot = "") { limit_rate 150; }|'


class Pipeline(ClusterStack):
    """The smallest possible stack, with the make targets of the workflows."""

    def __init__(self, folder: Path, name: str, template: str) -> None:
        super().__init__(folder, name, template)
        self.namespace = f"board-{name}"
        self.environment["kubernetes"]["namespace"] = {"name": self.namespace}
        self.environment |= {"slo": SLO, "protect_data": False}
        for tier in ("web", "api", "worker"):
            size = self.environment["tiers"][tier]
            size["replicas"] = 1
            size.pop("autoscale", None)
        # Variables of a make that runs this test must not reach the make under test.
        self.variables = {name: value for name, value in self.variables.items() if not name.startswith("MAKE")}
        # The policy for production would refuse so few replicas.
        rules = folder / "policy/settings.py"
        rules.write_text(rules.read_text().replace('"staging"', f'"staging", "{name}"'))
        self.write()

    def only(self, *tiers: str) -> None:
        """Keep only these tiers: the test is about the path to production, and few tiers deploy quickly."""
        for tier in {"web", "api", "worker", "database", "cache"} - {*tiers}:
            self.app.pop(tier)
            self.environment["tiers"].pop(tier, None)
        self.app["visits"] = ["/"]
        self.write()

    def live(self) -> dict[str, str]:
        return self.get("/release.json").json()

    def remove(self) -> None:
        """Delete the namespace; the state goes with its folder."""
        self.clear()

    def make(self, *words: str, env: str = "", check: bool = True, **variables: str) -> Result:
        done = subprocess.run(
            ["make", "--no-print-directory", *words, f"ENV={env or self.name}"],
            cwd=self.folder, env=self.variables | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300,
        )  # fmt: skip
        assert not check or not done.returncode, done.stdout
        return Result(code=done.returncode, text=done.stdout)

    def report(self, name: str) -> Any:
        return json.loads((self.folder / "reports" / name).read_text())


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    pipeline = Pipeline(tmp_path_factory.mktemp("staging"), "pipeline", "staging")
    try:
        yield pipeline
    finally:
        pipeline.remove()


@pytest.fixture(scope="module")
def prod(staging: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("prod")
    pipeline = Pipeline(folder, "pipeline-prod", "prod")
    pipeline.only("web")
    shutil.copy(staging.folder / "release.json", folder)
    # Staging is not needed any more, and its deletion takes time.
    staging.kubectl("delete", "namespace", staging.namespace, "--wait=false")
    try:
        yield pipeline
    finally:
        pipeline.remove()


def test_staging_is_pinned_deployed_and_measured(staging: Pipeline) -> None:
    staging.make("images", "PIN=yes")
    staging.make("pins-save")
    pinned = json.loads((staging.folder / "release.json").read_text())
    # The next job has the file and the repository only.
    staging.write()
    staging.make("pins-use")
    assert "answers 200" in staging.make("up").text
    running = {pod.spec.containers[0].image for tier in ("web", "api") for pod in staging.pods(tier)}
    assert running == {pinned["environment.images.web"], pinned["environment.images.api"]}
    assert "9 requests in" in staging.make("smoke").text
    assert "the worker has summarised it, once" in staging.make("journey").text
    assert " 0 failed" in staging.make("perf").text
    assert staging.report("perf-pipeline.json")["metrics"]["failed"]["values"]["count"] == 0


def test_environment_beyond_its_slo_fails(staging: Pipeline) -> None:
    staging.environment |= yaml.safe_load(staging.settings.read_text())["config"]["board:environment"]
    staging.environment["slo"] = SLO | {"p95": "1ms"}
    staging.write()
    done = staging.make("perf", check=False)
    staging.environment["slo"] = SLO
    staging.write()
    assert done.code
    assert "stack pipeline is beyond its SLO: " in done.text
    assert " of 200 requests took longer than slo.p95, and 10 may" in done.text


def test_drift_in_the_live_slot_is_reported(staging: Pipeline) -> None:
    assert set(staging.up().changed) == {"unchanged"}
    slot = staging.live()["slot"]
    staging.make("drift")
    staging.kubectl("set", "env", f"deployment/api-{slot}", "LOG_LEVEL=changed-by-hand")
    drifted = staging.make("drift", check=False)
    assert drifted.code
    assert '"debug" => "changed-by-hand"' in (staging.folder / "reports/drift-pipeline.txt").read_text()
    assert "stack pipeline is not what it was made" in drifted.text


def release(prod: Pipeline, version: str) -> Result:
    """Run the steps of production.yml up to the promotion, for a release that passes every gate."""
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
    assert "no release waits on stack pipeline-prod" in prod.make("smoke", "SLOT=idle", check=False).text
    watched = release(prod, "1.1.0")
    assert not watched.code, watched.text
    assert prod.live()["release"].startswith("1.1.0-")


@pytest.mark.parametrize(
    ("version", "change", "why"),
    [
        ("1.2.0", FAILS_ITS_USERS, "requests failed, and 2 may"),
        ("1.3.0", KEEPS_ITS_USERS_WAITING, "requests took longer than slo.p99, and 2 may"),
    ],
    ids=["fails", "slow"],
)
def test_release_beyond_its_slo_is_rolled_back_automatically(
    prod: Pipeline, version: str, change: str, why: str
) -> None:
    """The release passes its gates and the smoke test of its slot, because its fault shows to users only."""
    before, good = prod.live(), prod.app["web"]
    prod.app["web"] = good | {"command": ["sh", "-c", NGINX.replace("{change}", change)]}
    watched = release(prod, version)
    prod.app["web"] = good
    assert watched.code
    assert why in watched.text, watched.text
    assert f"{before['release']} is live again" in watched.text
    assert prod.live() == before
    switch = prod.outputs()["last_switch"]
    assert switch["to"] == before["release"]
    assert switch["who"].startswith("make watch: ")


def test_pull_request_has_an_environment_until_it_is_closed(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "board", "unused", "staging")
    pipeline.only("web", "cache")  # The cache is kept because it has a secret.
    pipeline.pulumi("stack", "rm", "--yes", "unused", check=True)
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
        # Another run of the pipeline has the state and the repository only.
        file.unlink()
        assert set(pipeline.make("up", env=name).changed) == {"unchanged"}
        assert yaml.safe_load(file.read_text())["config"]["board:secrets"]["cache-password"] == secret
        file.unlink()
        pipeline.make("down", env=name)
        assert not file.exists()
        assert name not in pipeline.pulumi("stack", "ls", check=True).text
        assert "NotFound" in pipeline.kubectl("get", "namespace", pipeline.namespace, check=False)
    finally:
        pipeline.clear()
