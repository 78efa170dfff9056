"""Tests that `make import` converts secrets, URLs and entrypoints so that the images of a Compose file run unchanged.

The tests fill each template as a deployment does, and compare the result with the value in the Compose file.
"""

from typing import Any
from urllib.parse import quote, unquote

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ci.compose.__main__ import note_lines
from ci.compose.compose_service import Kind
from ci.compose.conversion import Conversion, convert
from components.config import load_app, load_environment, template

GENERATED = "generated password"
HOSTS = {"database": "db", "cache": "redis"}
"""Data services, and their names in the Compose file."""


def imported(environment: dict[str, Any], *, database: dict[str, str] | None = None, **services: Any) -> Conversion:
    """Import an api with variables, and a database and a cache that it needs.

    Args:
        environment: variables of the api.
        database: variables of the database.
        services: further services, or other settings of the services `api`, `db` and `redis`.
    """
    api: dict[str, Any] = {"image": "acme/api:1", "ports": ["8000:8000"], "depends_on": ["db", "redis"]}
    account = {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": "hush", "POSTGRES_DB": "store"}
    standard: dict[str, Any] = {
        "api": api | {"environment": environment},
        "db": {"image": "postgres:15", "environment": account if database is None else database},
        "redis": {"image": "redis:7"},
    }
    changed = {name: standard.get(name, {}) | service for name, service in services.items()}
    compose = {"services": standard | changed}
    result = convert(compose, name="shop", base="/srv", folder="/srv", password=lambda: GENERATED)
    load_environment(result.environment, load_app(result.app))
    return result


def values_in_compose(result: Conversion) -> dict[str, str]:
    """Return the value of each placeholder if the services have the addresses that they have in the Compose file."""
    database = result.app["database"]
    values = {f"{name}.host": host for name, host in HOSTS.items()}
    values |= {"database.port": "5432", "cache.port": "6379"}
    values |= {"database.user": database["user"], "database.name": database["name"]}
    values |= {f"secrets.{name}": value for name, value in result.secrets.items()}
    return values | {f"{name}.password": result.secrets.get(f"{name}-password", "in-a-file") for name in HOSTS}


def fill(text: str, values: dict[str, str]) -> str:
    """Return the text of a template with its values, percent-encoded in a URL."""
    parts = template.parse(text)
    filled = [part if isinstance(part, str) else values[f"{part.owner}.{part.field}"] for part in parts]
    encoded = [not isinstance(part, str) and part.encoded for part in parts]
    return "".join(quote(value, safe="") if is_url else value for value, is_url in zip(filled, encoded, strict=True))


def secret_env(result: Conversion, service: str = "api") -> dict[str, str]:
    return result.app[service].get("secret_env", {})


def unconverted(result: Conversion) -> list[str]:
    return [f"{note.path}: {note.text}" for note in result.notes if note.kind is Kind.UNCONVERTED]


# ---------------------------------------------------------------------- secrets


def test_secret_variable_of_a_compose_file_stays_a_variable() -> None:
    result = imported({"SECRET_KEY": "a ${HOME} key", "STRIPE_API_KEY": "sk_test"})
    assert secret_env(result) == {
        "SECRET_KEY": "${secrets.secret-key}",
        "STRIPE_API_KEY": "${secrets.stripe-api-key}",
    }
    assert (result.secrets["secret-key"], result.secrets["stripe-api-key"]) == ("a ${HOME} key", "sk_test")
    assert "secrets" not in result.app["api"]
    assert not [line for line in unconverted(result) if line.startswith("services.api.environment")]
    assert [note.text for note in result.notes if note.path == "services.api.environment.SECRET_KEY"] == [
        "it is a secret, which the service gets as this variable by secret_env"
    ]


def test_compose_variable_with_the_password_of_a_data_service_follows_this_password() -> None:
    result = imported({"PGPASSWORD": "hush", "DB_PASS": "hush"})
    assert secret_env(result) == dict.fromkeys(("PGPASSWORD", "DB_PASS"), "${database.password}")
    assert result.secrets.keys() == {"database-password", "cache-password"}


def test_name_of_a_compose_variable_selects_one_of_two_data_services_with_the_same_password() -> None:
    cache = {"command": "redis-server --requirepass hush"}
    result = imported({"REDIS_PASSWORD": "hush", "DB_PASSWORD": "hush"}, redis=cache)
    assert secret_env(result) == {"REDIS_PASSWORD": "${cache.password}", "DB_PASSWORD": "${database.password}"}


def test_compose_variable_that_is_no_password_gets_its_own_secret_although_its_value_equals_a_password() -> None:
    result = imported({"JWT_SECRET": "hush"})
    assert secret_env(result) == {"JWT_SECRET": "${secrets.jwt-secret}"}
    assert result.secrets["jwt-secret"] == "hush"


def test_password_of_a_data_service_that_a_compose_service_does_not_need_is_a_secret_of_its_own() -> None:
    worker = {"image": "acme/worker:1", "environment": {"DB_PASSWORD": "hush"}}
    result = imported({}, worker=worker)
    assert secret_env(result, "worker") == {"DB_PASSWORD": "${secrets.db-password}"}


def test_secret_of_a_compose_variable_does_not_replace_a_declared_secret_of_the_same_name() -> None:
    compose = {
        "services": {
            "api": {"image": "acme/api:1", "ports": ["8000:8000"], "environment": {"API_KEY": "a"}},
            "worker": {"image": "acme/worker:1", "secrets": ["api_key"]},
        },
        "secrets": {"api_key": {"file": "/srv/key"}},
    }
    result = convert(compose, name="shop", base="/srv", folder="/srv", password=lambda: GENERATED)
    assert (result.secrets, result.files) == ({"api-api-key": "a"}, {"api-key": "/srv/key"})
    assert result.app["worker"]["secrets"] == ["api-key"]


def test_compose_variable_with_a_name_that_no_secret_may_have_becomes_a_secret_with_another_name() -> None:
    result = imported({"_1_TOKEN": "a", "__": "x://u:p@elsewhere"})
    assert secret_env(result) == {"_1_TOKEN": "${secrets.secret-1-token}", "__": "${secrets.secret}"}


def test_empty_secret_variable_of_a_compose_file_stays_empty() -> None:
    result = imported({"SENTRY_DSN": ""})
    assert result.app["api"]["env"] == {"SENTRY_DSN": ""}
    assert "services.api.environment.SENTRY_DSN" in [note.path for note in result.notes]


def test_compose_variable_that_names_a_secret_file_keeps_the_file() -> None:
    compose = {
        "services": {
            "api": {
                "image": "acme/api:1",
                "ports": ["8000:8000"],
                "environment": {"SIGNING_KEY_FILE": "/run/secrets/signing_key", "MAIL_FILE": "/run/secrets/mail_key"},
                "secrets": ["signing_key", "mail_key"],
            }
        },
        "secrets": {"signing_key": {"file": "/srv/a"}, "mail_key": {"file": "/srv/b"}},
    }
    api = convert(compose, name="shop", base="/srv", folder="/srv", password=lambda: GENERATED).app["api"]
    assert api["secrets"] == ["signing-key", "mail-key"]
    assert (api["env"], api.get("secret_env")) == ({"MAIL_FILE": "/run/secrets/mail-key"}, None)


# ---------------------------------------------------------------------- URLs of data services


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "postgresql://shop:hush@db:5432/store?sslmode=disable&application_name=${APP}",
            "postgresql://${database.user}:${database.password}@${database.host}:${database.port}/${database.name}"
            "?sslmode=disable&application_name=$${APP}",
        ),
        ("postgresql+asyncpg://shop:hush@db/other", "postgresql+asyncpg://${database.user}:${database.password}@${database.host}/other"),
        ("postgres://db:5433/store#x", "postgres://${database.host}:5433/${database.name}#x"),
        ("postgres://shop@db/store", "postgres://${database.user}@${database.host}/${database.name}"),
        ("postgres://reader:1234@db/store", "postgres://reader:${secrets.url-password}@${database.host}/${database.name}"),
        (
            "jdbc:postgresql://db:5432/store?user=shop&password=hush",
            "jdbc:postgresql://${database.host}:${database.port}/${database.name}?user=${database.user}&password=${database.password}",
        ),
        (
            "postgresql:///store?host=db&port=5432&user=shop",
            "postgresql:///${database.name}?host=${database.host}&port=${database.port}&user=${database.user}",
        ),
        ("postgres://shop:hush@db/store?sslpassword=key", "postgres://${database.user}:${database.password}@${database.host}/${database.name}?sslpassword=${secrets.url-password}"),
        ("redis://redis:6379/0", "redis://:${cache.password}@${cache.host}:${cache.port}/0"),
        ("redis://redis", "redis://:${cache.password}@${cache.host}"),
        ("rediss://:pw@redis:6379/1", "rediss://:${cache.password}@${cache.host}:${cache.port}/1"),
        ("redis://default:pw@redis:6379", "redis://default:${cache.password}@${cache.host}:${cache.port}"),
        ("redis://redis:6379?password=pw", "redis://${cache.host}:${cache.port}?password=${cache.password}"),
        ("tcp://redis:6379", "tcp://${cache.host}:${cache.port}"),
    ],
)  # fmt: skip
def test_url_of_a_data_service_in_a_compose_file_becomes_a_template(value: str, expected: str) -> None:
    result = imported({"URL": value})
    assert secret_env(result) == {"URL": expected}
    assert "env" not in result.app["api"]


