"""Tests of each application in examples/ on both platforms. The tests run in file order, from the first deployment to the removal.

recorder.py records the results, and ci/matrix.py renders them as the table in examples/README.md.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import requests
import yaml

from lab import engine as lab_engine

from .engines import run_engine
from .examples import EXAMPLES, PLATFORMS, Edit, Example
from .load import start_journey, user_journeys
from .stack import ROOT, ClusterStack, DockerStack, Stack, assign_free_ports, eventually

SHORT = ("pmanager", "docker")
"""The only pair of application and platform that `make e2e SHORT=yes` tests. All other pairs have the pytest marker `long`."""
RUNS = [
    pytest.param(
        (example, platform),
        id=f"{example.name}-{platform}",
        marks=() if (example.name, platform) == SHORT else pytest.mark.long,
    )
    for example in EXAMPLES
    for platform in PLATFORMS
]
RELOAD_MEASUREMENTS = 3
RecordProperty = Callable[[str, object], None]


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Example, Stack]]:
    """Yield an application and its stack. The first test deploys the stack.

    The stack has the settings of the application's own stack file, with another name and another address.
    """
    example, platform = request.param
    folder, app_path = tmp_path_factory.mktemp(example.name), f"examples/{example.name}"
    stack = (
        DockerStack(folder, "e2e-row", app_path=app_path)
        if platform == "docker"
        else ClusterStack(folder, "e2e-row", app_path=app_path)
    )
    try:
        yield example, stack
    finally:
        stack.remove()


@pytest.fixture
def example(run: tuple[Example, Stack]) -> Example:
    return run[0]


@pytest.fixture
def stack(run: tuple[Example, Stack]) -> Stack:
    return run[1]


@contextmanager
def first_page(url: str, headers: dict[str, str] | None = None) -> Generator[list[float]]:
    """Request the page `/` while the `with` block runs, until the first answer with status 200.

    Yield a list that is empty until this answer. Then the list contains the seconds from the start of the block to the answer.
    """
    seconds: list[float] = []
    started, stop = time.monotonic(), threading.Event()

    def request_page() -> None:
        while not (seconds or stop.wait(0.1)):
            try:
                if requests.get(f"{url}/", headers=headers, timeout=5, verify=False).status_code == 200:
                    seconds.append(round(time.monotonic() - started, 1))
            except requests.RequestException:
                pass

    thread = threading.Thread(target=request_page)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()


def test_up_from_empty(stack: Stack, record_property: RecordProperty) -> None:
    """Deploy for the first time. Record the seconds until the first page, and check that users get the deployed release."""
    stack.build_images()
    with first_page(stack.url, dict(stack.headers)) as seconds:
        stack.up()
    record_property("first page", seconds[0])
    assert stack.serving_release() == stack.outputs()["release"]


def test_its_own_checks(stack: Stack) -> None:
    """Run `ci.check`, the module behind `make check`, and fail if one of its checks fails."""
    try:
        print(f"\n{stack.run_ci('check')}")
    except subprocess.CalledProcessError as failed:
        pytest.fail(f"{failed.stdout}{failed.stderr}")


def test_journey(stack: Stack) -> None:
    """Run the application's journey.js once, and check that no request and no check fails."""
    k6, counts = start_journey(stack)
    assert k6.wait(120) == 0, counts
    assert counts.lost_nothing(), counts


def test_seed_in_dev_only(example: Example, stack: Stack) -> None:
    """Check that the seed data exists on Docker (dev), and not on Kubernetes (staging)."""
    assert bool(stack.environment.get("seed")) == isinstance(stack, DockerStack)
    assert example.has_seed(stack) == isinstance(stack, DockerStack)


def test_hot_reload_in_dev_only(example: Example, stack: Stack, record_property: RecordProperty) -> None:
    """Check that an edit is visible in the same container on Docker, and that `reload` is refused on Kubernetes.

    The test records the seconds until each edit is visible, and examples/README.md shows the longest. No limit is tested,
    because the time depends on the load of the machine. `python -m benchmarks reload` compares a reload with a restart of the
    container.
    """
    if not isinstance(stack, DockerStack):
        settings = stack.environment
        stack.environment = settings | {"reload": True}
        refused = stack.up(check=False)
        stack.environment = settings
        assert "source code can't be mounted into a cluster" in refused.text
        return
    assert stack.environment["reload"]
    assert {edit.tier for edit in example.edits} == {"web", "api", "worker"} & set(stack.app)
    for edit in example.edits:
        # Take the shortest of several measurements, because the machine may be busy with other work.
        containers = stack.ids(edit.tier, "blue")
        assert containers
        seconds = min(measure_reload(edit, stack) for _ in range(RELOAD_MEASUREMENTS))
        record_property(f"edit of {edit.tier}", seconds)
        assert stack.ids(edit.tier, "blue") == containers, f"{edit.file}: the edit restarted or replaced the container"


