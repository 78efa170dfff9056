"""Import of Compose files: each setting is carried over or listed as not carried. The files are those of tests/compose, normalised by Compose."""

import copy
import re
import shlex
from typing import Any, cast

import pytest
import yaml
from pulumi import RunError

from ci.compose.__main__ import lines
from ci.compose.carried import Carried, carried
from ci.compose.given import Kind
from components.config import load_app, load_environment

from .program import ROOT

FILES = ("classic", "anchors", "envfile", "profiles", "board")
WORDS_OF_SECRETS = {
    "classic": {"todo123", "change-me"},
    "anchors": {"not-for-production"},
    "envfile": {"guest:guest", "sk_test", "shop:shop"},
    "profiles": set[str](),
    "board": set[str](),
}
MADE = "made-for-what-had-none"


def normalised(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "tests" / "compose" / f"{name}.normalised.yml").read_text())


def imported(compose: dict[str, Any], *profiles: str) -> Carried:
    return carried(
        compose, name="shop", base="/srv/compose/classic", folder="/srv/tiers/apps/shop", password=lambda: MADE,
        profiles=profiles,
    )  # fmt: skip


def one(service: dict[str, Any], **others: dict[str, Any]) -> Carried:
    """Import a service named api, alone or with others."""
    return imported({"services": {"api": {"image": "acme/api:1.2", **service}, **others}})


def notes_of(result: Carried, kind: Kind | None = None) -> list[str]:
    return [f"{note.path}: {note.text}" for note in result.notes if kind in (None, note.kind)]


@pytest.mark.parametrize("name", FILES)
class TestEveryFile:
    def test_imported_configuration_is_valid(self, name: str) -> None:
        result = imported(normalised(name))
        app = load_app(result.app)
        load_environment(result.environment, app)
        names = {*result.secrets, *result.files, *(note.path for note in result.notes)}
        assert {secret for secret in app.secrets if not {secret, f"secrets.{secret.replace('-', '_')}"} & names} <= {
            "database-password"  # The folder of the board's secrets is named in a note; its secrets are not carried.
        }

    def test_every_service_has_a_note(self, name: str) -> None:
        result = imported(normalised(name))
        spoken = {note.path.split(".")[1] for note in result.notes if note.path.startswith("services.")}
        assert set(normalised(name)["services"]) <= spoken

    def test_imported_files_and_notes_contain_no_secret(self, name: str) -> None:
        result = imported(normalised(name))
        shown = repr(result) + "\n".join(lines(result.notes)) + yaml.safe_dump([result.app, result.environment])
        assert not [word for word in {*WORDS_OF_SECRETS[name], MADE} if word in shown]

    def test_forms_of_compose_1_and_2_are_imported_alike(self, name: str) -> None:
        assert imported(as_plugin(normalised(name))) == imported(normalised(name))


def as_plugin(compose: dict[str, Any]) -> dict[str, Any]:
    """Return the same file in the forms of Compose 2: commands as lists, ports, volumes and secrets as mappings, sizes in bytes."""
    changed = copy.deepcopy(compose)
    for service in changed["services"].values():
        for key in {"command", "entrypoint"} & set(service):
            if isinstance(service[key], str):
                service[key] = shlex.split(service[key])
        service |= {key: service.get(key) for key in ("command", "entrypoint")}
        service["ports"] = [_long_port(port) for port in service.get("ports", [])]
        service["volumes"] = [_long_volume(volume) for volume in service.get("volumes", [])]
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        if "memory" in limits:
            limits["memory"] = str(int(limits["memory"][:-1]) * {"M": 2**20, "G": 2**30}[limits["memory"][-1]])
    return {"name": "shop", **changed}