@pytest.mark.parametrize(
    "value",
    [
        "postgres://shop:hush@db:5432,other:5432/store",
        "redis://redis:6379/0,redis://:hush@redis:6379/1",
        "postgres://shop:%ff@db/store",
        "amqp://shop:hush@queue:5672",
        "host=db user=shop password=hush",
    ],
)
def test_other_compose_value_with_a_password_becomes_one_secret(value: str) -> None:
    result = imported({"ADDRESS": value})
    assert secret_env(result) == {"ADDRESS": "${secrets.address}"}
    assert result.secrets["address"] == value.replace("@db", "@database").replace("=db", "=database").replace(
        "//redis", "//cache"
    ).replace("@redis", "@cache")


def test_url_with_another_spelling_of_a_database_name_gets_the_name_in_tiers() -> None:
    account = {"POSTGRES_USER": "Shop-User", "POSTGRES_PASSWORD": "hush", "POSTGRES_DB": "Store"}
    result = imported({"URL": "postgres://Shop-User:hush@db/Store"}, database=account)
    assert fill(secret_env(result)["URL"], values_in_compose(result)) == "postgres://shop_user:hush@db/store"


def test_url_of_a_database_without_a_password_gets_the_generated_password() -> None:
    result = imported({"URL": "postgres://postgres@db/postgres"}, database={"POSTGRES_HOST_AUTH_METHOD": "trust"})
    filled = fill(secret_env(result)["URL"], values_in_compose(result))
    assert filled == f"postgres://postgres:{quote(GENERATED)}@db/postgres"