def measure_reload(edit: Edit, stack: Stack) -> float:
    """Apply an edit, measure the seconds until it is visible, and undo the edit."""
    eventually(lambda: not edit.is_visible(stack), 60)
    with edit.apply(stack):
        started = time.monotonic()
        eventually(lambda: edit.is_visible(stack), 60)
        seconds = time.monotonic() - started
    eventually(lambda: not edit.is_visible(stack), 60)
    return round(seconds, 1)


def test_second_up_unchanged(stack: Stack) -> None:
    """Check that an update without changed files changes no resource."""
    assert set(stack.up().changes) == {"unchanged"}


def test_release_under_load(example: Example, stack: Stack, record_property: RecordProperty) -> None:
    """Release an edit of the api under load. Turn off `reload` first, because `reload` would show the edit without a release."""
    if stack.environment.get("reload"):
        stack.environment["reload"] = False
        stack.up()
    before, change = stack.serving_release(), example.edit("api")
    assert not change.is_visible(stack)
    stack.app["version"] = _next_version(stack.app["version"])
    with change.apply(stack):
        stack.build_images()
        with user_journeys(stack) as counts:
            stack.up()
            eventually(lambda: stack.serving_release() == stack.outputs()["release"] != before, 10)
            assert change.is_visible(stack)
    print(f"\n{counts}")
    record_property("journeys", counts.completed)
    record_property("requests", counts.requests)
    assert counts.lost_nothing(), counts
    if isinstance(stack, DockerStack):
        record_property("images", sizes(stack))


def test_back_under_load(example: Example, stack: Stack, record_property: RecordProperty) -> None:
    """Roll back under load. Check that the previous release serves users, and that no resource was replaced."""
    current, before = stack.serving_release(), stack.outputs()["standby"]
    with user_journeys(stack) as counts:
        back = stack.up(TIERS_RELEASE="previous")
        eventually(lambda: stack.serving_release() == before, 10)
    print(f"\n{counts}")
    record_property("journeys", counts.completed)
    record_property("requests", counts.requests)
    assert "replaced" not in back.changes, "a rollback must be a switch only"
    assert stack.outputs()["standby"] == current
    assert not example.edit("api").is_visible(stack)
    assert counts.lost_nothing(), counts


def test_destroy_leaves_nothing(stack: Stack) -> None:
    """Turn off the protection of data, destroy the stack, and check that no object remains."""
    if stack.environment.get("protect_data"):
        stack.environment["protect_data"] = False
        stack.up()
    stack.destroy()
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.leftovers() == []


def _next_version(version: str) -> str:
    major, minor, _ = version.split(".")
    return f"{major}.{int(minor) + 1}.0"


def sizes(stack: DockerStack) -> dict[str, int]:
    """Return tier → size of the tier's image in bytes."""
    running = [container for container in stack.containers() if container.labels.get("tiers.role") == "tier"]
    return {entry.labels["tiers.tier"]: int(entry.image.attrs["Size"]) for entry in running}


@pytest.mark.long
@pytest.mark.parametrize("system", [example.name for example in EXAMPLES])
def test_from_clone_to_first_page(system: str, short_folder: Path, record_property: RecordProperty) -> None:
    """Measure the time from `git clone` to the first page, on an engine that has only the base images."""
    with run_engine(short_folder, 3) as host:
        engine = docker.DockerClient(base_url=host)
        names = (name.partition(":") for name in (lab_engine.BASE, *lab_engine.NAMES.values()))
        bases = [engine.images.pull(repository, tag) for repository, _, tag in names]
        record_property("bases", {base.tags[0]: base.attrs["Size"] for base in bases})
        engine.close()
        folder = short_folder / "clone"
        state = {"DOCKER_HOST": host, "PULUMI_BACKEND_URL": f"file://{short_folder}/state"}
        # Remove the variables that an outer make has set, because the make under test must not inherit them.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | state
        (short_folder / "state").mkdir()
        settings = yaml.safe_load((ROOT / f"examples/{system}/Pulumi.dev.yaml").read_text())
        [environment] = [value for key, value in settings["config"].items() if key.endswith(":environment")]
        assign_free_ports(environment["gateway"])

        def make(verb: str) -> str:
            return _run_command(["make", verb, f"APP=examples/{system}"], folder, variables)

        with first_page(f"http://127.0.0.1:{environment['gateway']['port']}") as seconds:
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
            (folder / f"examples/{system}/Pulumi.dev.yaml").write_text(yaml.safe_dump(settings))
            try:
                assert "answers 200" in make("up")
            finally:
                make("down")
        record_property("first page", seconds[0])


def _run_command(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    process = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    assert process.returncode == 0, process.stdout
    return process.stdout
