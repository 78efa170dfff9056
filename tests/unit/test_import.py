"""Tests that each setting of a Compose file is either imported or listed in a note.

The files in tests/compose have the normalised form that Compose prints.
"""

import copy
import re
import shlex
from typing import Any, cast

import pytest
import yaml
from pulumi import RunError

from ci.compose.__main__ import note_lines
from ci.compose.compose_service import Kind
from ci.compose.conversion import Conversion, convert
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
GENERATED_PASSWORD = "generated-test-password"


def compose_file(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "tests" / "compose" / f"{name}.normalised.yml").read_text())


def import_file(compose: dict[str, Any], *profiles: str) -> Conversion:
    return convert(
        compose, name="shop", base="/srv/compose/classic", folder="/srv/tiers/apps/shop", password=lambda: GENERATED_PASSWORD,
        profiles=profiles,
    )  # fmt: skip


def import_service(service: dict[str, Any], **others: dict[str, Any]) -> Conversion:
    """Import a Compose file that contains `service` under the name `api`, and the services in `others`."""
    return import_file({"services": {"api": {"image": "acme/api:1.2", **service}, **others}})


def notes_of(result: Conversion, kind: Kind | None = None) -> list[str]:
    return [f"{note.path}: {note.text}" for note in result.notes if kind in (None, note.kind)]


@pytest.mark.parametrize("name", FILES)
class TestEveryFile:
    def test_configuration_imported_from_a_compose_file_is_valid(self, name: str) -> None:
        result = import_file(compose_file(name))
        app = load_app(result.app)
        load_environment(result.environment, app)
        names = {*result.secrets, *result.files, *(note.path for note in result.notes)}
        assert {secret for secret in app.secrets if not {secret, f"secrets.{secret.replace('-', '_')}"} & names} <= {
            "database-password"  # The board's secrets are not imported. A note names the folder of the secrets.
        }

    def test_compose_import_writes_a_note_for_every_service(self, name: str) -> None:
        result = import_file(compose_file(name))
        services_with_notes = {note.path.split(".")[1] for note in result.notes if note.path.startswith("services.")}
        assert set(compose_file(name)["services"]) <= services_with_notes

    def test_files_and_notes_of_a_compose_import_contain_no_secret(self, name: str) -> None:
        result = import_file(compose_file(name))
        output = repr(result) + "\n".join(note_lines(result.notes)) + yaml.safe_dump([result.app, result.environment])
        assert not [word for word in {*WORDS_OF_SECRETS[name], GENERATED_PASSWORD} if word in output]

    def test_compose_file_in_the_output_format_of_compose_1_or_2_is_imported_with_the_same_result(
        self, name: str
    ) -> None:
        assert import_file(compose_2_format(compose_file(name))) == import_file(compose_file(name))


