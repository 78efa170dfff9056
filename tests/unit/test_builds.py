"""Tests of builds with options, from the configuration to the provider's inputs and to the engine's API."""

from typing import Any
from unittest import mock

import pytest

from ci import images
from components.model.workload import Image

from .program import IMAGE, deploy, project


def built_images(app: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry.inputs for entry in deploy(app).of_type(IMAGE) if "build" in entry.inputs]


def test_short_form_of_a_build_has_the_same_inputs_as_before_build_options_existed() -> None:
    for inputs in built_images(project()):
        assert inputs["build"].keys() <= {"context", "target", "buildArgs"}
        assert set(inputs["build"].get("buildArgs", {})) <= {"BASE"}


def test_mapping_form_of_a_build_has_the_same_images_as_the_short_form() -> None:
    app = project()
    before = built_images(app)
    app["api"]["build"] = {"context": app["api"]["build"]}
    assert built_images(app) == before


def test_two_services_with_different_build_arguments_have_their_own_images() -> None:
    app = project()
    folder = app["api"]["build"]
    app["api"]["build"] = {"context": folder, "args": {"MODE": "fast"}}
    app["worker"]["build"] = {"context": folder, "args": {"MODE": "slow"}}
    args = {inputs["name"]: inputs["build"].get("buildArgs") for inputs in built_images(app)}
    assert {"MODE": "fast"} in args.values() and {"MODE": "slow"} in args.values()


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image(reference="a:1", context="a"), {"dockerfile": None, "target": None, "buildargs": None}),
        (
            Image(reference="a:1", context="a", dockerfile="d/x", target="t", args=(("A", "1"),), base="b:1"),
            {"dockerfile": "d/x", "target": "t", "buildargs": {"A": "1", "BASE": "b:1"}},
        ),
    ],
)
def test_make_build_passes_the_options_of_a_build_to_the_engine(
    image: Image, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = mock.Mock()
    engine.images.build.return_value = (None, None)
    monkeypatch.setattr(images.docker, "from_env", lambda: engine)
    monkeypatch.setattr(images.pins, "required_images", lambda stack: {"app.api.build": image})  # pyright: ignore[reportUnknownLambdaType]
    assert images.build("dev") == ["a:1"]
    engine.images.build.assert_called_once_with(path="a", tag="a:1", rm=True, **options)