def test_url_of_a_database_with_its_password_in_a_file_follows_this_password() -> None:
    account = {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD_FILE": "/run/secrets/db_password"}
    result = imported({"URL": "postgres://shop:hush@db/shop"}, database=account)
    assert secret_env(result)["URL"].startswith("postgres://${database.user}:${database.password}@")


def test_template_of_a_url_is_filled_with_another_address_and_account() -> None:
    text = secret_env(imported({"URL": "postgres://shop:hush@db:5432/store?sslmode=require"}))["URL"]
    values = {"host": "db.example.com", "port": "6432", "user": "prod", "name": "prod", "password": "p@/?#:"}
    filled = fill(text, {f"database.{key}": value for key, value in values.items()})
    assert filled == "postgres://prod:p%40%2F%3F%23%3A@db.example.com:6432/prod?sslmode=require"


ODD = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1, max_size=12)
"""Texts with any printable character, among them the delimiters of URLs, `$` and braces."""
RAW = st.text(st.sampled_from("ab%1$@:/?#{}!&=+;'\"~é "), min_size=1, max_size=12)


@example(password="${a}$$${", name="$${", query="x=${y}&host=$$")
@example(password="a@db/b", name="db", query="@db")
@example(password="%", name="%25", query="a=%")
@given(password=ODD, name=ODD, query=st.text(st.sampled_from("ab&=;${}@:,?/ "), max_size=12))
def test_filled_template_of_an_encoded_url_equals_the_url_in_the_compose_file(
    password: str, name: str, query: str
) -> None:
    value = f"postgres://shop:{quote(password, safe='')}@db:5432/{quote(name, safe='')}?{query}"
    account = {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": password.replace("$", "$$")}
    result = imported({"URL": value.replace("$", "$$")}, database=account)
    assert unquote(fill(secret_env(result)["URL"], values_in_compose(result))) == unquote(value)
    assert "${database.password}" in secret_env(result)["URL"]


@example(password="a/b#c?d@e:f")
@given(password=RAW)
def test_filled_template_of_an_url_with_an_unencoded_password_equals_the_url_in_the_compose_file(password: str) -> None:
    value = f"postgres://shop:{password}@db:5432/store"
    account = {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": password.replace("$", "$$"), "POSTGRES_DB": "store"}
    result = imported({"URL": value.replace("$", "$$")}, database=account)
    filled = fill(secret_env(result)["URL"], values_in_compose(result))
    # A password in one secret with the whole URL has the new name of the database.
    assert unquote(filled).replace("@database:", "@db:") in (unquote(value), value)
    assert password == "a" or f":{password}@" not in yaml.safe_dump([result.app, result.environment])


@given(key=st.sampled_from(["URL", "TOKEN", "DB_HOST", "VITE_URL", "PLAIN"]), value=RAW | ODD)
def test_filled_template_of_any_compose_value_equals_the_value(key: str, value: str) -> None:
    result = imported({key: value.replace("$", "$$")})
    plain = result.app["api"].get("env", {}) | result.environment["tiers"].get("api", {}).get("env", {})
    filled = {name: fill(text, values_in_compose(result)) for name, text in secret_env(result).items()}
    assert {**plain, **filled} == {key: value}


# ---------------------------------------------------------------------- addresses of HTTP services


def with_web(**environment: str) -> Conversion:
    web = {"image": "acme/web:1", "ports": ["3000:3000"], "environment": environment, "depends_on": ["api"]}
    return imported({}, web=web)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://api:8000", "${api.url}"),
        ("http://api", "${api.url}"),
        ("http://api:8000/v1?x=${Y}", "${api.url}/v1?x=$${Y}"),
        ("http://api:8000/a,http://api:8000/b", "${api.url}/a,${api.url}/b"),
        ("http://localhost:3000 http://api:8000/", "http://localhost:3000 ${api.url}/"),
    ],
)
def test_address_of_an_http_service_in_a_compose_file_becomes_a_placeholder(value: str, expected: str) -> None:
    result = with_web(BACKEND=value)
    assert secret_env(result, "web") == {"BACKEND": expected}
    assert not [line for line in unconverted(result) if "BACKEND" in line]


