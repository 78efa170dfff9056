"""Conversion of a normalised Compose file into `app`, `environment`, secrets and notes.

The conversion is a pure function: it reads no file and no input. The notes list every setting that was not converted,
and every value that was assumed because the Compose file lacks it.
"""

import os.path
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, cast

from pulumi import RunError

from components.model import services
from components.model.names import secret_variable
from components.model.services import API, CACHE, DATABASE, WEB, WORKER, prefix

from .compose_service import ComposeService, Mount, Note, Notes, Plain, as_name, listing, mapping, names_host, unescape
from .roles import assign_roles, has_public_image
from .settings import Reader, Secrets
from .validation import validate

PORTS = {WEB.name: 8080, API.name: 8000}
UNNECESSARY = {
    "networks": "a tier can connect to the tiers that it needs, and to no other",
    "restart": "a container that ends is restarted",
    "container_name": "the name of a container is made of application, stack, slot and tier",
    "hostname": "tiers get each other's addresses in DATABASE_HOST, CACHE_HOST and API_URL",
    "logging": "logs are rotated",
    "init": "every container has an init process",
    "read_only": "every container has a read-only root filesystem",
    "security_opt": "no container can gain privileges",
    "cap_drop": "no container has capabilities",
    "memswap_limit": "containers have no swap",
    "expose": "other tiers can connect to its port",
    "stdin_open": "containers have no terminal",
    "tty": "containers have no terminal",
    "pull_policy": "an image is pulled if it is missing",
}
"""Keys of a Compose service that need no conversion, each with the reason for its note."""
ADVICE = {
    "privileged": "no container is privileged; change the service so that it needs no privileges",
    "cap_add": "containers have no capabilities; change the service so that it needs none",
    "devices": "containers have no devices of the host; change the service so that it needs none",
    "network_mode": "tiers have their own networks; connect to other services by their addresses",
    "extra_hosts": "set the address itself in env",
    "ulimits": "if it needs them, set them in the configuration of the engine",
    "sysctls": "if it needs them, set them in the configuration of the engine",
    "shm_size": "/dev/shm has the default size of the engine",
    "working_dir": "set WORKDIR in the Dockerfile",
    "configs": "put the file into the image, or the values into env",
    "stop_signal": "containers are stopped with SIGTERM; let the service handle that signal",
    "labels": "the gateway replaces a proxy and its labels; set the paths of the api in app.api.paths",
}
"""Keys of a Compose service that can't be converted, each with the advice for its note."""
_NO_EQUIVALENT = "it has no equivalent here; change the service so that it works without"
_CONVERTED_KEYS = {
    "image", "build", "command", "entrypoint", "environment", "ports", "volumes", "depends_on", "links", "healthcheck",
    "deploy", "cpus", "mem_limit", "scale", "secrets", "user", "tmpfs", "stop_grace_period", "profiles", "develop",
}  # fmt: skip
"""Keys of a Compose service that are converted."""
_DATA_FOLDER = {
    "uploads",
    "upload",
    "media",
    "data",
    "storage",
    "files",
    "static",
    "attachments",
    "backups",
    "logs",
    "log",
}
"""Words in the name of a folder that contains data, not source code."""
_MIGRATION = re.compile(r"\b(migrate|migrations?|alembic|db:migrate|flyway|liquibase)\b")
_DEVELOPMENT_COMMAND = re.compile(r"--reload\b|\brunserver\b|\bnodemon\b|\bwatch(files|medo)?\b|\bdev\b|\bvite$")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Result of a conversion: plain values of `app` and `environment`, the secrets, and the notes."""

    app: Plain
    environment: Plain
    notes: tuple[Note, ...]
    secrets: dict[str, str] = field(repr=False)
    """Values of secrets by name. The values must not be printed."""
    files: dict[str, str]
    """Name of each secret whose value is in a file → path of this file."""


def convert(
    compose: Mapping[str, Any],
    *,
    name: str,
    base: str,
    folder: str,
    password: Callable[[], str],
    profiles: Collection[str] = (),
) -> Conversion:
    """Convert a Compose file to an application and an environment.

    Args:
        compose: output of `docker compose config`.
        name: name of the application.
        base: folder of the Compose file. Notes show paths below this folder as relative paths.
        folder: folder of the new Pulumi.yaml. The paths of build folders are relative to this folder.
        password: function that generates a password. It is called for a database or cache that has no password.
        profiles: names of the Compose profiles whose services are imported.

    Raises:
        RunError: a value in the file is invalid, or no service fits the tier web or api.
    """
    try:
        normalised = cast(Plain, unescape(validate(compose)))
    except RecursionError:
        raise RunError("the file is nested too deeply; name the file that has `services`") from None
    return _Converter(normalised, base, folder, password, profiles).convert(name)


class _Converter:
    """Converter of one Compose file, which collects notes and secrets during the conversion."""

    def __init__(
        self, compose: Plain, base: str, folder: str, password: Callable[[], str], profiles: Collection[str]
    ) -> None:
        self.compose, self.base, self.folder, self.password = compose, base, folder, password
        self.services = {name: ComposeService(name, raw) for name, raw in mapping(compose, "services").items()}
        self.notes = Notes()
        self.secrets = Secrets(mapping(compose, "secrets"))
        self.roles = assign_roles(self.services, profiles, self.notes)
        self.tiers = self.roles.tiers
        self.needs: dict[str, list[str]] = {}
        """Name of each converted service of a slot → names of the services that it needs. These names are those in `app`."""

    def convert(self, name: str) -> Conversion:
        if not {WEB.name, API.name} & set(self.tiers):
            unselected = sorted(
                {profile for service in self.services.values() for profile in listing(service.raw, "profiles")}
            )
            hint = (
                f"; for the services of a profile set COMPOSE_PROFILES (here: {', '.join(unselected)})"
                if unselected
                else ""
            )
            raise RunError(f"no service is a web or an api; name a service web or api, or give it a port{hint}")
        settings_by_tier = {tier: self._tier_settings(service) for tier, service in self.tiers.items()}
        # Data tiers are converted first, because the other tiers need their passwords.
        parts = {
            tier: self._data_tier(tier, service)
            for tier, service in self.tiers.items()
            if services.common().is_shared(tier)
        }
        for tier in (record.name for record in self.roles.catalogue.in_slots):
            if service := self.tiers.get(tier):
                parts[tier] = self._slot_tier(tier, service, settings_by_tier[tier])
        self._add_unneeded_data(parts)
        self._add_one_off_services(parts)
        self._add_remaining_notes()
        order = [tier for tier in self.roles.catalogue.names if tier in parts]
        further = {name: {"tier": tier, **parts[name]} for name, tier in self.roles.further.items()}
        environment: Plain = {"platform": "docker"}
        environment |= {"gateway": gateway} if (gateway := self._gateway()) else {}
        environment |= {key: True for key in ("reload", "seed") if any(key in part for part in parts.values())}
        environment |= {
            "protect_data": False,
            "tiers": {tier: settings_by_tier[tier] for tier in order if settings_by_tier[tier]},
        }
        return Conversion(
            app={"name": name, "version": "1.0.0"}
            | {tier: parts[tier] for tier in order if tier not in further}
            | ({"services": further} if further else {}),
            environment=environment,
            notes=self.notes.sorted(),
            secrets=self.secrets.values,
            files=self.secrets.files,
        )

    # ---- database and cache

    def _data_tier(self, tier: str, service: ComposeService) -> Plain:
        if published_ports := ", ".join(str(published) for published, _ in service.ports if published):
            self.notes.add_unconverted(
                f"{service.path}.ports",
                f"{published_ports} is not published, because only the gateway publishes ports; use `docker exec` to look at the data",
            )
        if [mount for mount in service.mounts if not mount.is_init_script]:
            self.notes.add_unconverted(
                f"{service.path}.volumes",
                "the data is not copied, and the new volume is empty; load a dump of the old data",
            )
        part: Plain = {}
        convert_part = {DATABASE.name: self._database, CACHE.name: self._cache}.get(tier)
        if not convert_part:
            return {"image": service.image}
        if not has_public_image(service):
            self.notes.add_unconverted(
                f"{service.path}.{'build' if service.build else 'image'}",
                f"its image has another interface than the public image of the {tier}, so the default image is used; "
                f"set app.{tier}.image to the version of your data",
            )
        elif service.tag in ("", "latest") and not service.digest:
            self.notes.add_assumption(
                f"{service.path}.image",
                "the image has no version, so the default version is used; set the version of your data",
            )
        else:
            part["image"] = service.image
            # In Alpine images PostgreSQL runs as user 70.
            part |= {"uid": 70} if tier == DATABASE.name and "alpine" in service.tag else {}
        return part | convert_part(service)

    def _database(self, service: ComposeService) -> Plain:
        # The names of Bitnami's image follow those of the public image.
        user = service.env.get("POSTGRES_USER") or service.env.get("POSTGRESQL_USERNAME") or "postgres"
        name_of_database = service.env.get("POSTGRES_DB") or service.env.get("POSTGRESQL_DATABASE") or user
        part: Plain = {"name": name_of_database, "user": user}
        for key, variable in (("name", "POSTGRES_DB"), ("user", "POSTGRES_USER")):
            if f"{variable}_FILE" in service.env:
                self.notes.add_unconverted(
                    f"{service.path}.environment.{variable}_FILE",
                    f"it names a file, which is not read; app.database.{key} is {part[key]}, so set the name that is in the file",
                )
            allowed = re.sub(r"\W", "_", str(part[key]).lower(), flags=re.ASCII)
            if allowed != part[key]:
                part[key] = allowed
                self.notes.add_unconverted(
                    f"{service.path}.environment.{variable}",
                    f"a name must have lower-case letters, so it is now {allowed}",
                )
        file = service.env.get("POSTGRES_PASSWORD_FILE") or ""
        name = self.secrets.register(PurePath(file).name, self.notes) if file else "database-password"
        if not file:
            password = service.env.get("POSTGRES_PASSWORD") or service.env.get("POSTGRESQL_PASSWORD")
            self.secrets.values[name] = password or self._new_password(service)
        self.secrets.passwords[DATABASE.name] = name
        part |= {"password": name} if name != "database-password" else {}
        scripts = [mount.source for mount in service.mounts if mount.is_init_script]
        if files := [self._relative(source) for source in scripts if source.endswith(".sql")]:
            part["init"] = files
        for source in scripts:
            if not source.endswith(".sql"):
                self.notes.add_unconverted(
                    f"{service.path}.volumes", f"list the SQL files of {self._shown(source)} in app.database.init"
                )
        for key in sorted(set(service.env) & {"POSTGRES_INITDB_ARGS", "POSTGRES_HOST_AUTH_METHOD", "PGDATA"}):
            self.notes.add_unconverted(
                f"{service.path}.environment.{key}",
                "the database is always created with checksums, UTF-8 and a password",
            )
        if service.command:
            self.notes.add_unconverted(
                f"{service.path}.command",
                "the command is not used; set PostgreSQL's settings in an image, or with ALTER SYSTEM",
            )
        return part

    def _cache(self, service: ComposeService) -> Plain:
        command = " ".join(service.command)
        password_option = re.search(r"--requirepass[ =]['\"]?(\$?\{?)([^\s'\"$}]+)", command)
        password = (
            (service.env.get(password_option[2]) if password_option[1] else password_option[2])
            if password_option
            else None
        )
        password = password or service.env.get("REDIS_PASSWORD")
        self.secrets.values["cache-password"] = password or self._new_password(service)
        self.secrets.passwords[CACHE.name] = "cache-password"
        if re.sub(r"(redis|valkey)-server|--(appendonly|requirepass)[ =]\S+", "", command).strip():
            self.notes.add_unconverted(
                f"{service.path}.command",
                "the cache is always persistent and has a password; put other settings into an image",
            )
        return {}

    def _new_password(self, service: ComposeService) -> str:
        self.notes.add_assumption(service.path, "it had no password; a new one was generated, and is in the secrets")
        return self.password()

    # ---- web, api and worker

    def _slot_tier(self, name: str, service: ComposeService, tier_settings: Plain) -> Plain:
        part, catalogue, tier = self._source(service), self.roles.catalogue, self.roles.tier_of(name)
        if tier in PORTS:
            part["port"] = self._port(service, tier, self.roles.path(name))
        part |= self._health(service, tier, self.roles.path(name))
        addressed = [
            other
            for other in catalogue.names
            if other in catalogue.may_need(name) & set(self.tiers) and service.talks_to(self.tiers[other])
        ]
        needs = [other for other in addressed if not self._leads_to(other, name)]
        for other in sorted(set(addressed) - set(needs)):
            self.notes.add_unconverted(
                service.path,
                f"it and {other} connect to each other, but services can't need each other; here only {other} can connect to it",
            )
        self.needs[name] = needs
        part |= {"needs": list(needs)} if needs else {}
        self._mounts(service, part)
        self._add_command(service, part)
        self._add_egress(service, part)
        self._add_conflicting_port(service, part)
        settings = Reader(self.services, self.roles, self.secrets, self.notes).read(service, name)
        part |= {"env": settings.env} if settings.env else {}
        tier_settings |= {"env": settings.local_env} if settings.local_env else {}
        data_passwords = {self.secrets.passwords.get(other) for other in needs}
        secrets = [name for name in dict.fromkeys(settings.secrets) if name not in data_passwords]
        part |= {"secrets": secrets} if secrets else {}
        if grace := _seconds(str(service.raw.get("stop_grace_period", ""))):
            part["stop_within"] = f"{grace}s"
        user = str(service.raw.get("user") or "10001").partition(":")[0]
        if not user.isdecimal() or int(user) <= 10_000:
            self.notes.add_unconverted(
                f"{service.path}.user",
                f"user {user} may also exist on the host, so the service runs as 10001; let the image allow that user",
            )
        elif int(user) != 10_001:
            part["user"] = int(user)
        return part

    def _leads_to(self, name: str, target: str) -> bool:
        """Return whether the service `name` is `target`, or needs `target` directly or through other services."""
        return name == target or any(self._leads_to(need, target) for need in self.needs.get(name, ()))

    def _source(self, service: ComposeService) -> Plain:
        path = service.path
        if not service.build:
            if service.tag not in ("", "latest") or service.digest:
                return {"image": service.image}
            self.notes.add_unconverted(
                f"{path}.image", "the image has no version, and 1.0.0 is a placeholder; set the version that you tested"
            )
            return {"image": f"{service.image.removesuffix(':latest')}:1.0.0"}
        part: Plain = {"build": self._relative(str(service.build["context"]))}
        if target := service.build.get("target"):
            part["target"] = target
        if (file := str(service.build.get("dockerfile") or "Dockerfile")) != "Dockerfile":
            self.notes.add_unconverted(
                f"{path}.build.dockerfile", f"only a file named Dockerfile is built, not {self._shown(file)}; rename it"
            )
        if service.build.get("args"):
            self.notes.add_unconverted(
                f"{path}.build.args", "builds get no arguments; set the defaults of the ARGs in the Dockerfile"
            )
        if service.build.get("secrets") or service.build.get("ssh"):
            self.notes.add_unconverted(
                f"{path}.build.secrets", "builds get no secrets; download what needs them before the build"
            )
        return part

    def _port(self, service: ComposeService, tier: str, home: str) -> int:
        for published, target in service.ports[1:]:
            self.notes.add_unconverted(
                f"{service.path}.ports",
                f"{published or target} is not used, because a tier listens on one port; use the first port",
            )
        if service.port is None:
            self.notes.add_assumption(service.path, f"its port is unknown; {home}.port is {PORTS[tier]}")
        elif service.port < 1024:
            self.notes.add_unconverted(
                f"{service.path}.ports",
                f"only root may listen on {service.port}; let the service listen on {PORTS[tier]}, which is {home}.port now",
            )
        else:
            return service.port
        return PORTS[tier]

    def _health(self, service: ComposeService, tier: str, home: str) -> Plain:
        if tier not in PORTS:
            return {"alive": service.healthcheck} if service.healthcheck else {}
        if service.health_url:
            return {"health": service.health_url[2] or "/"}
        reason = "its healthcheck has no URL" if service.healthcheck else "it has no healthcheck"
        path = "/" if tier == WEB.name else "/health"
        self.notes.add_assumption(
            f"{service.path}.healthcheck", f"{reason}, so {home}.health is {path}; set a path that answers with 200"
        )
        return {"health": path}

    def _mounts(self, service: ComposeService, part: Plain) -> None:
        path, context = f"{service.path}.volumes", str(service.build.get("context", ""))
        source_mounts: dict[str, str] = {}
        for mount in service.mounts:
            if mount.in_memory:
                part.setdefault("writable", ["/tmp"]).append(mount.target)
            elif not mount.source:
                self.notes.add_unnecessary(
                    path, f"{mount.target}: an anonymous volume keeps no data; the content is in the image"
                )
            elif not mount.is_host_path:
                self._volume(mount, part, path)
            elif mount.target.startswith("/run/secrets"):
                self.notes.add_unconverted(
                    path, f"list each file of {self._shown(mount.source)} in secrets, and set its value in `make shell`"
                )
            elif _DATA_FOLDER & set(re.split(r"[^a-z]+", PurePath(mount.source).name.lower())) and not mount.read_only:
                self.notes.add_unconverted(
                    path,
                    f"{self._shown(mount.source)} looks like data, not like source code; use a volume for {mount.target}, and copy the data",
                )
            elif context and _inside(mount.source, context) and not PurePath(mount.source).suffix:
                source_mounts[self._relative(mount.source)] = mount.target
            else:
                self.notes.add_unconverted(
                    path, f"{self._shown(mount.source)} is a path of the host; COPY it into the image, or use a volume"
                )
        for watch in listing(mapping(service.raw, "develop"), "watch"):
            source, target = str(watch.get("path") or ""), str(watch.get("target") or "")
            if "sync" in str(watch.get("action")) and source and target:
                source_mounts.setdefault(self._relative(str(PurePath(self.base, source))), target)
        part |= {"reload": {"mounts": source_mounts}} if source_mounts else {}
        for entry in listing(service.raw, "tmpfs"):
            if (target := str(entry).partition(":")[0]) != "/tmp":
                part.setdefault("writable", ["/tmp"]).append(target)

    def _volume(self, mount: Mount, part: Plain, path: str) -> None:
        """Add the mount of a named volume to the converted service."""
        volumes = part.setdefault("volumes", {})
        name, target = as_name(mount.source), f"{mount.target}:ro" if mount.read_only else mount.target
        declared = mapping(mapping(self.compose, "volumes"), mount.source)
        if name in volumes:
            self.notes.add_unconverted(
                path,
                f"{mount.source} is mounted at {volumes[name].removesuffix(':ro')} only, because a service mounts a volume once; not at {mount.target}",
            )
            return
        volumes[name] = target
        if declared.get("external") or declared.get("driver_opts") or declared.get("driver") not in (None, "local"):
            self.notes.add_unconverted(
                f"volumes.{mount.source}",
                f"it is external or has a driver, and the new volume {name} is an empty one; copy the data",
            )

    def _add_egress(self, service: ComposeService, part: Plain) -> None:
        """Set `egress: true` for a service if one of its variables contains a host on the internet."""
        if variable := service.outside:
            part["egress"] = True
            self.notes.add_assumption(
                f"{service.path}.environment.{variable}",
                "it contains a host of the internet, so the service may connect to the outside (egress: true)",
            )

    def _add_conflicting_port(self, service: ComposeService, part: Plain) -> None:
        """Add a note if the value of the variable PORT differs from `port` of the converted service."""
        port = service.env.get("PORT")
        if port and port.isdecimal() and "port" in part and int(port) != part["port"]:
            self.notes.add_unconverted(
                f"{service.path}.environment.PORT",
                f"it is {port}, but `port` is {part['port']}; let both have the port that the service listens on",
            )

    def _add_unneeded_data(self, parts: Mapping[str, Plain]) -> None:
        """Add a note for each data service that no service needs."""
        needed = {need for part in parts.values() for need in part.get("needs", ())}
        for name in {record.name for record in self.roles.catalogue.data} & set(self.tiers) - needed:
            self.notes.add_unconverted(
                self.tiers[name].path,
                f"no service refers to it, so no service can connect to it; add {name} to `needs` of those that use it",
            )

    def _add_command(self, service: ComposeService, part: Plain) -> None:
        """Convert the command of a service.

        A command such as `migrate && collectstatic && serve` is split: its last part becomes the command of the tier, and
        the other parts become steps that run once in every release.
        """
        path = f"{service.path}.command"
        if service.raw.get("entrypoint"):
            self.notes.add_assumption(
                f"{service.path}.entrypoint",
                "it is the start of the command now; an entrypoint of the image would still run before it",
            )
        self._note_hosts(service.command, path)
        *steps, command = _split_command(service.command)
        if not steps and "&&" in " ".join(command):
            self.notes.add_assumption(
                path,
                "its steps need one shell, so all of them run at each start of a replica; a migration belongs into `migrate`",
            )
        for step in steps:
            self._add_step(part, step, path)
        if command and "reload" in part and _DEVELOPMENT_COMMAND.search(" ".join(command)):
            part["reload"] = {"command": command, **part["reload"]}
            self.notes.add_assumption(
                path,
                "it looks like a command for development, so only `reload` uses it; other environments run the command of the image",
            )
        elif command:
            part["command"] = command

    def _note_hosts(self, command: Sequence[str], path: str) -> None:
        """Add a note for each Compose service that a command uses as a host name, because the service gets another address."""
        for name in sorted(self.services):
            if not any(names_host("", word, name) or f"/dev/tcp/{name}/" in word for word in command):
                continue
            new_name = self.roles.new_name(name)
            if not new_name:
                address = "it is not imported"
            elif not services.common().is_shared(new_name):
                address = f"read {prefix(new_name)}_URL"
            elif secret := self.secrets.passwords.get(new_name):
                address = f"its address is {new_name} here, and its password is in {secret_variable(secret)}"
            else:
                address = f"its address is {new_name} here"
            self.notes.add_unconverted(path, f"it contains the host {name}; {address}")

    def _add_step(self, part: Plain, command: list[str], path: str) -> None:
        if _MIGRATION.search(" ".join(command)) and "migrate" not in part:
            part["migrate"] = {"command": command}
            self.notes.add_assumption(path, "it looks like a migration, which runs once in every release, as migrate")
        else:
            name = _task_name(command)
            part.setdefault("tasks", {})[name] = {"command": command}
            self.notes.add_assumption(path, f"it runs once in every release, as tasks.{name}")

    def _add_one_off_services(self, parts: Mapping[str, Plain]) -> None:
        """Convert each service that runs once into a migration, task or seed of the tier with the same image, or add a note."""
        for service in self.roles.one_off:
            tiers = [candidate for candidate in (API.name, WORKER.name, WEB.name)
                    if candidate in self.tiers and self.tiers[candidate].source == service.source]  # fmt: skip
            if not tiers:
                self.notes.add_unconverted(
                    service.path,
                    "it runs once, and no tier runs its image; run it by hand, or make it a task of a tier",
                )
            elif "seed" in service.words:
                parts[tiers[0]]["seed"] = {"command": service.command}
                self.notes.add_assumption(
                    service.path, f"it is app.{tiers[0]}.seed, which runs if environment.seed is true"
                )
            else:
                self._add_step(parts[tiers[0]], service.command, service.path)

    # ---- the environment

    def _tier_settings(self, service: ComposeService) -> Plain:
        path, deploy = service.path, mapping(service.raw, "deploy")
        tier_settings: Plain = {}
        replicas = int(deploy.get("replicas") or service.raw.get("scale") or self.roles.copies.get(service.name) or 1)
        if replicas > 1 and services.common().is_shared(self.roles.new_name(service.name) or ""):
            self.notes.add_unconverted(f"{path}.deploy.replicas", "the database and the cache run as a single instance")
        elif replicas > 1:
            tier_settings["replicas"] = replicas
        if cpu := service.limits.get("cpus") or service.raw.get("cpus"):
            tier_settings["cpu"] = float(cpu)
        if memory := service.limits.get("memory") or service.raw.get("mem_limit"):
            tier_settings["memory"] = _memory(str(memory))
        if mapping(deploy, "resources").get("reservations"):
            self.notes.add_unconverted(
                f"{path}.deploy.resources.reservations", "Docker reserves no resources; on Kubernetes set `reserve`"
            )
        if "placement" in deploy:
            self.notes.add_unconverted(
                f"{path}.deploy.placement",
                "it has no equivalent on Docker; on Kubernetes tiers are spread over hosts and zones",
            )
        return tier_settings

    def _gateway(self) -> Plain:
        published = {tier: self.tiers[tier].published for tier in PORTS if tier in self.tiers}
        api = published.get(API.name)
        proxy_port = next((proxy.published for proxy in self.roles.proxies if proxy.published), None)
        port = proxy_port or published.get(WEB.name) or api
        if not port:
            return {}
        self.notes.add_assumption(
            "environment.gateway", "it listens on 127.0.0.1; set `address: 0.0.0.0` to open it to the network"
        )
        return {"port": port} | ({"ports": {API.name: api}} if api and api != port else {})

    # ---- notes about all other keys

    def _add_remaining_notes(self) -> None:
        tiers = {service.name for service in self.tiers.values()}
        for service in self.services.values():
            for key in [key for key in service.raw if key not in _CONVERTED_KEYS]:
                if key in UNNECESSARY:
                    self.notes.add_unnecessary(f"services.*.{key}", UNNECESSARY[key])
                elif service.name in tiers:
                    self.notes.add_unconverted(f"{service.path}.{key}", ADVICE.get(key, _NO_EQUIVALENT))
            if set(service.dependencies.values()) - {"service_started"}:
                self.notes.add_unnecessary(
                    "services.*.depends_on",
                    "a tier starts after the migration, when the tiers that it needs are healthy",
                )
        for name in mapping(self.compose, "configs"):
            self.notes.add_unconverted(f"configs.{name}", ADVICE["configs"])

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.folder)

    def _shown(self, path: str) -> str:
        """Return a path for a note: relative if the path is below the folder of the Compose file, otherwise unchanged."""
        return os.path.relpath(path, self.base) if _inside(path, self.base) else path


def _split_command(command: list[str]) -> list[list[str]]:
    """Split a command such as `sh -c "a && b"` into a list of commands.

    If the parts must run in the same shell, return a list with only the unchanged command.
    """
    is_shell = (
        len(command) == 3 and re.fullmatch(r"(/bin/)?(ba|a)?sh", command[0]) and command[1] in ("-c", "-ec", "-lc")
    )
    if not is_shell or "&&" not in command[2]:
        return [command]
    steps = _split_script(command[2])
    if not steps:
        return [command]
    # A step without shell syntax needs no shell, so it becomes a list of words.
    return [shlex.split(text) if not re.search(r"[$|;<>*`(]", text) else [*command[:2], text] for text in steps]


_CHANGES_SHELL = re.compile(
    r"(cd|export|set|unset|source|\.|alias|umask|ulimit|trap|eval|shift|read|wait|if|then|elif|else|fi|for|while|until|case|do|done"
    r"|function|\{|\}|\(|\[|\[\[|!|\w+=\S*)(\s|$)"
)
"""Pattern of a step that can't run in its own shell: it changes the shell (`cd`, `export`) or is part of a block (`if`)."""


