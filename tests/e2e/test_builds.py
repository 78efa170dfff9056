"""Tests of builds with options: a Dockerfile in a subfolder of the build context, build arguments and a stage.

Two services are built from one Dockerfile with different arguments. On Docker the provider builds the images, on Kubernetes
`make images` does. The tests run in file order, from the first deployment to the removal.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stack import DockerStack, Stack, create_board, deployment

VARIANTS = Path(__file__).parent / "variants"
TEXT = "red \"or\" blue $HOME `id` 'x'"
"""Build argument that a shell would change."""


def describe(stack: Stack) -> None:
    """Replace the board by two static services that are built from one Dockerfile."""
    shutil.copytree(VARIANTS, stack.app_folder / "variants")
    for key in list(stack.app):
        if key not in ("name", "version"):
            del stack.app[key]
    build = {"context": "variants", "dockerfile": "docker/site.Dockerfile"}
    stack.app |= {
        "web": {"build": {**build, "args": {"COLOUR": TEXT, "BASE": "yes"}}, "port": 8080},
        "api": {"build": {**build, "target": "plain", "args": {"COLOUR": "green"}}, "port": 8080},
    }
    stack.environment["tiers"] = {}
    stack.environment.pop("monitoring", None)


@pytest.fixture(scope="module", params=["docker", pytest.param("kubernetes", marks=pytest.mark.long)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = create_board(request.param, tmp_path_factory.mktemp("builds"), "e2e-builds")
    describe(stack)
    with deployment(stack):
        yield stack


def test_services_with_the_same_dockerfile_have_their_own_build_arguments(stack: Stack) -> None:
    assert stack.get("/").text == f"{TEXT}, yes\n"
    assert stack.get("/api/").text == "green, none\n"
    assert set(stack.up().changes) == {"unchanged"}


def test_image_is_built_from_the_configured_stage_and_without_ignored_files(stack: Stack) -> None:
    assert stack.get("/stage").text == "marked\n"
    assert stack.get("/context/note.txt").text == (VARIANTS / "note.txt").read_text()
    assert stack.get("/context/docker/ignored.txt").status_code == 404


def test_make_build_and_the_provider_build_the_same_images(stack: Stack) -> None:
    if not isinstance(stack, DockerStack):
        pytest.skip("the provider builds images only on Docker")
    output = stack.run_ci("images", "--build")
    images = [line.strip().removesuffix(": built") for line in output.splitlines() if line.endswith(": built")]
    pages = [
        stack.engine.containers.run(image, ["cat", "/pages/index.html"], entrypoint=[], remove=True) for image in images
    ]
    assert sorted(pages) == sorted([f"{TEXT}, yes\n".encode(), b"green, none\n"])
    assert set(stack.up().changes) == {"unchanged"}


def test_changed_build_argument_is_a_new_release(stack: Stack) -> None:
    release = stack.serving_release()
    stack.app["web"]["build"]["args"]["COLOUR"] = "black"
    stack.build_images()
    stack.up()
    assert stack.get("/").text == "black, yes\n"
    assert stack.serving_release() != release


def test_missing_dockerfile_is_refused_and_live_is_unchanged(stack: Stack) -> None:
    release = stack.serving_release()
    stack.app["web"]["build"]["dockerfile"] = "docker/none.Dockerfile"
    refused = stack.up(check=False)
    stack.app["web"]["build"]["dockerfile"] = "docker/site.Dockerfile"
    assert refused.code
    assert "app.web.build.dockerfile: variants has no file docker/none.Dockerfile" in refused.text
    assert stack.serving_release() == release
