"""Tests of Compose files that an earlier import converted wrongly.

Each folder in tests/cases/import/ has a Compose file and `expected.yml`, the expected result with these keys:

- `app`, `environment`, `secrets`: the configuration that the import writes.
- `notes`: the notes that require an action.
- `error`: the error message, if the import must refuse the Compose file. This file has no other key.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi import RunError

from ci.compose.__main__ import selected_profiles
from ci.compose.compose_service import Kind, hosts, with_host
from ci.compose.conversion import Conversion, convert
from components.config import load_app, load_environment

from .program import ROOT

CASES = ROOT / "tests" / "cases" / "import"
NAMES = sorted(folder.name for folder in CASES.iterdir())
BASE = "/srv/shop"


def normalised(case: str) -> dict[str, Any]:
    """Return the Compose file of a case with absolute paths, as Compose prints them."""
    compose: dict[str, Any] = yaml.safe_load((CASES / case / "docker-compose.yml").read_text())
    for service in compose["services"].values():
        build = service.get("build")
        if build:
            build = {"context": build} if isinstance(build, str) else build
            service["build"] = build | {"context": str(Path(BASE, build["context"]))}
        service["volumes"] = [
            f"{BASE}/{volume[2:]}" if isinstance(volume, str) and volume.startswith("./") else volume
            for volume in service.get("volumes", ())
        ]
    for secret in compose.get("secrets", {}).values():
        secret["file"] = str(Path(BASE, secret["file"]))
    return compose


def imported(case: str) -> Conversion:
    return convert(normalised(case), name="shop", base=BASE, folder=BASE, password=lambda: "generated")


def result_of(case: str) -> dict[str, Any]:
    """Return the result of an import in the form of `expected.yml`."""
    try:
        result = imported(case)
    except RunError as error:
        return {"error": str(error)}
    notes = [f"{note.path}: {note.text}" for note in result.notes if note.kind is Kind.UNCONVERTED]
    written = {"app": result.app, "environment": result.environment, "secrets": {**result.secrets, **result.files}}
    return written | {"notes": notes}


@pytest.mark.parametrize("case", NAMES)
def test_compose_case_is_imported_or_refused_with_the_expected_result(case: str) -> None:
    assert result_of(case) == yaml.safe_load((CASES / case / "expected.yml").read_text())


@pytest.mark.parametrize(
    "case",
    [name for name in NAMES if not (CASES / name / "expected.yml").read_text().startswith("error")],
)
def test_configuration_imported_from_a_compose_case_is_valid(case: str) -> None:
    result = imported(case)
    load_environment(result.environment, load_app(result.app))


@pytest.mark.parametrize(
    ("key", "value", "renamed"),
    [
        ("DB_HOST", "db", "database"),
        ("DB_USER", "db", "db"),
        ("DB_PASSWORD", "db", "db"),
        ("BROKERS", "db:9092,other:9092", "database:9092,other:9092"),
        ("DATABASE_URL", "postgres://db:db@db:5432/db", "postgres://db:db@database:5432/db"),
        ("DATABASE_URL", "postgres://db@db/db", "postgres://db@database/db"),
        ("MONGO_URL", "mongodb://u:p@one:27017,db:27017/x", "mongodb://u:p@one:27017,database:27017/x"),
        ("DSN", "host=db user=db dbname=db", "host=database user=db dbname=db"),
        ("SERVERS", "one, db", "one, database"),
        ("PREFIX", "db/v1", "db/v1"),
        ("API", "http://db", "http://database"),
        ("API", "http://db.example.com/db", "http://db.example.com/db"),
    ],
)
def test_service_name_in_a_compose_variable_is_replaced_only_where_the_name_is_a_host(
    key: str, value: str, renamed: str
) -> None:
    assert with_host(key, value, "db", "database") == renamed
    assert ("db" in {match[1] for match in hosts(key, value)}) == (value != renamed)


def test_compose_profiles_are_read_from_the_environment_variable_or_else_from_the_env_file(tmp_path: Path) -> None:
    assert selected_profiles(tmp_path, {}) == []
    (tmp_path / ".env").write_text("A=1\nCOMPOSE_PROFILES='web, data' # both\nB=COMPOSE_PROFILES=x\n")
    assert selected_profiles(tmp_path, {}) == ["web", "data"]
    assert selected_profiles(tmp_path, {"COMPOSE_PROFILES": "jobs"}) == ["jobs"]
    assert selected_profiles(tmp_path, {"COMPOSE_PROFILES": ""}) == []
