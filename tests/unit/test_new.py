"""`make new`: its files are valid as written, show every option, and stay valid with any option uncommented."""

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
from components.reference import commented

from .program import environment, project

DESCRIBED: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (App, project()),
    (App, {"name": "x", "version": "1", "api": {"image": "x:1", "port": 8000}, "database": {}}),
    *((Environment, environment(stack)) for stack in ("dev", "staging", "prod")),
]
OPTION = re.compile(
    r"(?P<indent> *)(?P<mark># )?(?P<inner> *)(?P<item>- )?(?P<key>\w+):(?: (?P<value>[^ #].*?))?(?: +# .*)?"
)
"""One line of a generated file. The mark comments an option out."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up an empty folder for applications, with a stand-in for the encryption of secrets."""
    monkeypatch.setattr(new, "ROOT", tmp_path)
    monkeypatch.setattr(new, "sealed", lambda project, values: f"  {project}:secrets: {{{', '.join(values)}}}\n")
    return tmp_path


def read(text: str) -> Any:
    """Parse with libyaml, because long texts are parsed for each of their options."""
    return yaml.load(text, yaml.CSafeLoader)


def taken_up(text: str) -> Iterator[tuple[list[str], object, str]]:
    """Yield each option that is commented out: its path, its default, and the text with the option and its parents uncommented."""
    lines = text.splitlines()
    options = [OPTION.fullmatch(line) for line in lines]
    above: list[tuple[int, int, str]] = []  # Parents of a line: line number, column, key.
    for number, option in enumerate(options):
        if option is None:  # This is an item of a list that is set.
            continue
        column = len(f"{option['indent']}{option['inner']}{option['item'] or ''}")
        above = [entry for entry in above if entry[1] < column]
        # Later keys in an item of a list belong to the line with the dash.
        above += [(number, column - 1, "")] if option["item"] else []
        above += [(number, column, option["key"])]
        if option["mark"] and option["value"]:
            taken = {entry for entry, *_ in above}
            uncommented = [
                line.replace("# ", "", 1) if at in taken and _is_out(options[at]) else line
                for at, line in enumerate(lines)
            ]
            yield [key for *_, key in above if key], read(option["value"]), "\n".join(uncommented)


def _is_out(option: re.Match[str] | None) -> bool:
    return bool(option and option["mark"])


@pytest.mark.parametrize(("model", "described"), DESCRIBED)
class TestEveryOption:
    def test_written_options_equal_the_given_ones(self, model: type[BaseModel], described: dict[str, Any]) -> None:
        written = read(commented(model, described))
        assert model.model_validate(written) == model.model_validate(described)

    def test_every_option_of_the_model_is_shown(self, model: type[BaseModel], described: dict[str, Any]) -> None:
        shown = set(re.findall(r"^ *(?:# *)?(?:- )?(\w+):", commented(model, described), re.MULTILINE))
        schema = model.model_json_schema()
        parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
        assert {key for part in parts for key in part["properties"]} <= shown

    def test_uncommented_option_is_valid(self, model: type[BaseModel], described: dict[str, Any]) -> None:
        options = list(taken_up(commented(model, described)))
        assert len(options) > 15
        for path, default, text in options:
            value = read(text)
            for part in path:
                value = value[part] if isinstance(value, dict) else value[-1][part]
            assert value == default, path
            try:
                model.model_validate(read(text))
            except ValidationError as error:
                # Its parent may require another option, too; the option itself must have no error.
                places = [[str(part) for part in entry["loc"] if not isinstance(part, int)] for entry in error.errors()]
                assert path not in places, error

    def test_uncommented_default_changes_nothing(self, model: type[BaseModel], described: dict[str, Any]) -> None:
        before = commented(model, described)
        validated = model.model_validate(described)
        for path, _, text in taken_up(before):
            alone = sum(one != other for one, other in zip(before.splitlines(), text.splitlines(), strict=True)) == 1
            if alone:
                assert model.model_validate(read(text)) == validated, path