@pytest.mark.parametrize(
    "value", ["api", "api:8000", "https://api:8000", "ws://api:8000/socket", "http://api:9000", "http://u:p@api:8000", "$http://api:8000"]
)  # fmt: skip
def test_note_is_written_for_an_address_without_a_placeholder(value: str) -> None:
    result = with_web(BACKEND_HOST=value)
    assert secret_env(result, "web") == {}
    assert any("read API_URL instead" in line for line in unconverted(result))


def test_secret_in_the_address_of_an_http_service_is_no_plain_text() -> None:
    result = with_web(HOOK="http://api:8000/hook?token=sesame")
    assert secret_env(result, "web") == {"HOOK": "${api.url}${secrets.hook}"}
    assert result.secrets["hook"] == "/hook?token=sesame"


def test_only_one_of_two_http_services_that_connect_to_each_other_gets_the_address() -> None:
    feed = {"image": "acme/feed:1", "expose": ["4000"], "environment": {"MAIN": "http://api:8000"}}
    result = imported({"FEED": "http://feed_api:4000"}, feed_api=feed)
    assert secret_env(result) == {"FEED": "${feed-api.url}"}
    assert "secret_env" not in result.app["services"]["feed-api"]
    assert any(line.startswith("services.feed_api.environment.MAIN: ") for line in unconverted(result))


# ---------------------------------------------------------------------- entrypoint and command


def test_entrypoint_and_command_of_a_compose_service_stay_apart() -> None:
    api = imported({}, api={"entrypoint": "tini -- '/start it'", "command": ["serve", "--port", "8000"]}).app["api"]
    assert (api["entrypoint"], api["command"]) == (["tini", "--", "/start it"], ["serve", "--port", "8000"])


def test_entrypoint_of_a_compose_service_without_a_command_has_no_command() -> None:
    result = imported({}, api={"entrypoint": ["/start", "now"]})
    assert result.app["api"]["entrypoint"] == ["/start", "now"]
    assert "command" not in result.app["api"]
    assert not [note for note in result.notes if note.path == "services.api.entrypoint"]


@pytest.mark.parametrize("entrypoint", [[], ""])
def test_command_without_the_entrypoint_of_the_image_becomes_the_entrypoint(entrypoint: Any) -> None:
    api = imported({}, api={"entrypoint": entrypoint, "command": "serve now"}).app["api"]
    assert (api["entrypoint"], "command" in api) == (["serve", "now"], False)
    result = imported({}, api={"entrypoint": entrypoint})
    assert "entrypoint" not in result.app["api"]
    assert any(line.startswith("services.api.entrypoint: ") for line in unconverted(result))


