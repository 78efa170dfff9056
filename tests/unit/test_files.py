"""Tests of reading Pulumi.yaml and stack files.

The reader refuses text that YAML parsers interpret differently. The error names file, line and path.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.config import files

PROJECT = "name: x\nruntime: python\nconfig: {app: {value: {name: x, version: '1', api: {image: 'x:1', port: 8000}}}}\n"
STACK = "config:\n  x:environment: {platform: docker}\n"


def _write_files(folder: Path, stack: str | bytes, project: str | bytes = PROJECT) -> Path:
    for name, text in {"Pulumi.yaml": project, "Pulumi.t.yaml": stack}.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def _stack_with_variable(text: str) -> str:
    return f"config:\n  x:environment:\n    tiers: {{api: {{env: {{KEY: {text}}}}}}}\n"


def _problem(folder: Path) -> str:
    problem = files.problems(folder, "t")
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01", "2024-1-1", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00", "on", "off", "yes", "no", "On", "NO",
        "22:30", "1:2", "190:20:30.15", "017", "0o17", "08", "-017", "0x1F", "0b11", "1_000", "1_0.5", "1e3", "1.5e3",
        "1.5e+3", ".5e1", ".inf", "-.inf", ".NaN", "=", "99999999999999999999", "9007199254740993", "9223372036854775808", "1e400",
    ],
)  # fmt: skip
def test_ambiguous_yaml_scalar_is_refused_with_its_quoted_form(tmp_path: Path, text: str) -> None:
    problem = _problem(_write_files(tmp_path, _stack_with_variable(text)))
    assert problem.startswith(f"Pulumi.t.yaml:3: environment.tiers.api.env.KEY: {text} is ")
    assert f'KEY: "{text}"' in problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024", 2024), ("-5", -5), ("+5", 5), ("0", 0), ("0.5", 0.5), ("1.0", 1), (".5", 0.5), ("true", True), ("FALSE", False),
        ("null", None), ("~", None), ("y", "y"), ("1.2.3", "1.2.3"), ("30s", "30s"), ("127.0.0.1:5005/board", "127.0.0.1:5005/board"),
        ('"on"', "on"), ("'2024-01-01'", "2024-01-01"), ("2024-01-01-a", "2024-01-01-a"), ("a:b", "a:b"), ("nanny", "nanny"),
    ],
)  # fmt: skip
def test_unambiguous_yaml_scalar_is_read_with_the_expected_value_and_type(
    tmp_path: Path, text: str, value: object
) -> None:
    folder = _write_files(tmp_path, _stack_with_variable(text))
    assert not files.problems(folder, "t")
    [result] = files.read_stack(folder, "t", "x").environment["tiers"]["api"]["env"].values()
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("stack", "problem"),
    [
        ("", "Pulumi.t.yaml: the file is empty"),
        ("# nothing\n", "Pulumi.t.yaml: the file is empty"),
        ("config:\n", "Pulumi.t.yaml:1: the key x:environment is missing; add this key under config"),
        ("encryptionsalt: v1:x\n", "Pulumi.t.yaml: the key x:environment is missing; add this key under config"),
        ("- a\n", "Pulumi.t.yaml: the file is not a mapping"),
        ("text\n", "Pulumi.t.yaml: the file is not a mapping"),
        ("config: 5\n", "Pulumi.t.yaml:1: config: it is not a mapping"),
        ("config:\n\tx:environment: {}\n", "Pulumi.t.yaml:2: it is not YAML (found character '\\t' that cannot start any token)"),
        ("config:\n  a: b: c\n", "Pulumi.t.yaml:2: it is not YAML (mapping values are not allowed here)"),
        ("config: [1\n", "Pulumi.t.yaml:2: it is not YAML"),
        ("config: \x00\n", "Pulumi.t.yaml: the file has characters that YAML does not allow"),
        (b"config: \xe9\n", "Pulumi.t.yaml:1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \xff\n", "Pulumi.t.yaml:2: byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbfconfig:\n", "Pulumi.t.yaml:1: the file begins with a byte order mark"),
        ("config:\n".encode("utf-16"), "Pulumi.t.yaml:1: the file begins with a byte order mark"),
        ("config:\n  x:environment: text\n", "Pulumi.t.yaml:2: environment: it is not a mapping"),
        ("config:\n  y:environment: {platform: docker}\n", "Pulumi.t.yaml:2: the key is y:environment, but the project is x; rename the key to x:env"),
        ("config:\n  environment: {platform: docker}\n", "Pulumi.t.yaml:2: the key is environment, but the project is x; rename the key to x:env"),
        ("config:\n  x:app: {}\n  x:environment: {}\n", "Pulumi.t.yaml:2: app: the application is the same in every environment"),
        ("config:\n  x:environment:\n    seed: true\n    seed: true\n", "Pulumi.t.yaml:4: environment.seed: line 3 already has this key"),
        ("config:\n  x:environment: {}\nconfig: {}\n", "Pulumi.t.yaml:3: config: line 1 already has this key; remove one of the two"),
        ("config:\n  x:environment: {1: a}\n", 'Pulumi.t.yaml:2: environment.1: the key 1 is a number or a boolean to YAML; write it in quotes: "1"'),
        ("config:\n  x:environment: {on: a}\n", "Pulumi.t.yaml:2: environment.on: the key on is true or false to some readers"),
        ("config:\n  x:environment: {? [a] : b}\n", "Pulumi.t.yaml:2: environment: a key is not a plain text"),
        ("config:\n  x:environment: &a {b: *a}\n", "Pulumi.t.yaml:2: the alias *a is inside its own anchor &a, so the value would contain itself"),
        ("config:\n  x:environment: {b: *a}\n", "Pulumi.t.yaml:2: *a refers to a missing anchor"),
        ("config:\n  x:environment: {b: !!python/name:os.system x}\n", "Pulumi.t.yaml:2: YAML readers treat the tag tag:yaml.org,2002:python/name:os.system differently"),
        ("config: {}\n---\nconfig: {}\n", "Pulumi.t.yaml:2: a second YAML document begins"),
        ("config:\n  x:environment: {seed: {secure: 'v1:a:b'}}\n", "Pulumi.t.yaml:2: environment.seed: it is an encrypted value (a mapping with the single key `secure`)"),
        ("secretsprovider: [a]\n" + STACK, "Pulumi.t.yaml:1: secretsprovider: it is not a text"),
        ("config:\n  x:environment: " + "[" * 2000 + "]" * 2000 + "\n", "Pulumi.t.yaml:2: this value is nested more than 50 levels deep"),
        ("config:\n" + "".join(f"{' ' * depth}a:\n" for depth in range(2, 900)), "this value is nested more than 50 levels deep"),
        ("config: {x:environment: {}, a: " + "x" * files.LIMIT + "}\n", "Pulumi.t.yaml: the file has more than 2 MiB"),
    ],
)  # fmt: skip
def test_error_about_an_invalid_stack_file_is_one_line_with_file_name_line_number_and_path(
    tmp_path: Path, stack: str | bytes, problem: str
) -> None:
    assert problem in _problem(_write_files(tmp_path, stack))


@pytest.mark.parametrize(
    ("project", "problem"),
    [
        ("", "Pulumi.yaml: the file is empty"),
        ("runtime: python\n", "Pulumi.yaml: name: the project has no name"),
        ("name: 5\n", "Pulumi.yaml:1: name: the project has no name"),
        ("name: x\n", "Pulumi.yaml: app: it has no value; describe the application under config.app.value"),
        ("name: x\nconfig: {app: text}\n", "Pulumi.yaml:2: app: it has no value"),
        ("name: x\nconfig: {app: {default: a}}\n", "Pulumi.yaml:2: app: it has no value"),
        ("name: x\nconfig: []\n", "Pulumi.yaml:2: config: it is not a mapping"),
        ("name: x\nconfig: {x:app: {value: {}}}\n", "Pulumi.yaml:2: app: the key must be app, without the project's name"),
        ("name: x\nconfig: {app: {value: {}}, environment: {value: {}}}\n", "Pulumi.yaml:2: environment: an environment belongs"),
        ("name: x\nconfig: {app: {value: {version: 2024-01-01}}}\n", "Pulumi.yaml:2: app.version: 2024-01-01 is a date to YAML"),
    ],
)  # fmt: skip
def test_error_about_an_invalid_project_file_is_one_line_with_file_name_line_number_and_path(
    tmp_path: Path, project: str, problem: str
) -> None:
    assert problem in _problem(_write_files(tmp_path, STACK, project))


def test_provider_settings_and_encrypted_secrets_in_a_stack_file_are_not_checked(tmp_path: Path) -> None:
    text = (
        "secretsprovider: awskms://alias/x?region=eu-central-1\nencryptedkey: abc\nencryptionsalt: v1:a=:v1:b:c\n"
        "config:\n  docker:host: on\n  kubernetes:context: 017\n  x:environment: {platform: docker}\n"
        "  x:secrets: {a: {secure: v1:a:b}}\n"
    )
    stack = files.read_stack(_write_files(tmp_path, text), "t", "x")
    assert stack.environment == {"platform": "docker"}
    assert (stack.secretsprovider, stack.salt) == ("awskms://alias/x?region=eu-central-1", "v1:a=:v1:b:c")


def test_yaml_alias_is_read_as_the_value_of_its_anchor(tmp_path: Path) -> None:
    text = "config:\n  x:environment: {tiers: {api: &a {cpu: 1}, web: *a}}\n"
    assert files.read_stack(_write_files(tmp_path, text), "t", "x").environment["tiers"]["web"] == {"cpu": 1}


def test_yaml_aliases_that_expand_to_millions_of_values_are_refused(tmp_path: Path) -> None:
    levels = "".join(
        f"  {name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    problem = _problem(_write_files(tmp_path, f"config:\n  a: &a [1, 2]\n{levels}"))
    assert "values after its aliases are expanded" in problem


def test_yaml_text_with_the_escape_of_a_unicode_surrogate_is_refused(tmp_path: Path) -> None:
    assert "is only half of a character; write the character itself" in _problem(
        _write_files(tmp_path, _stack_with_variable('"\\ud800\\udc00"'))
    )


def _delete(path: Path) -> None:
    path.unlink()


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_circular_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [_delete, _replace_by_folder, _replace_by_circular_link, _replace_by_pipe])
def test_stack_file_that_is_missing_or_not_a_regular_file_is_refused(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(_write_files(tmp_path, STACK) / "Pulumi.t.yaml")
    with pytest.raises(
        files.FileError, match=r"^(there is no Pulumi\.t\.yaml; set ENV to|Pulumi\.t\.yaml: (it|the file) )"
    ):
        files.read_stack(tmp_path, "t", "x")


_TEXTS = st.text(max_size=20) | st.from_regex(r"[-+]?[0-9._:eExoTZ-]{1,12}", fullmatch=True)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(_TEXTS, _PLAIN, max_size=4))
def test_document_written_by_the_yaml_dumper_is_read_back_unchanged(
    value: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    for text in (yaml.dump(value, Dumper=files.Dumper), files.as_json(value)):
        file.write_text(text)
        assert files.read(file) == (value or {})


@pytest.mark.parametrize(
    "value",
    ["1e3", "1e-5", "12e03", "08", "0o8", "0o17", "017", "on", "22:30", "2024-01-01", "1_000", "=", "y", "", "~", "1", "true",
     "\x85x", "a\u2028b", "\ufeffx", "\x7f", "-.0", "\U0001f600", "a\nb", "a: b", 1e-05, 0.0000123, 1e10, 0.5, 3, True],
)  # fmt: skip
def test_unusual_value_written_to_a_yaml_file_is_read_back_unchanged(tmp_path: Path, value: object) -> None:
    document = {"value": value, "list": [value], **({value: "key"} if isinstance(value, str) and value else {})}
    for text in (
        yaml.dump(document, Dumper=files.Dumper),
        yaml.dump(document, Dumper=files.Dumper, allow_unicode=True, default_flow_style=True),
        files.as_json(document),
    ):
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        assert files.read(tmp_path / "x.yaml") == document


@pytest.mark.parametrize("key", ["a\\nb", "\\ufeff", "\\e[31m", "\\u202e", "x" * 500])
def test_error_about_a_yaml_key_with_control_characters_is_one_printable_line(tmp_path: Path, key: str) -> None:
    problem = _problem(_write_files(tmp_path, f'config:\n  x:environment:\n    "{key}": on\n'))
    assert problem.isprintable()
    assert len(problem) < 300