class TestNewApplication:
    def test_new_application_is_the_starter_with_the_new_name(self, repository: Path) -> None:
        new.main("shop")
        folder = repository / "apps" / "shop"
        described = yaml.safe_load((folder / "Pulumi.yaml").read_text())
        assert (described["name"], described["main"]) == ("shop", "../..")
        app = load_app(described["config"]["app"]["value"])
        assert app.name == "shop"
        for stack in new.STACKS:
            settings = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
            load_environment({**settings["shop:environment"], "pinned": False}, app)
            assert ("shop:secrets" in settings) == (stack == "dev")
        copied = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
        assert {Path("api/Dockerfile"), Path("api/.dockerignore"), Path("web/nginx.conf"), Path("README.md")} <= copied
        assert not [file for file in copied if new.STARTER.name in (folder / file).read_text()]

    def test_new_application_in_another_folder_finds_the_virtual_environment(self, repository: Path) -> None:
        new.main("shop", "teams/one/shop")
        described = yaml.safe_load((repository / "teams" / "one" / "shop" / "Pulumi.yaml").read_text())
        assert described["runtime"]["options"]["virtualenv"] == "../../../.venv"

    @pytest.mark.parametrize("name", ["on", "null", "no"])
    def test_name_that_is_a_yaml_word_is_quoted(self, name: str, repository: Path) -> None:
        new.main(name)
        assert load_app(
            yaml.safe_load((repository / "apps" / name / "Pulumi.yaml").read_text())["config"]["app"]["value"]
        )

    @pytest.mark.parametrize("name", ["", "Shop", "shop_1", "1shop", "-", "a: b", "../x", "a" * 31])
    def test_invalid_name_is_refused_and_writes_no_file(self, name: str, repository: Path) -> None:
        with pytest.raises(ConfigError, match=r"^NAME: .*; "):
            new.main(name)
        assert not list(repository.iterdir())

    @pytest.mark.parametrize(
        ("at", "why"), [("there", "there already"), ("../there", "not in this"), (".", "not in this")]
    )
    def test_existing_or_outside_folder_is_refused(self, at: str, why: str, repository: Path) -> None:
        (repository / "there").mkdir()
        with pytest.raises(RunError, match=why):
            new.main("shop", at)
        assert not list((repository / "there").iterdir())

    def test_new_application_gets_a_free_port(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            monkeypatch.setattr(new, "FIRST_PORT", taken.getsockname()[1])
            new.main("shop")
            settings = yaml.safe_load((repository / "apps" / "shop" / "Pulumi.dev.yaml").read_text())["config"]
            assert settings["shop:environment"]["gateway"]["port"] > taken.getsockname()[1]


def test_starter_is_valid() -> None:
    described = yaml.safe_load((new.STARTER / "Pulumi.yaml").read_text())["config"]["app"]["value"]
    app = load_app(described)
    for stack in new.STACKS:
        settings = yaml.safe_load((new.STARTER / f"Pulumi.{stack}.yaml").read_text())["config"]
        load_environment({**settings["starter:environment"], "pinned": False}, app)


# ---------------------------------------------------------------------- names and folders that can't be used


@pytest.mark.parametrize("name", ["board", "starter"])
def test_name_of_a_project_of_this_repository_is_refused(name: str) -> None:
    at = "./Pulumi.yaml" if name == "board" else f"./examples/{name}/Pulumi.yaml"
    with pytest.raises(RunError, match=f"^NAME: {re.escape(at)} is project {name}; take another$"):
        new.main(name, "apps/of-another-name")


def test_name_of_an_application_in_apps_is_refused(repository: Path) -> None:
    new.main("shop")
    with pytest.raises(RunError, match=r"^NAME: \./apps/shop/Pulumi\.yaml is project shop; take another$"):
        new.main("shop", "apps/other")


def test_unreadable_project_does_not_block_a_name(repository: Path) -> None:
    for name, content in (("a", b"\xff"), ("b", b"name: ["), ("c", b"- x"), ("d", b"")):
        (repository / "apps" / name).mkdir(parents=True)
        (repository / "apps" / name / "Pulumi.yaml").write_bytes(content)
    new.main("shop")
    assert (repository / "apps" / "shop" / "Pulumi.yaml").is_file()


@pytest.mark.parametrize(
    "at", ["file", "file/below", "loop", "a" * 300, "a\0b", "..", "/etc/x", ".", "-x", "~", "~/x", "a\nb", "\udcff"]
)
def test_folder_that_can_not_be_created_is_refused_in_one_line(repository: Path, at: str) -> None:
    (repository / "file").write_text("")
    (repository / "loop").symlink_to("loop")
    with pytest.raises(RunError) as error:
        new.main("shop", at)
    assert str(error.value).startswith("AT: ")
    assert "; " in str(error.value) and "\n" not in str(error.value)


def test_folder_with_a_space_is_one_word_of_the_commands_that_follow(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new.main("shop", "apps/my shop")
    assert "make up APP='apps/my shop' " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "Shop", "a b", "x" * 31, "-x", "on/off", "\0", "日本"])
def test_name_that_is_no_project_name_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^NAME: .*; "):
        new.main(name)