def test_steps_of_a_command_run_with_the_entrypoint_of_the_compose_service() -> None:
    api = imported({}, api={"entrypoint": "/entry", "command": "sh -c 'shop migrate && exec shop serve'"}).app["api"]
    assert (api["entrypoint"], api["migrate"]["command"]) == (["/entry"], ["shop", "migrate"])
    assert api["command"] == ["shop", "serve"]


@pytest.mark.parametrize(
    "settings",
    [
        {"entrypoint": ["sh", "-c"], "command": ["shop migrate && shop check | tee x && exec shop serve"]},
        {"entrypoint": ["sh", "-c", "shop migrate && shop check | tee x && exec shop serve"]},
        {"entrypoint": [], "command": ["sh", "-c", "shop migrate && shop check | tee x && shop serve"]},
    ],
)
def test_steps_of_an_entrypoint_that_is_a_shell_run_in_this_shell(settings: dict[str, Any]) -> None:
    api = imported({}, api=settings).app["api"]
    assert (api["entrypoint"], api["command"]) == (["sh", "-c"], ["exec shop serve"])
    assert api["migrate"]["command"] == ["shop migrate"]
    assert api["tasks"] == {"shop": {"command": ["shop check | tee x"]}}


def one_off(tier: dict[str, Any], migrate: dict[str, Any]) -> Conversion:
    once = {"image": "acme/api:1", "restart": "no"} | migrate
    depends_on = {"db": {}, "migrate": {"condition": "service_completed_successfully"}}
    return imported({}, api={"depends_on": depends_on} | tier, migrate=once)


def test_compose_service_that_runs_once_shares_the_entrypoint_of_its_tier() -> None:
    entrypoint = {"entrypoint": ["/entry"]}
    api = one_off(entrypoint | {"command": "serve"}, entrypoint | {"command": "shop migrate"}).app["api"]
    assert (api["entrypoint"], api["command"]) == (["/entry"], ["serve"])
    assert api["migrate"]["command"] == ["shop", "migrate"]


def test_entrypoint_becomes_a_part_of_each_command_if_a_service_that_runs_once_has_another_entrypoint() -> None:
    tier = {"entrypoint": ["sh", "-c"], "command": ["shop assets && shop serve"]}
    result = one_off(tier, {"command": "shop migrate"})
    api = result.app["api"]
    assert "entrypoint" not in api
    assert api["command"] == ["sh", "-c", "exec shop serve"]
    assert api["tasks"] == {"shop": {"command": ["sh", "-c", "shop assets"]}}
    assert api["migrate"]["command"] == ["shop", "migrate"]
    assert "services.api.entrypoint" in [note.path for note in result.notes]


def test_compose_service_that_runs_the_command_of_its_image_once_gets_a_note() -> None:
    result = one_off({"command": "serve"}, {})
    assert "migrate" not in result.app["api"]
    assert (
        "services.migrate: it runs the command of its image once; make that command a task of app.api"
        in unconverted(result)
    )


def test_command_for_development_with_an_entrypoint_is_the_command_of_reload() -> None:
    settings = {
        "build": "/srv/api",
        "entrypoint": ["npx"],
        "command": "nodemon app.js",
        "volumes": ["/srv/api/src:/app"],
    }
    api = imported({}, api=settings | {"image": None}).app["api"]
    assert api["reload"]["command"] == ["npx", "nodemon", "app.js"]
    assert not {"entrypoint", "command"} & set(api)


# ---------------------------------------------------------------------- notes


def test_no_file_or_note_of_an_import_contains_a_secret() -> None:
    secrets = {
        "DATABASE_URL": "postgres://reader:sesame@db/store?sslpassword=sesame",
        "JDBC": "jdbc:postgresql://elsewhere/x?user=a&password=sesame",
        "HOOK": "https://example.com/hook?access_token=sesame",
        "DSN": "host=db password=sesame",
        "ODD": "postgres://u:sesame/sesame@elsewhere/x",
        "KEY": "sesame",
    }
    result = imported(secrets)
    assert secret_env(result).keys() == secrets.keys()
    written = yaml.safe_dump([result.app, result.environment]) + "\n".join(note_lines(result.notes)) + repr(result)
    assert "sesame" not in written
