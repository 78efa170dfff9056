"""Tests of `make new`: the new files are valid, show every option, and stay valid if a user uncomments an option."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi import RunError
from pydantic import BaseModel, ValidationError

from ci import new
from components.config import App, ConfigError, Environment, load_app, load_environment
from components.reference import commented_yaml

from .program import environment, project

CONFIGURATIONS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (App, project()),
    (App, {"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}}),
    *((Environment, environment(stack)) for stack in ("dev", "staging", "prod")),
]
OPTION = re.compile(
    r"(?P<indent> *)(?P<mark># )?(?P<inner> *)(?P<item>- )?(?P<key>\w+):(?: (?P<value>[^ #].*?))?(?: +# .*)?"
)
"""Regular expression of a line with an option. The group `mark` matches the `# ` of an option that is commented out."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty repository. Mock the encryption of secrets."""
    monkeypatch.setattr(new, "ROOT", tmp_path)
    monkeypatch.setattr(
        new, "encrypted_secrets", lambda project, values: f"  {project}:secrets: {{{', '.join(values)}}}\n"
    )
    return tmp_path


def read(text: str) -> Any:
    """Parse YAML with libyaml for speed, because the tests parse a long text once for each option."""
    return yaml.load(text, yaml.CSafeLoader)


def uncommented_options(text: str) -> Iterator[tuple[list[str], object, str]]:
    """Yield each commented-out option in `text`: its path, its default, and a copy of `text` with the option set.

    In the copy, only this option and its parents are uncommented.
    """
    lines = text.splitlines()
    options = [OPTION.fullmatch(line) for line in lines]
    parents: list[tuple[int, int, str]] = []  # Line number, column and key of each parent of the current line.
    for number, option in enumerate(options):
        if option is None:  # The line has no key, such as an item of a list.
            continue
        column = len(f"{option['indent']}{option['inner']}{option['item'] or ''}")
        parents = [entry for entry in parents if entry[1] < column]
        # All keys of a list item have the line with the dash as their parent.
        parents += [(number, column - 1, "")] if option["item"] else []
        parents += [(number, column, option["key"])]
        if option["mark"] and option["value"]:
            uncommented_lines = {entry for entry, *_ in parents}
            uncommented = [
                line.replace("# ", "", 1) if at in uncommented_lines and _is_commented(options[at]) else line
                for at, line in enumerate(lines)
            ]
            yield [key for *_, key in parents if key], read(option["value"]), "\n".join(uncommented)


def _is_commented(option: re.Match[str] | None) -> bool:
    return bool(option and option["mark"])


@pytest.mark.parametrize(("model", "configuration"), CONFIGURATIONS)
class TestEveryOption:
    def test_generated_file_with_commented_out_options_equals_the_configuration(
        self, model: type[BaseModel], configuration: dict[str, Any]
    ) -> None:
        generated = read(commented_yaml(model, configuration))
        assert model.model_validate(generated) == model.model_validate(configuration)

    def test_generated_file_shows_every_option_of_the_configuration_model(
        self, model: type[BaseModel], configuration: dict[str, Any]
    ) -> None:
        shown_keys = set(re.findall(r"^ *(?:# *)?(?:- )?(\w+):", commented_yaml(model, configuration), re.MULTILINE))
        schema = model.model_json_schema()
        parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
        assert {key for part in parts for key in part["properties"]} <= shown_keys

    def test_generated_file_stays_valid_if_a_user_uncomments_an_option(
        self, model: type[BaseModel], configuration: dict[str, Any]
    ) -> None:
        options = list(uncommented_options(commented_yaml(model, configuration)))
        assert len(options) > 15
        for path, default, text in options:
            value = read(text)
            for part in path:
                value = value[part] if isinstance(value, dict) else value[-1][part]
            assert value == default, path
            try:
                model.model_validate(read(text))
            except ValidationError as error:
                # An error of the parent is accepted, because the parent may require another option that is still commented out.
                error_paths = [
                    [str(part) for part in entry["loc"] if not isinstance(part, int)] for entry in error.errors()
                ]
                assert path not in error_paths, error

    def test_uncommented_option_with_its_default_does_not_change_the_configuration(
        self, model: type[BaseModel], configuration: dict[str, Any]
    ) -> None:
        before = commented_yaml(model, configuration)
        validated = model.model_validate(configuration)
        for path, _, text in uncommented_options(before):
            changes_one_line = (
                sum(one != other for one, other in zip(before.splitlines(), text.splitlines(), strict=True)) == 1
            )
            if changes_one_line:
                assert model.model_validate(read(text)) == validated, path


