"""Conversion of a normalised Compose file into `app`, `environment` and notes about the rest.

It is a pure function that reads no file and asks no question. A note names every value that was assumed because the
file does not have it.
"""

import os.path
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, cast

from pulumi import RunError

from components.config import TierName

from .given import Given, Note, Notes, Plain, as_name, listing, mapping, unescaped
from .roles import DATA, roles
from .settings import Reader, Secrets
from .shape import checked

PORTS = {TierName.WEB: 8080, TierName.API: 8000}
MAY_NEED = {
    TierName.WEB: {TierName.API, *DATA},
    TierName.API: {*DATA},
    TierName.WORKER: {TierName.API, *DATA},
}
"""Tier → the tiers that it may need."""
IMPLIED = {
    "networks": "tiers reach what they need, and nothing else",
    "restart": "what ends is started again",
    "container_name": "containers are named after application, stack, slot and tier",
    "hostname": "tiers find each other by DATABASE_HOST, CACHE_HOST, API_URL",
    "logging": "logs are rotated",
    "init": "every container has one",
    "read_only": "every container is",
    "security_opt": "no container gets new privileges",
    "cap_drop": "no container has any",
    "memswap_limit": "memory is the limit, and there is no swap beside it",
    "expose": "other tiers reach its port",
    "stdin_open": "nobody types there",
    "tty": "nobody types there",
    "pull_policy": "images are pulled where they are missing",
}
"""Key of a service → the reason why it is unnecessary."""
ADVICE = {
    "privileged": "no container is; have it do without",
    "cap_add": "containers have no capabilities; have it do without",
    "devices": "containers see no devices of the host; have it do without",
    "network_mode": "tiers are in networks of their own; have it reach others by their addresses",
    "extra_hosts": "give the address itself in env",
    "ulimits": "set them where the engine is configured, if it needs them",
    "sysctls": "set them where the engine is configured, if it needs them",
    "shm_size": "a container's /dev/shm is the engine's",
    "working_dir": "say it in the Dockerfile (WORKDIR)",
    "configs": "have it in the image, or in env",
    "stop_signal": "it is told to stop by SIGTERM; have it understand that",
    "labels": "those of a proxy are the gateway's: paths of the api are app.api.paths",
}
"""Key of a service that can't be converted → the advice in its note."""
_NOTHING_LIKE_IT = "there is nothing like it here; have it do without"
_READ = {
    "image", "build", "command", "entrypoint", "environment", "ports", "volumes", "depends_on", "links", "healthcheck",
    "deploy", "cpus", "mem_limit", "scale", "secrets", "user", "tmpfs", "stop_grace_period", "profiles",
}  # fmt: skip
"""Keys of a service that are converted."""
_MIGRATES = re.compile(r"\b(migrate|migrations?|alembic|db:migrate|flyway|liquibase)\b")
_WATCHES = re.compile(r"--reload\b|\brunserver\b|\bnodemon\b|\bwatch(files|medo)?\b|\bdev\b|\bvite$")


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Result of a conversion: plain values of `app` and `environment`, the secrets, and the notes."""

    app: Plain
    environment: Plain
    notes: tuple[Note, ...]
    secrets: dict[str, str] = field(repr=False)
    """Name → value. Never print them."""
    files: dict[str, str]
    """Name → path of the file with the value."""


def carried(
    compose: Mapping[str, Any],
    *,
    name: str,
    base: str,
    folder: str,
    password: Callable[[], str],
    profiles: Collection[str] = (),
) -> Carried:
    """Convert a Compose file.

    Args:
        compose: output of `docker compose config`.
        name: name of the application.
        base: folder of the Compose file; paths below it belong to the project.
        folder: folder of the new Pulumi.yaml; build folders are relative to it.
        password: returns a new password, for a service without one.
        profiles: profiles whose services are included.

    Raises:
        RunError: a part of the file has the wrong form, or no service is a web or an api.
    """
    try:
        found = cast(Plain, unescaped(checked(compose)))
    except RecursionError:
        raise RunError("it is nested too deeply; name the file that has `services`") from None
    return _Carrying(found, base, folder, password, profiles).all(name)


class _Carrying:
    """Conversion of one Compose file, with the notes and secrets collected so far."""

    def __init__(
        self, compose: Plain, base: str, folder: str, password: Callable[[], str], profiles: Collection[str]
    ) -> None:
        self.compose, self.base, self.folder, self.password = compose, base, folder, password
        self.services = {name: Given(name, raw) for name, raw in mapping(compose, "services").items()}
        self.notes = Notes()
        self.secrets = Secrets(mapping(compose, "secrets"))
        self.roles = roles(self.services, profiles, self.notes)
        self.tiers = self.roles.tiers

    def all(self, name: str) -> Carried:
        if not {TierName.WEB, TierName.API} & set(self.tiers):
            raise RunError("no service of it is a web or an api; name one so, or give it a port")
        sizes = {tier: self._size(service) for tier, service in self.tiers.items()}
        # Data tiers come first, because the other tiers get their passwords.
        parts = {tier: self._data(tier, service) for tier, service in self.tiers.items() if tier in DATA}
        for tier in MAY_NEED:
            if service := self.tiers.get(tier):
                parts[tier] = self._service(tier, service, sizes[tier])
        self._steps(parts)
        self._rest()
        order = [tier for tier in TierName if tier in parts]
        environment: Plain = {"platform": "docker"}
        environment |= {"gateway": gateway} if (gateway := self._gateway()) else {}
        environment |= {key: True for key in ("reload", "seed") if any(key in part for part in parts.values())}
        environment |= {"protect_data": False, "tiers": {tier.value: sizes[tier] for tier in order if sizes[tier]}}
        return Carried(
            app={"name": name, "version": "1.0.0"} | {tier.value: parts[tier] for tier in order},
            environment=environment,
            notes=self.notes.sorted(),
            secrets=self.secrets.values,
            files=self.secrets.files,
        )

    # ---- database and cache

    def _data(self, tier: TierName, service: Given) -> Plain:
        if published_ports := ", ".join(str(published) for published, _ in service.ports if published):
            self.notes.left(
                f"{service.path}.ports",
                f"{published_ports} is not published: only the gateway is; look in by `docker exec`",
            )
        if [mount for mount in service.mounts if not mount.first_sql]:
            self.notes.left(
                f"{service.path}.volumes",
                "its data stays where it is, and a new volume is empty; bring it over by a dump",
            )
        part: Plain = {}
        if service.tag in ("", "latest"):
            self.notes.taken(
                f"{service.path}.image", "it names no version, the default was taken; name that of its data"
            )
        else:
            part["image"] = service.image
            # In Alpine's images PostgreSQL has another user id.
            part |= {"uid": 70} if tier is TierName.DATABASE and "alpine" in service.tag else {}
        return part | (self._database(service) if tier is TierName.DATABASE else self._cache(service))

    def _database(self, service: Given) -> Plain:
        user = service.env.get("POSTGRES_USER") or "postgres"
        part: Plain = {"name": service.env.get("POSTGRES_DB") or user, "user": user}
        for key, variable in (("name", "POSTGRES_DB"), ("user", "POSTGRES_USER")):
            allowed = re.sub(r"\W", "_", str(part[key]).lower(), flags=re.ASCII)
            if allowed != part[key]:
                part[key] = allowed
                self.notes.left(
                    f"{service.path}.environment.{variable}", f"a name has small letters: {allowed} was written"
                )
        file = service.env.get("POSTGRES_PASSWORD_FILE") or ""
        name = self.secrets.mounted(PurePath(file).name, self.notes) if file else "database-password"
        if not file:
            self.secrets.values[name] = service.env.get("POSTGRES_PASSWORD") or self._made(service)
        self.secrets.passwords[TierName.DATABASE] = name
        part |= {"password": name} if name != "database-password" else {}
        scripts = [mount.source for mount in service.mounts if mount.first_sql]
        if files := [self._relative(source) for source in scripts if source.endswith(".sql")]:
            part["init"] = files
        for source in scripts:
            if not source.endswith(".sql"):
                self.notes.left(
                    f"{service.path}.volumes", f"name the SQL files of {self._shown(source)} in app.database.init"
                )
        for key in sorted(set(service.env) & {"POSTGRES_INITDB_ARGS", "POSTGRES_HOST_AUTH_METHOD", "PGDATA"}):
            self.notes.left(
                f"{service.path}.environment.{key}", "the database is made with checksums, UTF-8 and a password"
            )
        if service.command:
            self.notes.left(
                f"{service.path}.command", "settings of PostgreSQL belong into an image, or into ALTER SYSTEM"
            )
        return part

    def _cache(self, service: Given) -> Plain:
        command = " ".join(service.command)
        password_option = re.search(r"--requirepass[ =]['\"]?([^\s'\"$]+)", command)
        self.secrets.values["cache-password"] = password_option[1] if password_option else self._made(service)
        self.secrets.passwords[TierName.CACHE] = "cache-password"
        if re.sub(r"(redis|valkey)-server|--(appendonly|requirepass)[ =]\S+", "", command).strip():
            self.notes.left(
                f"{service.path}.command", "the queue is kept and has a password; other settings belong into an image"
            )
        return {}

    def _made(self, service: Given) -> str:
        self.notes.taken(
            service.path, "it had no password and has one now, as every database and cache; it is a secret"
        )
        return self.password()

    # ---- web, api and worker

    def _service(self, tier: TierName, service: Given, size: Plain) -> Plain:
        part = self._source(service)
        if tier in PORTS:
            part["port"] = self._port(service, tier)
        part |= self._health(service, tier)
        needs = [
            need for need in TierName if need in MAY_NEED[tier] & set(self.tiers) and service.talks_to(self.tiers[need])
        ]
        part |= {"needs": [need.value for need in needs]} if needs else {}
        self._mounts(service, part)
        self._run(service, part)
        settings = Reader(self.services, self.roles, self.secrets, self.notes).read(service, tier)
        part |= {"env": settings.env} if settings.env else {}
        size |= {"env": settings.here} if settings.here else {}
        data_passwords = {self.secrets.passwords.get(need) for need in needs}
        secrets = [name for name in dict.fromkeys(settings.secrets) if name not in data_passwords]
        part |= {"secrets": secrets} if secrets else {}
        if grace := _seconds(str(service.raw.get("stop_grace_period", ""))):
            part["stop_within"] = f"{grace}s"
        user = str(service.raw.get("user") or "10001").partition(":")[0]
        if not user.isdecimal() or int(user) <= 10_000:
            self.notes.left(
                f"{service.path}.user", f"{user} may be a user of the host; it runs as 10001: have the image allow that"
            )
        elif int(user) != 10_001:
            part["user"] = int(user)
        return part

    def _source(self, service: Given) -> Plain:
        path = service.path
        if not service.build:
            if service.tag not in ("", "latest"):
                return {"image": service.image}
            self.notes.left(f"{path}.image", "it names no version; 1.0.0 was written: name the one you tested")
            return {"image": f"{service.image.removesuffix(':latest')}:1.0.0"}
        part: Plain = {"build": self._relative(str(service.build["context"]))}
        if target := service.build.get("target"):
            part["target"] = target
        if (file := str(service.build.get("dockerfile") or "Dockerfile")) != "Dockerfile":
            self.notes.left(
                f"{path}.build.dockerfile", f"the folder's Dockerfile is built, not {self._shown(file)}; rename it"
            )
        if service.build.get("args"):
            self.notes.left(f"{path}.build.args", "write them into the Dockerfile, as defaults of its ARGs")
        if service.build.get("secrets") or service.build.get("ssh"):
            self.notes.left(f"{path}.build.secrets", "images are built without; fetch beforehand what needs them")
        return part

    def _port(self, service: Given, tier: TierName) -> int:
        for published, target in service.ports[1:]:
            self.notes.left(
                f"{service.path}.ports", f"{published or target} is a second one; a tier listens on one port"
            )
        if service.port is None:
            self.notes.taken(
                service.path, f"nothing says where it listens; {PORTS[tier]} was written into app.{tier}.port"
            )
        elif service.port < 1024:
            wrong = f"only root may listen on {service.port}"
            self.notes.left(f"{service.path}.ports", f"{wrong}; have it listen on {PORTS[tier]}, as is written now")
        else:
            return service.port
        return PORTS[tier]

    def _health(self, service: Given, tier: TierName) -> Plain:
        if tier not in PORTS:
            return {"alive": service.check} if service.check else {}
        if service.asks:
            return {"health": service.asks[2] or "/"}
        why = "its healthcheck asks for no URL" if service.check else "it has no healthcheck"
        path = "/" if tier is TierName.WEB else "/health"
        self.notes.taken(
            f"{service.path}.healthcheck", f"{why}; {path} was taken: name in app.{tier}.health what answers 200"
        )
        return {"health": path}

    def _mounts(self, service: Given, part: Plain) -> None:
        path, context = f"{service.path}.volumes", str(service.build.get("context", ""))
        edited: dict[str, str] = {}
        for mount in service.mounts:
            if not mount.source:
                self.notes.implied(
                    path, f"{mount.target}: a volume without a name keeps nothing; the image has its content"
                )
            elif not mount.of_host:
                part.setdefault("volumes", {})[as_name(mount.source)] = mount.target
            elif mount.target.startswith("/run/secrets"):
                self.notes.left(
                    path, f"name each file of {self._shown(mount.source)} in secrets, and set it in `make shell`"
                )
            elif context and _inside(mount.source, context) and not PurePath(mount.source).suffix:
                edited[self._relative(mount.source)] = mount.target
            else:
                self.notes.left(
                    path, f"{self._shown(mount.source)} is of the host; COPY it into the image, or make it a volume"
                )
        part |= {"reload": {"mounts": edited}} if edited else {}
        memory = [
            target for entry in listing(service.raw, "tmpfs") if (target := str(entry).partition(":")[0]) != "/tmp"
        ]
        part |= {"writable": ["/tmp", *memory]} if memory else {}

    def _run(self, service: Given, part: Plain) -> None:
        """Convert the command, and the steps that precede it in a shell: `migrate && collectstatic && serve`."""
        path = f"{service.path}.command"
        if service.raw.get("entrypoint"):
            self.notes.taken(
                f"{service.path}.entrypoint", "written into the command; one of the image's own comes before it"
            )
        *before, command = _apart(service.command)
        for step in before:
            self._step(part, step, path)
        if command and "reload" in part and _WATCHES.search(" ".join(command)):
            part["reload"] = {"command": command, **part["reload"]}
            self.notes.taken(path, "it looks like development's, and is the reload's; elsewhere the image's own runs")
        elif command:
            part["command"] = command

    def _step(self, part: Plain, command: list[str], path: str) -> None:
        if _MIGRATES.search(" ".join(command)) and "migrate" not in part:
            part["migrate"] = {"command": command}
            self.notes.taken(path, "what migrates runs once in every release, as migrate")
        else:
            name = _named_after(command)
            part.setdefault("tasks", {})[name] = {"command": command}
            self.notes.taken(path, f"what ends runs once in every release, as tasks.{name}")

    def _steps(self, parts: Mapping[TierName, Plain]) -> None:
        """Convert services that run to their end into steps of the tier that runs the same image."""
        for service in self.roles.once:
            tiers = [candidate for candidate in (TierName.API, TierName.WORKER, TierName.WEB)
                    if candidate in self.tiers and self.tiers[candidate].source == service.source]  # fmt: skip
            if not tiers:
                self.notes.left(
                    service.path, "it runs once, and no tier runs its image; run it by hand, or make it a tier's task"
                )
            elif "seed" in service.words:
                parts[tiers[0]]["seed"] = {"command": service.command}
                self.notes.taken(service.path, f"it is app.{tiers[0]}.seed, which runs where environment.seed is true")
            else:
                self._step(parts[tiers[0]], service.command, service.path)

    # ---- the environment

    def _size(self, service: Given) -> Plain:
        path, deploy = service.path, mapping(service.raw, "deploy")
        size: Plain = {}
        replicas = int(deploy.get("replicas") or service.raw.get("scale") or 1)
        if replicas > 1 and self.roles.tier(service.name) in DATA:
            self.notes.left(f"{path}.deploy.replicas", "database and cache run once")
        elif replicas > 1:
            size["replicas"] = replicas
        if cpu := service.limits.get("cpus") or service.raw.get("cpus"):
            size["cpu"] = float(cpu)
        if memory := service.limits.get("memory") or service.raw.get("mem_limit"):
            size["memory"] = _memory(str(memory))
        if mapping(deploy, "resources").get("reservations"):
            self.notes.left(
                f"{path}.deploy.resources.reservations", "an engine reserves nothing; on Kubernetes it is `reserve`"
            )
        if "placement" in deploy:
            self.notes.left(
                f"{path}.deploy.placement", "on Kubernetes tiers are spread over hosts and zones; else nothing"
            )
        return size

    def _gateway(self) -> Plain:
        published = {tier: self.tiers[tier].published for tier in PORTS if tier in self.tiers}
        api = published.get(TierName.API)
        proxy_port = next((proxy.published for proxy in self.roles.proxies if proxy.published), None)
        port = published.get(TierName.WEB) or proxy_port or api
        if not port:
            return {}
        self.notes.taken("environment.gateway", "it listens on 127.0.0.1; `address: 0.0.0.0` opens it to the network")
        return {"port": port} | ({"ports": {TierName.API.value: api}} if api and api != port else {})

    # ---- all that has not been spoken of

    def _rest(self) -> None:
        tiers = {service.name for service in self.tiers.values()}
        for service in self.services.values():
            for key in [key for key in service.raw if key not in _READ]:
                if key in IMPLIED:
                    self.notes.implied(f"services.*.{key}", IMPLIED[key])
                elif service.name in tiers:
                    self.notes.left(f"{service.path}.{key}", ADVICE.get(key, _NOTHING_LIKE_IT))
            if set(service.after.values()) - {"service_started"}:
                self.notes.implied(
                    "services.*.depends_on", "a tier starts when what it needs is healthy, after the migration"
                )
        for name in mapping(self.compose, "configs"):
            self.notes.left(f"configs.{name}", ADVICE["configs"])

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.folder)

    def _shown(self, path: str) -> str:
        return os.path.relpath(path, self.base) if _inside(path, self.base) else path


def _apart(command: list[str]) -> list[list[str]]:
    """Return the commands that a shell runs one after the other. A script that needs one shell is not split."""
    shell = len(command) == 3 and re.fullmatch(r"(/bin/)?(ba|a)?sh", command[0]) and command[1] in ("-c", "-ec", "-lc")
    if not shell or "&&" not in command[2]:
        return [command]
    steps = _steps(command[2])
    if not steps:
        return [command]
    # A step without shell syntax becomes a list of words.
    return [shlex.split(text) if not re.search(r"[$|;<>*`(]", text) else [*command[:2], text] for text in steps]


_OF_ONE_SHELL = re.compile(
    r"(cd|export|set|unset|source|\.|alias|umask|ulimit|trap|eval|shift|read|wait|if|then|elif|else|fi|for|while|until|case|do|done"
    r"|function|\{|\}|\(|\[|\[\[|!|\w+=\S*)(\s|$)"
)
"""Matches the first word of a step that affects the other steps in the same shell."""


def _steps(script: str) -> list[str]:
    """Return the steps of a script joined by `&&`, or an empty list if they can't be run separately."""
    quote, begin, steps = "", 0, list[str]()
    for position, character in enumerate(script):
        if position < begin:
            continue  # This is the second character of an `&&`.
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
    if quote or not all(steps) or any(_OF_ONE_SHELL.match(text) for text in steps):
        return []
    return steps


_COMMON = {
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


def _named_after(command: Sequence[str]) -> str:
    words = [word for word in command if word not in _COMMON and re.match(r"[a-z]", word) and " " not in word]
    return as_name(words[0].partition(".")[0]) if words else "prepare"


def _memory(text: str) -> str:
    """Return a size of Compose (bytes, `512m` or `1GB`) in the notation of the configuration."""
    match = re.fullmatch(r"([\d.]+)([bkmg]?)b?", text.lower())
    if not match:
        return text
    size = int(float(match[1]) * {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}[match[2]])
    return f"{size // 2**30}Gi" if size and size % 2**30 == 0 else f"{size // 2**20}Mi"


def _seconds(text: str) -> int:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])(?!s)", text))


def _inside(path: str, folder: str) -> bool:
    return PurePath(path).is_relative_to(folder)