def _split_script(script: str) -> list[str]:
    """Return the steps that a script joins with `&&`, or an empty list if the steps can't run separately."""
    quote, begin, steps = "", 0, list[str]()
    for position, character in enumerate(script):
        if position < begin:
            continue  # This is the second `&` of `&&`.
        if quote and script.startswith("&&", position):
            return []
        if quote or character in "'\"":
            quote = character if not quote else "" if character == quote else quote
        elif character in ";\n\\()" or script.startswith("||", position):
            return []
        elif script.startswith("&&", position):
            steps.append(script[begin:position])
            begin = position + 2
        elif character == "&":
            return []
    steps = [text.strip().removeprefix("exec ").strip() for text in [*steps, script[begin:]]]
    if quote or not all(steps) or any(_CHANGES_SHELL.match(text) for text in steps):
        return []
    return steps


_RUNNERS = {
    "python",
    "python3",
    "node",
    "npm",
    "npx",
    "pnpm",
    "yarn",
    "run",
    "bundle",
    "exec",
    "php",
    "sh",
    "bash",
    "manage.py",
}


def _task_name(command: Sequence[str]) -> str:
    """Return a name for the task that runs a command: its first word that is no interpreter or package manager, or `prepare`."""
    words = [word for word in command if word not in _RUNNERS and re.match(r"[a-z]", word) and " " not in word]
    return as_name(words[0].partition(".")[0]) if words else "prepare"


def _memory(text: str) -> str:
    """Convert a size of Compose (bytes, `512m` or `1GB`) to the notation of the configuration (`512Mi`)."""
    match = re.fullmatch(r"([\d.]+)([bkmg]?)b?", text.lower())
    if not match:
        return text
    size = int(float(match[1]) * {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[match[2]])
    return f"{size // 2**30}Gi" if size and size % 2**30 == 0 else f"{size // 2**20}Mi"


def _seconds(text: str) -> int:
    """Convert a duration of Compose, such as `1m30s`, to whole seconds."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])(?!s)", text))


def _inside(path: str, folder: str) -> bool:
    return PurePath(path).is_relative_to(folder)
