"""Each application of examples/ on either platform: up from empty, used, edited, released, rolled back and removed, in this order.

seen.py records the results for the matrix in examples/README.md, and ci/matrix.py renders it.
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

from .engines import another_engine
from .examples import EXAMPLES, PLATFORMS, Edit, Example
from .load import journey, journeys
from .stack import ROOT, ClusterStack, DockerStack, Stack, eventually, free_ports

SHORT = ("pmanager", "docker")
"""Application and platform of the short run."""
RUNS = [
    pytest.param(
        (example, platform),
        id=f"{example.name}-{platform}",
        marks=() if (example.name, platform) == SHORT else pytest.mark.long,
    )
    for example in EXAMPLES
    for platform in PLATFORMS
]
SEEN_WITHIN, TRIES = 3, 3
Keep = Callable[[str, object], None]


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Example, Stack]]:
    """Yield an application and its stack. The first test deploys it, with its own files except for the name and the port."""
    example, platform = request.param
    folder, at = tmp_path_factory.mktemp(example.name), f"examples/{example.name}"
    stack = DockerStack(folder, "e2e-row", at=at) if platform == "docker" else ClusterStack(folder, "e2e-row", at=at)
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
    """Request a page repeatedly beside the block, and yield a list that receives the seconds until the first page."""
    took: list[float] = []
    started, done = time.monotonic(), threading.Event()

    def ask() -> None:
        while not (took or done.wait(0.1)):
            try:
                if requests.get(f"{url}/", headers=headers, timeout=5, verify=False).status_code == 200:
                    took.append(round(time.monotonic() - started, 1))
            except requests.RequestException:
                pass

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        done.set()
        asking.join()


def test_up_from_empty(stack: Stack, record_property: Keep) -> None:
    stack.images()
    with first_page(stack.url, dict(stack.headers)) as took:
        stack.up()
    record_property("first page", took[0])
    assert stack.answers() == stack.outputs()["release"]


def test_its_own_checks(stack: Stack) -> None:
    try:
        print(f"\n{stack.ci('check')}")
    except subprocess.CalledProcessError as failed:
        pytest.fail(f"{failed.stdout}{failed.stderr}")


def test_journey(stack: Stack) -> None:
    k6, seen = journey(stack)
    assert k6.wait(120) == 0, seen
    assert seen.lost_nothing(), seen


def test_seed_in_dev_only(example: Example, stack: Stack) -> None:
    assert bool(stack.environment.get("seed")) == isinstance(stack, DockerStack)
    assert example.seeded(stack) == isinstance(stack, DockerStack)


def test_hot_reload_in_dev_only(example: Example, stack: Stack, record_property: Keep) -> None:
    """An edit is visible within three seconds. Where source can't be mounted, that is refused and nothing is touched."""
    if not isinstance(stack, DockerStack):
        with_source = stack.environment | {"reload": True}
        stack.environment, settings = with_source, stack.environment
        refused = stack.up(check=False)
        stack.environment = settings
        assert "source can't be mounted into a cluster" in refused.text
        return
    assert stack.environment["reload"]
    assert {edit.tier for edit in example.edits} == {"web", "api", "worker"} & set(stack.app)
    for edit in example.edits:
        # A machine that is busy with other work may be slow once.
        took = min(seen_after(edit, stack) for _ in range(TRIES))
        record_property(f"edit of {edit.tier}", took)
        assert took < SEEN_WITHIN, f"{edit.file}: seen after {took} s"


def seen_after(edit: Edit, stack: Stack) -> float:
    """Return the seconds until an edit is visible, and undo the edit."""
    eventually(lambda: not edit.seen(stack), 60)
    with edit.applied(stack):
        started = time.monotonic()
        eventually(lambda: edit.seen(stack), 60)
        took = time.monotonic() - started
    eventually(lambda: not edit.seen(stack), 60)
    return round(took, 1)


def test_second_up_unchanged(stack: Stack) -> None:
    assert set(stack.up().changed) == {"unchanged"}


def test_release_under_load(example: Example, stack: Stack, record_property: Keep) -> None:
    """A new version with an edit replaces the version that was built unchanged."""
    if stack.environment.get("reload"):
        stack.environment["reload"] = False
        stack.up()
    before, change = stack.answers(), example.edit("api")
    assert not change.seen(stack)
    stack.app["version"] = _after(stack.app["version"])
    with change.applied(stack):
        stack.images()
        with journeys(stack) as seen:
            stack.up()
            eventually(lambda: stack.answers() == stack.outputs()["release"] != before, 10)
            assert change.seen(stack)
    print(f"\n{seen}")
    record_property("journeys", seen.done)
    record_property("requests", seen.requests)
    assert seen.lost_nothing(), seen
    if isinstance(stack, DockerStack):
        record_property("images", sizes(stack))


def test_back_under_load(example: Example, stack: Stack, record_property: Keep) -> None:
    now, before = stack.answers(), stack.outputs()["standby"]
    with journeys(stack) as seen:
        back = stack.up(TIERS_RELEASE="previous")
        eventually(lambda: stack.answers() == before, 10)
    print(f"\n{seen}")
    record_property("journeys", seen.done)
    record_property("requests", seen.requests)
    assert "replaced" not in back.changed, "a rollback must be a switch only"
    assert stack.outputs()["standby"] == now
    assert not example.edit("api").seen(stack)
    assert seen.lost_nothing(), seen


def test_destroy_leaves_nothing(stack: Stack) -> None:
    if stack.environment.get("protect_data"):
        stack.environment["protect_data"] = False
        stack.up()
    stack.destroy()
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.left() == []


def _after(version: str) -> str:
    major, minor, _ = version.split(".")
    return f"{major}.{int(minor) + 1}.0"


def sizes(stack: DockerStack) -> dict[str, int]:
    """Return the size of each tier's image in bytes."""
    running = [container for container in stack.containers() if container.labels.get("tiers.role") == "tier"]
    return {entry.labels["tiers.tier"]: int(entry.image.attrs["Size"]) for entry in running}


@pytest.mark.long
@pytest.mark.parametrize("system", [example.name for example in EXAMPLES])
def test_from_clone_to_first_page(system: str, short: Path, record_property: Keep) -> None:
    """The engine has the base images only: images are built, and Python packages are installed."""
    with another_engine(short, 3) as host:
        engine = docker.DockerClient(base_url=host)
        names = (name.partition(":") for name in (lab_engine.BASE, *lab_engine.NAMES.values()))
        bases = [engine.images.pull(repository, tag) for repository, _, tag in names]
        record_property("bases", {base.tags[0]: base.attrs["Size"] for base in bases})
        engine.close()
        folder = short / "clone"
        state = {"DOCKER_HOST": host, "PULUMI_BACKEND_URL": f"file://{short}/state"}
        # Variables of a make that runs this test must not reach the make under test.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | state
        (short / "state").mkdir()
        settings = yaml.safe_load((ROOT / f"examples/{system}/Pulumi.dev.yaml").read_text())
        [environment] = [value for key, value in settings["config"].items() if key.endswith(":environment")]
        free_ports(environment["gateway"])

        def make(verb: str) -> str:
            return _said(["make", verb, f"APP=examples/{system}"], folder, variables)

        with first_page(f"http://127.0.0.1:{environment['gateway']['port']}") as took:
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
            (folder / f"examples/{system}/Pulumi.dev.yaml").write_text(yaml.safe_dump(settings))
            try:
                assert "answers 200" in make("up")
            finally:
                make("down")
        record_property("first page", took[0])


def _said(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