class TestNewApplication:
    def test_new_application_is_a_copy_of_the_starter_with_the_new_name(self, repository: Path) -> None:
        new.main("shop")
        folder = repository / "apps" / "shop"
        configuration = yaml.safe_load((folder / "Pulumi.yaml").read_text())
        assert (configuration["name"], configuration["main"]) == ("shop", "../..")
        app = load_app(configuration["config"]["app"]["value"])
        assert app.name == "shop"
        for stack in new.STACKS:
            settings = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
            load_environment({**settings["shop:environment"], "pinned": False}, app)
            assert ("shop:secrets" in settings) == (stack == "dev")
        copied_files = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
        assert {
            Path("api/Dockerfile"),
            Path("api/.dockerignore"),
            Path("web/nginx.conf"),
            Path("README.md"),
        } <= copied_files
        assert not [file for file in copied_files if new.STARTER.name in (folder / file).read_text()]

    def test_new_application_in_another_folder_finds_the_virtual_environment(self, repository: Path) -> None:
        new.main("shop", "teams/one/shop")
        configuration = yaml.safe_load((repository / "teams" / "one" / "shop" / "Pulumi.yaml").read_text())
        assert configuration["runtime"]["options"]["virtualenv"] == "../../../.venv"

    @pytest.mark.parametrize("name", ["on", "null", "no"])
    def test_application_name_that_is_a_yaml_keyword_is_quoted(self, name: str, repository: Path) -> None:
        new.main(name)
        assert load_app(
            yaml.safe_load((repository / "apps" / name / "Pulumi.yaml").read_text())["config"]["app"]["value"]
        )

    @pytest.mark.parametrize("name", ["", "Shop", "shop_1", "1shop", "-", "a: b", "../x", "a" * 31])
    def test_new_application_with_an_invalid_name_is_refused_and_no_file_is_written(
        self, name: str, repository: Path
    ) -> None:
        with pytest.raises(ConfigError, match=r"^NAME: .*; "):
            new.main(name)
        assert not list(repository.iterdir())

    @pytest.mark.parametrize(
        ("at", "reason"),
        [("there", "already exists"), ("../there", "not a folder inside this"), (".", "not a folder inside this")],
    )
    def test_new_application_in_an_existing_folder_or_outside_of_the_repository_is_refused(
        self, at: str, reason: str, repository: Path
    ) -> None:
        (repository / "there").mkdir()
        with pytest.raises(RunError, match=reason):
            new.main("shop", at)
        assert not list((repository / "there").iterdir())

    def test_new_application_gets_a_free_gateway_port(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            monkeypatch.setattr(new, "FIRST_PORT", server.getsockname()[1])
            new.main("shop")
            settings = yaml.safe_load((repository / "apps" / "shop" / "Pulumi.dev.yaml").read_text())["config"]
            assert settings["shop:environment"]["gateway"]["port"] > server.getsockname()[1]


def test_starter_application_is_valid() -> None:
    configuration = yaml.safe_load((new.STARTER / "Pulumi.yaml").read_text())["config"]["app"]["value"]
    app = load_app(configuration)
    for stack in new.STACKS:
        settings = yaml.safe_load((new.STARTER / f"Pulumi.{stack}.yaml").read_text())["config"]
        load_environment({**settings["starter:environment"], "pinned": False}, app)


# ---------------------------------------------------------------------- names and folders that can't be used


@pytest.mark.parametrize("name", ["board", "starter"])
def test_new_application_with_the_name_of_an_existing_project_is_refused(name: str) -> None:
    at = "./Pulumi.yaml" if name == "board" else f"./examples/{name}/Pulumi.yaml"
    with pytest.raises(RunError, match=f"^NAME: {re.escape(at)} already has the name {name}; choose another name$"):
        new.main(name, "apps/of-another-name")


def test_new_application_with_a_name_that_exists_in_apps_is_refused(repository: Path) -> None:
    new.main("shop")
    with pytest.raises(
        RunError, match=r"^NAME: \./apps/shop/Pulumi\.yaml already has the name shop; choose another name$"
    ):
        new.main("shop", "apps/other")


def test_new_application_is_created_although_other_project_files_are_unreadable(repository: Path) -> None:
    for name, content in (("a", b"\xff"), ("b", b"name: ["), ("c", b"- x"), ("d", b"")):
        (repository / "apps" / name).mkdir(parents=True)
        (repository / "apps" / name / "Pulumi.yaml").write_bytes(content)
    new.main("shop")
    assert (repository / "apps" / "shop" / "Pulumi.yaml").is_file()


@pytest.mark.parametrize(
    "at", ["file", "file/below", "loop", "a" * 300, "a\0b", "..", "/etc/x", ".", "-x", "~", "~/x", "a\nb", "\udcff"]
)
def test_new_application_in_a_folder_that_can_not_be_created_is_refused_in_one_line(repository: Path, at: str) -> None:
    (repository / "file").write_text("")
    (repository / "loop").symlink_to("loop")
    with pytest.raises(RunError) as error:
        new.main("shop", at)
    assert str(error.value).startswith("AT: ")
    assert "; " in str(error.value) and "\n" not in str(error.value)


def test_folder_of_a_new_application_is_quoted_in_the_printed_commands_if_its_name_has_a_space(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new.main("shop", "apps/my shop")
    assert "make up APP='apps/my shop' " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "Shop", "a b", "x" * 31, "-x", "on/off", "\0", "日本"])
def test_new_application_with_a_name_that_is_no_project_name_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME: .*; "):
        new.main(name)