def _long_port(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        port = cast(dict[str, Any], value)
        return {"mode": "ingress", "protocol": "tcp", "target": port["target"], "published": str(port["published"])}
    address, published, target = value.partition("/")[0].split(":")
    return {"host_ip": address, "published": published, "target": int(target)}


def _long_volume(text: str) -> dict[str, Any]:
    if ":" not in text:
        return {"type": "volume", "target": text, "volume": {}}
    source, target, *_ = text.split(":")
    return {"type": "bind" if source.startswith("/") else "volume", "source": source, "target": target}


class TestTierOfAService:
    def test_web_api_database_and_cache_are_recognised(self) -> None:
        result = imported(normalised("classic"))
        assert list(result.app)[2:] == ["web", "api", "database", "cache"]
        assert result.app["web"]["build"] == "../../../compose/classic/frontend"
        assert result.app["api"]["build"] == "../../../compose/classic/backend"
        assert result.app["database"] == {"image": "postgres:15-bookworm", "name": "todo_db", "user": "todo"}
        assert result.environment["gateway"] == {"port": 3000, "ports": {"api": 8000}}

    def test_service_with_the_api_image_and_another_command_is_the_worker(self) -> None:
        plain = {"image": "acme/shop:1", "command": "consume"}
        result = one({"image": "acme/shop:1", "ports": ["8000:8000"]}, background=plain | {"build": "/srv/shop"})
        assert "worker" not in result.app
        result = imported(
            {
                "services": {
                    "main": {"build": "/srv/shop", "ports": ["8000:8000"]},
                    "other": {"build": "/srv/shop", "command": "x"},
                }
            }
        )
        assert result.app["worker"]["command"] == ["x"]
        assert "services.other: it is the worker, for it has no port" in "\n".join(notes_of(result, Kind.TAKEN))

    def test_web_service_with_a_database_becomes_the_api(self) -> None:
        result = imported(
            {
                "services": {
                    "web": {"build": "/srv/django", "ports": ["8000:8000"], "environment": {"DB_HOST": "db"}},
                    "frontend": {"build": "/srv/react", "ports": ["3000:3000"]},
                    "db": {"image": "postgres:15"},
                }
            }
        )
        assert (result.app["api"]["port"], result.app["web"]["port"]) == (8000, 3000)
        assert result.app["api"]["needs"] == ["database"]

    def test_second_worker_is_listed_as_an_application_of_its_own(self) -> None:
        assert "services.celery-beat: the worker is celery; make this one an application of its own" in notes_of(
            imported(normalised("anchors"))
        )

    def test_proxy_service_is_replaced_by_the_gateway(self) -> None:
        for file, proxy in (("anchors", "nginx"), ("envfile", "caddy"), ("profiles", "traefik"), ("board", "gateway")):
            assert any(
                line.startswith(f"services.{proxy}: a proxy")
                for line in notes_of(imported(normalised(file)), Kind.LEFT)
            )
        assert imported(normalised("anchors")).environment["gateway"] == {"port": 80}

    def test_nginx_alone_is_the_web_tier(self) -> None:
        result = imported({"services": {"site": {"image": "nginx:1.27", "ports": ["80:80"]}}})
        assert result.app["web"] == {"image": "nginx:1.27", "port": 8080, "health": "/"}
        assert "services.site.ports: only root may listen on 80; have it listen on 8080, as is written now" in notes_of(
            result
        )

    def test_service_of_a_profile_is_imported_only_with_the_profile(self) -> None:
        without, result = imported(normalised("profiles")), imported(normalised("profiles"), "jobs")
        assert "worker" not in without.app
        assert "services.worker: of profile jobs, not asked for; COMPOSE_PROFILES=jobs brings it in" in notes_of(
            without
        )
        assert result.app["worker"]["command"] == ["python", "-m", "maps.worker"]
        assert result.app["worker"]["alive"] == ["python", "-m", "maps.alive"]

    def test_file_without_web_and_api_is_refused(self) -> None:
        with pytest.raises(RunError, match="no service of it is a web or an api"):
            imported({"services": {"db": {"image": "postgres:15"}}})


class TestSteps:
    def test_commands_before_the_server_become_migration_and_tasks(self) -> None:
        web = imported(normalised("anchors")).app["web"]
        assert web["migrate"] == {"command": ["python", "manage.py", "migrate", "--noinput"]}
        assert web["tasks"] == {"collectstatic": {"command": ["python", "manage.py", "collectstatic", "--noinput"]}}
        assert web["command"][0] == "gunicorn"

    def test_shell_is_kept_only_for_commands_that_need_it(self) -> None:
        result = one(
            {"command": ["sh", "-c", "alembic upgrade head && exec serve --port $$PORT"], "ports": ["9000:9000"]}
        )
        assert result.app["api"]["migrate"] == {"command": ["alembic", "upgrade", "head"]}
        assert result.app["api"]["command"] == ["sh", "-c", "serve --port $PORT"]

    def test_services_that_end_become_migration_and_seed(self) -> None:
        api = imported(normalised("board")).app["api"]
        assert api["migrate"]["command"][-3:] == ["alembic", "upgrade", "head"]
        assert api["seed"]["command"][-1] == "board.seed"
        assert imported(normalised("board")).environment["seed"] is True
        assert "services.smoke: it runs once, and no tier runs its image" in "\n".join(
            notes_of(imported(normalised("board")))
        )

    def test_watching_command_and_source_mounts_become_reload(self) -> None:
        api = imported(normalised("envfile")).app["api"]
        assert api["reload"]["command"] == ["npm", "run", "dev"]
        assert list(api["reload"]["mounts"].values()) == ["/app/src"]
        assert "command" not in api
        assert imported(normalised("envfile")).environment["reload"] is True


class TestSettings:
    def test_secrets_are_referenced_by_name(self) -> None:
        result = imported(normalised("envfile"))
        assert result.app["api"]["secrets"] == ["amqp-url", "database-url", "postgres-password", "stripe-api-key"]
        assert result.secrets["database-url"] == "postgres://shop:shop@database:5432/shop"
        assert result.secrets["database-password"] == "shop"
        assert "services.server.environment.SESSION_SECRET: it is empty" in "\n".join(notes_of(result))

    def test_cache_url_contains_the_cache_password(self) -> None:
        assert imported(normalised("classic")).secrets["redis-url"] == f"redis://:{MADE}@cache:6379/0"

    def test_two_values_of_one_variable_become_two_secrets(self) -> None:
        other = {"image": "acme/api:1.2", "command": "work", "environment": {"TOKEN": "b"}}
        result = one({"ports": ["8000:8000"], "environment": {"TOKEN": "a"}}, worker=other)
        assert (result.app["api"]["secrets"], result.app["worker"]["secrets"]) == (["token"], ["worker-token"])
        assert result.secrets == {"token": "a", "worker-token": "b"}

    def test_secret_files_keep_their_names(self) -> None:
        result = imported(normalised("profiles"))
        assert result.app["database"]["password"] == "db-password"
        assert result.files == {"db-password": "/srv/compose/profiles/secrets/db_password.txt"}
        assert result.app["api"]["secrets"] == ["mapbox-token"]

    def test_service_host_names_become_tier_names(self) -> None:
        env = imported(normalised("profiles")).environment["tiers"]["api"]["env"]
        assert env == {"DB_HOST": "database", "CACHE_ADDRESS": "cache:6379"}

    @pytest.mark.parametrize("value", ["redis://elsewhere:6379", "s3://cache-bucket/x", "redis"])
    def test_other_host_names_are_kept(self, value: str) -> None:
        result = one({"ports": ["8000:8000"], "environment": {"PLACE": value}}, cache={"image": "redis:7"})
        assert result.app["api"]["env"] == {"PLACE": value}

    def test_variables_of_public_prefixes_are_no_secrets(self) -> None:
        result = one({"ports": ["8000:8000"], "environment": {"VITE_MAP_KEY": "open"}})
        assert result.app["api"]["env"] == {"VITE_MAP_KEY": "open"}

    def test_variable_with_the_address_of_the_api_is_listed(self) -> None:
        web = {"build": "/srv/web", "ports": ["8080:8080"], "environment": {"BACKEND": "http://api:8000/v1"}}
        result = one({"ports": ["8000:8000"]}, web=web)
        assert "env" not in result.app["web"]
        assert (
            "services.web.environment.BACKEND: it names the api, whose address differs by slot; read API_URL"
            in notes_of(result)
        )


class TestOtherSettings:
    def test_resource_limits_and_replicas_are_carried(self) -> None:
        tiers = imported(normalised("profiles")).environment["tiers"]
        assert tiers["database"] == {"cpu": 2.0, "memory": "1Gi"}
        assert {key: tiers["api"][key] for key in ("replicas", "cpu", "memory")} == {
            "replicas": 3,
            "cpu": 1.5,
            "memory": "768Mi",
        }
        assert imported(normalised("board")).environment["tiers"]["web"] == {"cpu": 0.5, "memory": "512Mi"}

    @pytest.mark.parametrize(
        ("check", "path"),
        [
            (["CMD", "curl", "-f", "http://localhost:8000/health"], "/health"),
            (["CMD-SHELL", "wget -qO- http://127.0.0.1:8000/api/v1/ping || exit 1"], "/api/v1/ping"),
            ("curl --fail http://localhost:8000 || exit 1", "/"),
            (["CMD", "python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8000/up')"], "/up"),
            (["CMD", "pgrep", "gunicorn"], "/health"),
            (["NONE"], "/health"),
        ],
    )
    def test_health_path_is_read_from_the_health_check(self, check: Any, path: str) -> None:
        assert one({"ports": ["8000:8000"], "healthcheck": {"test": check}}).app["api"]["health"] == path

    @pytest.mark.parametrize(
        ("service", "port"),
        [
            ({"ports": ["127.0.0.1:9000:8123/tcp"]}, 8123),
            ({"expose": ["8124"]}, 8124),
            ({"healthcheck": {"test": ["CMD", "curl", "http://localhost:8125/"]}}, 8125),
            ({"environment": {"PORT": 8126}}, 8126),
            ({"command": "gunicorn app:app -b 0.0.0.0:8127"}, 8127),
            ({"command": "uvicorn app:app --port 8128"}, 8128),
            ({}, 8000),
        ],
    )
    def test_port_is_read_from_ports_health_check_variable_or_command(self, service: dict[str, Any], port: int) -> None:
        assert one(service).app["api"]["port"] == port

    def test_database_on_alpine_has_uid_70(self) -> None:
        assert imported(normalised("anchors")).app["database"]["uid"] == 70

    def test_volumes_of_one_name_are_shared(self) -> None:
        app = imported(normalised("anchors")).app
        assert app["web"]["volumes"] == {"media": "/app/media", "static": "/app/static"}
        assert app["worker"]["volumes"] == {"media": "/app/media"}

    def test_sql_files_of_the_database_become_init(self) -> None:
        assert imported(normalised("envfile")).app["database"]["init"] == ["../../../compose/envfile/db/schema.sql"]
        assert any("name the SQL files of" in line for line in notes_of(imported(normalised("anchors"))))

    def test_unsupported_setting_is_listed_by_its_path(self) -> None:
        left = notes_of(imported(normalised("profiles")), Kind.LEFT)
        for path in ("privileged", "cap_add", "labels", "deploy.resources.reservations"):
            assert any(line.startswith(f"services.api.{path}: ") for line in left), path
        assert any(
            line.startswith("services.api.blkio_config: ")
            for line in notes_of(one({"blkio_config": {}, "expose": [80]}))
        )

    def test_stop_grace_period_becomes_stop_within(self) -> None:
        assert imported(normalised("anchors")).app["web"]["stop_within"] == "90s"

    def test_notes_are_grouped_with_required_work_first(self) -> None:
        headings = [line for line in lines(imported(normalised("classic")).notes) if re.match(r"\n", line)]
        assert headings == [f"\n{kind}" for kind in Kind]