def compose_2_format(compose: dict[str, Any]) -> dict[str, Any]:
    """Convert a file to the format of Compose 2: commands as lists, ports and volumes as mappings, sizes in bytes."""
    converted = copy.deepcopy(compose)
    for service in converted["services"].values():
        for key in {"command", "entrypoint"} & set(service):
            if isinstance(service[key], str):
                service[key] = shlex.split(service[key])
        service |= {key: service.get(key) for key in ("command", "entrypoint")}
        service["ports"] = [_long_port(port) for port in service.get("ports", [])]
        service["volumes"] = [_long_volume(volume) for volume in service.get("volumes", [])]
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        if "memory" in limits:
            limits["memory"] = str(int(limits["memory"][:-1]) * {"M": 2**20, "G": 2**30}[limits["memory"][-1]])
    return {"name": "shop", **converted}


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
    def test_compose_services_are_recognised_as_web_api_database_and_cache(self) -> None:
        result = import_file(compose_file("classic"))
        assert list(result.app)[2:] == ["web", "api", "database", "cache"]
        assert result.app["web"]["build"] == "../../../compose/classic/frontend"
        assert result.app["api"]["build"] == "../../../compose/classic/backend"
        assert result.app["database"] == {"image": "postgres:15-bookworm", "name": "todo_db", "user": "todo"}
        assert result.environment["gateway"] == {"port": 3000, "ports": {"api": 8000}}

    def test_compose_service_with_the_build_of_the_api_and_another_command_becomes_the_worker(self) -> None:
        service = {"image": "acme/shop:1", "command": "consume"}
        result = import_service(
            {"image": "acme/shop:1", "ports": ["8000:8000"]}, background=service | {"build": "/srv/shop"}
        )
        assert "worker" not in result.app
        result = import_file(
            {
                "services": {
                    "main": {"build": "/srv/shop", "ports": ["8000:8000"]},
                    "other": {"build": "/srv/shop", "command": "x"},
                }
            }
        )
        assert result.app["worker"]["command"] == ["x"]
        assert "services.other: it is the worker, because it has no port" in "\n".join(notes_of(result, Kind.ASSUMED))

    def test_build_options_of_a_compose_service_are_imported_without_secrets(self) -> None:
        args = {
            "NODE_VERSION": "22",
            "NPM_TOKEN": "npm_x1",
            "MIRROR": "https://me:pw@mirror.example.com",
            "UNSET": None,
            "A-B": "1",
        }
        build = {"context": "/srv/shop", "dockerfile": "./docker/api.Dockerfile", "target": "run", "args": args}
        result = import_file({"services": {"api": {"build": build, "ports": ["8000:8000"]}}})
        assert result.app["api"]["build"] == {
            "context": "../../../shop", "dockerfile": "docker/api.Dockerfile", "target": "run", "args": {"NODE_VERSION": "22"},
        }  # fmt: skip
        notes = "\n".join(notes_of(result, Kind.UNCONVERTED))
        for name in ("NPM_TOKEN", "MIRROR", "UNSET", "A-B"):
            assert f"services.api.build.args.{name}: " in notes
        assert "npm_x1" not in notes and "me:pw" not in notes

    def test_dockerfile_outside_of_the_build_context_is_left_out_of_an_import_with_a_note(self) -> None:
        build = {"context": "/srv/shop", "dockerfile": "/srv/docker/api.Dockerfile", "args": ["MODE=fast", "UNSET"]}
        result = import_file({"services": {"api": {"build": build, "ports": ["8000:8000"]}}})
        assert result.app["api"]["build"] == {"context": "../../../shop", "args": {"MODE": "fast"}}
        assert (
            "services.api.build.dockerfile: the Dockerfile ../docker/api.Dockerfile must be in the build context"
            in "\n".join(notes_of(result, Kind.UNCONVERTED))
        )

    def test_compose_service_named_web_with_a_database_variable_becomes_the_api(self) -> None:
        result = import_file(
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

    def test_compose_service_of_a_scheduler_is_not_imported_and_gets_a_note(self) -> None:
        result = import_file(compose_file("anchors"))
        [note] = [line for line in notes_of(result, Kind.UNCONVERTED) if line.startswith("services.celery-beat: ")]
        assert "it looks like a scheduler, which must not run twice" in note
        assert "services" not in result.app

    def test_second_worker_and_second_api_of_a_compose_file_become_further_services(self) -> None:
        broker = {"CELERY_BROKER_URL": "redis://redis:6379/0", "THUMBS": "http://thumbs:9000"}
        result = import_file(
            {
                "services": {
                    "web": {"build": "/srv/shop", "ports": ["5000:5000"], "environment": {"DB_HOST": "db"}},
                    "thumbs": {"build": "/srv/api_thumbs", "ports": ["9000:9000"]},
                    "api_public": {"build": "/srv/api", "ports": ["8000:8000"]},
                    "worker": {"build": "/srv/shop", "command": "celery worker -Q default", "environment": broker},
                    "worker_mail": {
                        "build": "/srv/shop",
                        "command": "celery worker -Q mail",
                        "environment": broker,
                        "deploy": {"replicas": 2},
                    },
                    "gateway": {"build": "/srv/shop", "command": "celery worker -Q gateway"},
                    "redis": {"image": "redis:7"},
                    "db": {"image": "postgres:15"},
                }
            }
        )
        services = result.app["services"]
        assert {name: service["tier"] for name, service in services.items()} == {
            "thumbs": "api",
            "worker-mail": "worker",
            "app-gateway": "worker",
        }
        app = load_app(result.app)
        environment = load_environment(result.environment, app)
        assert app.names >= {"web", "api", "worker", "worker-mail", "database", "cache"}
        assert services["worker-mail"]["command"] == ["celery", "worker", "-Q", "mail"]
        assert services["worker-mail"]["needs"] == ["cache", "thumbs"]
        assert services["worker-mail"]["secret_env"]["THUMBS"] == "${thumbs.url}"
        assert environment.tier_settings("worker-mail").replicas == 2
        assert not [line for line in notes_of(result) if "application of its own" in line]

    def test_import_keeps_one_direction_of_a_mutual_connection_of_compose_services_and_adds_a_note(self) -> None:
        result = import_service(
            {"ports": ["8000:8000"], "environment": {"FEED": "http://feed_api:4000"}},
            feed_api={"image": "me/feed:1", "ports": ["4000:4000"], "environment": {"MAIN": "http://api:8000"}},
        )
        app = load_app(result.app)
        assert app.api and (app.api.needs, app.slot_services["feed-api"].needs) == (("feed-api",), ())
        assert any(
            line.startswith("services.feed_api: it and api connect to each other")
            for line in notes_of(result, Kind.UNCONVERTED)
        )

    def test_compose_service_of_a_proxy_is_replaced_by_the_gateway(self) -> None:
        for file, proxy in (("anchors", "nginx"), ("envfile", "caddy"), ("profiles", "traefik"), ("board", "gateway")):
            assert any(
                line.startswith(f"services.{proxy}: the gateway replaces this proxy")
                for line in notes_of(import_file(compose_file(file)), Kind.UNCONVERTED)
            )
        assert import_file(compose_file("anchors")).environment["gateway"] == {"port": 80}

    def test_compose_service_of_nginx_becomes_the_web_tier_if_no_other_service_exists(self) -> None:
        result = import_file({"services": {"site": {"image": "nginx:1.27", "ports": ["80:80"]}}})
        assert result.app["web"] == {"image": "nginx:1.27", "port": 8080, "health": "/"}
        assert (
            "services.site.ports: only root may listen on 80; let the service listen on 8080, which is app.web.port now"
            in notes_of(result)
        )

    def test_compose_service_with_a_profile_is_imported_only_if_the_profile_is_selected(self) -> None:
        result_without_profile, result = (
            import_file(compose_file("profiles")),
            import_file(compose_file("profiles"), "jobs"),
        )
        assert "worker" not in result_without_profile.app
        assert (
            "services.worker: its profile jobs is not selected; import with COMPOSE_PROFILES=jobs to include it"
            in notes_of(result_without_profile)
        )
        assert result.app["worker"]["entrypoint"] == ["python", "-m", "maps.worker"]
        assert result.app["worker"]["alive"] == ["python", "-m", "maps.alive"]

    def test_compose_file_with_neither_a_web_nor_an_api_service_is_refused(self) -> None:
        with pytest.raises(RunError, match="no service is a web or an api"):
            import_file({"services": {"db": {"image": "postgres:15"}}})


class TestSteps:
    def test_commands_before_the_server_in_a_compose_command_become_migration_and_tasks(self) -> None:
        web = import_file(compose_file("anchors")).app["web"]
        assert web["migrate"] == {"command": ["python", "manage.py", "migrate", "--noinput"]}
        assert web["tasks"] == {"collectstatic": {"command": ["python", "manage.py", "collectstatic", "--noinput"]}}
        assert web["command"][0] == "gunicorn"

    def test_imported_command_keeps_its_shell_only_if_the_command_needs_a_shell(self) -> None:
        result = import_service(
            {"command": ["sh", "-c", "alembic upgrade head && exec serve --port $$PORT"], "ports": ["9000:9000"]}
        )
        assert result.app["api"]["migrate"] == {"command": ["alembic", "upgrade", "head"]}
        assert result.app["api"]["command"] == ["sh", "-c", "serve --port $PORT"]

    def test_one_shot_compose_services_become_migration_and_seed(self) -> None:
        api = import_file(compose_file("board")).app["api"]
        assert api["migrate"]["command"][-3:] == ["alembic", "upgrade", "head"]
        assert api["seed"]["command"][-1] == "board.seed"
        assert import_file(compose_file("board")).environment["seed"] is True
        assert "services.smoke: it runs once, and no tier runs its image" in "\n".join(
            notes_of(import_file(compose_file("board")))
        )

    def test_development_command_and_source_mounts_in_a_compose_file_become_the_setting_reload(self) -> None:
        api = import_file(compose_file("envfile")).app["api"]
        assert api["reload"]["command"] == ["npm", "run", "dev"]
        assert list(api["reload"]["mounts"].values()) == ["/app/src"]
        assert "command" not in api
        assert import_file(compose_file("envfile")).environment["reload"] is True


class TestSettings:
    def test_imported_configuration_references_secrets_by_name(self) -> None:
        result = import_file(compose_file("envfile"))
        assert result.app["api"]["secret_env"] == {
            "AMQP_URL": "${secrets.amqp-url}",
            "DATABASE_URL": "postgres://${database.user}:${database.password}@${database.host}:${database.port}/${database.name}",
            "POSTGRES_PASSWORD": "${database.password}",
            "STRIPE_API_KEY": "${secrets.stripe-api-key}",
        }
        assert result.secrets == {
            "amqp-url": "amqp://guest:guest@rabbitmq:5672",
            "database-password": "shop",
            "stripe-api-key": "sk_test",
        }
        assert "services.server.environment.SESSION_SECRET: it is empty" in "\n".join(notes_of(result))

    def test_imported_cache_url_contains_the_cache_password(self) -> None:
        secret_env = import_file(compose_file("classic")).app["api"]["secret_env"]
        assert secret_env["REDIS_URL"] == "redis://:${cache.password}@${cache.host}:${cache.port}/0"

    def test_secret_variable_with_different_values_in_two_compose_services_becomes_two_secrets(self) -> None:
        other = {"image": "acme/api:1.2", "command": "work", "environment": {"TOKEN": "b"}}
        result = import_service({"ports": ["8000:8000"], "environment": {"TOKEN": "a"}}, worker=other)
        templates = [result.app[name]["secret_env"]["TOKEN"] for name in ("api", "worker")]
        assert templates == ["${secrets.token}", "${secrets.worker-token}"]
        assert result.secrets == {"token": "a", "worker-token": "b"}

    def test_secret_files_of_a_compose_file_are_imported_as_secrets_with_the_same_names(self) -> None:
        result = import_file(compose_file("profiles"))
        assert result.app["database"]["password"] == "db-password"
        assert result.files == {"db-password": "/srv/compose/profiles/secrets/db_password.txt"}
        assert result.app["api"]["secrets"] == ["mapbox-token"]

    def test_names_of_compose_services_in_variables_are_replaced_by_tier_names(self) -> None:
        env = import_file(compose_file("profiles")).environment["tiers"]["api"]["env"]
        assert env == {"DB_HOST": "database", "CACHE_ADDRESS": "cache:6379"}

    @pytest.mark.parametrize("value", ["redis://elsewhere:6379", "s3://cache-bucket/x", "redis"])
    def test_host_names_of_external_servers_in_compose_variables_are_kept(self, value: str) -> None:
        result = import_service({"ports": ["8000:8000"], "environment": {"PLACE": value}}, cache={"image": "redis:7"})
        assert result.app["api"]["env"] == {"PLACE": value}

    def test_compose_variables_with_a_public_prefix_are_not_imported_as_secrets(self) -> None:
        result = import_service({"ports": ["8000:8000"], "environment": {"VITE_MAP_KEY": "open"}})
        assert result.app["api"]["env"] == {"VITE_MAP_KEY": "open"}

    def test_compose_variable_with_the_address_of_the_api_becomes_a_template(self) -> None:
        web = {"build": "/srv/web", "ports": ["8080:8080"], "environment": {"BACKEND": "http://api:8000/v1"}}
        result = import_service({"ports": ["8000:8000"]}, web=web)
        assert "env" not in result.app["web"]
        assert result.app["web"]["secret_env"] == {"BACKEND": "${api.url}/v1"}
        assert "services.web.environment.BACKEND: it has the address that the api has in each slot, by secret_env" in (
            notes_of(result, Kind.ASSUMED)
        )


class TestOtherSettings:
    def test_resource_limits_and_replicas_of_compose_services_are_imported(self) -> None:
        tiers = import_file(compose_file("profiles")).environment["tiers"]
        assert tiers["database"] == {"cpu": 2.0, "memory": "1Gi"}
        assert {key: tiers["api"][key] for key in ("replicas", "cpu", "memory")} == {
            "replicas": 3,
            "cpu": 1.5,
            "memory": "768Mi",
        }
        assert import_file(compose_file("board")).environment["tiers"]["web"] == {"cpu": 0.5, "memory": "512Mi"}

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
    def test_health_path_is_read_from_the_health_check_of_a_compose_service(self, check: Any, path: str) -> None:
        assert import_service({"ports": ["8000:8000"], "healthcheck": {"test": check}}).app["api"]["health"] == path

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
    def test_port_of_a_compose_service_is_found_in_every_key_that_can_contain_a_port(
        self, service: dict[str, Any], port: int
    ) -> None:
        assert import_service(service).app["api"]["port"] == port

    def test_imported_database_with_an_alpine_image_has_uid_70(self) -> None:
        assert import_file(compose_file("anchors")).app["database"]["uid"] == 70

    def test_compose_volume_of_two_services_is_imported_as_a_shared_volume(self) -> None:
        app = import_file(compose_file("anchors")).app
        assert app["web"]["volumes"] == {"media": "/app/media", "static": "/app/static"}
        assert app["worker"]["volumes"] == {"media": "/app/media"}

    def test_sql_files_of_the_compose_database_service_become_the_setting_init(self) -> None:
        assert import_file(compose_file("envfile")).app["database"]["init"] == [
            "../../../compose/envfile/db/schema.sql"
        ]
        assert any("list the SQL files of" in line for line in notes_of(import_file(compose_file("anchors"))))

    def test_unsupported_compose_setting_gets_a_note_with_the_path_of_the_setting(self) -> None:
        notes = notes_of(import_file(compose_file("profiles")), Kind.UNCONVERTED)
        for path in ("privileged", "cap_add", "labels", "deploy.resources.reservations"):
            assert any(line.startswith(f"services.api.{path}: ") for line in notes), path
        assert any(
            line.startswith("services.api.blkio_config: ")
            for line in notes_of(import_service({"blkio_config": {}, "expose": [80]}))
        )

    def test_stop_grace_period_of_a_compose_service_becomes_the_setting_stop_within(self) -> None:
        assert import_file(compose_file("anchors")).app["web"]["stop_within"] == "90s"

    def test_notes_of_a_compose_import_are_grouped_and_begin_with_required_work(self) -> None:
        headings = [line for line in note_lines(import_file(compose_file("classic")).notes) if re.match(r"\n", line)]
        assert headings == [f"\n{kind}" for kind in Kind]
