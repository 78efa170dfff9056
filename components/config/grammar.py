"""Grammars of values that platforms accept: image references, host names, cron expressions, object names, paths.

Each check returns a valid value, and raises `RefusalError` for an invalid value. All functions are pure. Comments name the
source of each rule. Compare each rule with newer versions of its source.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from posixpath import normpath
from typing import NoReturn
from urllib.parse import urlsplit

from ..model.schedules import Schedule, posix_rule


class RefusalError(ValueError):
    """A value that a platform would refuse."""

    def __init__(self, wrong: str, fix: str) -> None:
        """Create the error.

        Args:
            wrong: the problem of the value.
            fix: what to write instead.
        """
        super().__init__(f"{wrong}; {fix}")
        self.wrong, self.fix = wrong, fix


# ---------------------------------------------------------------------- values in messages


def describe(value: object, limit: int = 60) -> str:
    """Return a value as text for messages: one line of at most `limit` characters. For a mapping or a list return `kind`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**18:
            return "a number of more than 18 digits"
        case int() | float():
            return f"{value:.17g}" if isinstance(value, float) else str(value)
        case str():
            short = value if len(value) <= limit else f"{value[: limit - 1]}…"
            return repr(short) if short.isprintable() else ascii(short)
        case _:
            return kind(value)


def kind(value: object) -> str:
    """Return the name of the type of a YAML value, for messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return "no value of YAML"


def _refuse(value: object, noun: str, fix: str) -> NoReturn:
    raise RefusalError(f"{describe(value, 80)} is not {noun}", fix)


def text_of(value: object, noun: str, fix: str) -> str:
    """Return the value if it is text.

    Args:
        value: value to check.
        noun: expected kind of value, for the error.
        fix: what to write instead, for the error.

    Raises:
        RefusalError: the value has another type.
    """
    return value if isinstance(value, str) else _refuse(value, noun, fix)


def matching(value: object, pattern: str, noun: str, fix: str) -> str:
    """Return the value if it is text and the whole text matches the pattern.

    Args:
        value: value to check.
        pattern: regular expression of valid values.
        noun: expected kind of value, for the error.
        fix: what to write instead, for the error.

    Raises:
        RefusalError: the value does not match.
    """
    text = text_of(value, noun, fix)
    return text if re.fullmatch(pattern, text, re.ASCII) else _refuse(value, noun, fix)


# ---------------------------------------------------------------------- image references
# Sources: github.com/distribution/reference v0.6.0, regexp.go and normalize.go; digests: github.com/opencontainers/go-digest v1.0.0.

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::(\d+))?"
_TAG = r"\w[\w.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_ALGORITHMS = ("sha256", "sha384", "sha512")
"""Names of hash algorithms. Docker refuses them as names of images (daemon/images/image_tag.go), because `sha256:TAG` looks
like a digest."""
NAME_LENGTH = 255
"""Maximum length of the name of an image with its registry, in characters."""

AN_IMAGE = "write it like nginx:1.27, or like name@sha256:… with the 64 digits of the digest"


def image(value: object) -> str:
    """Check an image reference with a tag or a digest.

    Raises:
        RefusalError: the value is not an image reference, has neither tag nor digest, or has the tag `latest` without a digest.
    """
    noun = "an image with a tag or digest"
    text = text_of(value, noun, AN_IMAGE)
    tagged, at, digest = text.partition("@")
    if at and not re.fullmatch(_DIGEST, digest):
        raise RefusalError(f"{describe(digest, 80)} is not a digest", "write sha256: and its 64 digits (0-9, a-f)")
    head, slash, last = tagged.rpartition("/")
    name, colon, tag = last.rpartition(":") if ":" in last else (last, "", "")
    if not (at or colon):
        _refuse(value, noun, AN_IMAGE)
    if colon and not re.fullmatch(_TAG, tag, re.ASCII):
        fix = "use at most 128 letters, digits, dots, dashes and underscores, and don't begin with a dot or dash"
        raise RefusalError(f"{describe(tag)} is not a tag of an image", fix)
    _image_name(f"{head}{slash}{name}", value, noun, AN_IMAGE)
    if tagged.rpartition(":")[0] in _ALGORITHMS:
        fix = "write the name of the image and its digest in the registry, as in name@sha256:…"
        raise RefusalError(f"{describe(value, 80)} is an image id, which exists on one engine only", fix)
    if tag == "latest" and not at:
        raise RefusalError(
            f"{describe(value, 80)} has the tag latest, which may name another image tomorrow",
            "write the version that you tested",
        )
    return text


def repository(value: object) -> str:
    """Check the prefix of image names: a registry, a namespace in a registry, or both.

    Raises:
        RefusalError: the value is not a valid prefix of an image name.
    """
    noun, fix = "a registry or a namespace of images", "write it like ghcr.io/team"
    text = text_of(value, noun, fix)
    _image_name(f"{text}/x", value, noun, fix)
    return text


def _image_name(name: str, value: object, noun: str, fix: str) -> None:
    first, slash, rest = name.partition("/")
    domain = bool(slash) and (any(mark in first for mark in ".:") or first == "localhost")
    path = rest if domain else name
    if path != path.lower():
        raise RefusalError(f"{describe(value, 80)} has capitals in its name", "write the name in lower case")
    if not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", path) or re.fullmatch(r"[0-9a-f]{64}", name):
        _refuse(value, noun, fix)
    if domain:
        match = re.fullmatch(_DOMAIN, first)
        if not match:
            _refuse(value, noun, fix)
        _check_port(match[1], "use the port of the registry, from 1 to 65535")
    if len(name) > NAME_LENGTH:
        raise RefusalError(f"{describe(value)} is too long", f"use a name of at most {NAME_LENGTH} characters")


def port(value: object) -> int:
    """Check a port.

    Raises:
        RefusalError: the value is not a whole number from 1 to 65535.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise RefusalError(f"{describe(value)} is not a port", "use a whole number from 1 to 65535, without quotes")
    return value


def _check_port(digits: str | None, fix: str = "use a port from 1 to 65535") -> None:
    """Check the port in an address. `digits` is the port as text; None if the address has no port."""
    if digits and (len(digits) > 5 or digits.startswith("0") or int(digits) > 65535):
        raise RefusalError(f"{describe(digits)} is not a port", fix)


# ---------------------------------------------------------------------- host names and addresses
# Source for host names: RFC 1123, 2.1. Source for hosts of routes: Gateway API v1 (shared_types.go, Hostname), which requires
# lower case, refuses addresses, and allows `*.` only at the beginning.

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_BYTE = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"


def host(value: object) -> str:
    """Check the host name or IPv4 address of a server that containers connect to.

    Raises:
        RefusalError: the value is neither a host name nor an IPv4 address, or means the container itself (localhost).
    """
    fix = "write it like db.example.com"
    _no_capitals(value)
    text = _short(matching(value, _HOST, "a host name", fix), 253)
    _no_number(text, fix)
    _not_itself(text)
    return text


def _no_capitals(value: object) -> None:
    if isinstance(value, str) and value != value.lower() and re.fullmatch(rf"(\*\.)?{_HOST}", value.lower(), re.ASCII):
        raise RefusalError(f"{describe(value)} has capitals", "write it in lower case")


def _no_number(text: str, fix: str) -> None:
    """Refuse a host name with a number as its last label, unless it is an IPv4 address. Resolvers read such a name as an address
    (RFC 1123, 2.1)."""
    if text.removesuffix(".").rpartition(".")[2].isdecimal() and not re.fullmatch(_IPV4, text):
        raise RefusalError(f"{describe(text)} ends with a number, but is not an IPv4 address", fix)


def _not_itself(text: str) -> None:
    if text.removesuffix(".") in ("localhost", "0.0.0.0") or re.fullmatch(rf"127\.{_BYTE}\.{_BYTE}\.{_BYTE}", text):
        fix = "use a name or address at which containers reach the server, such as db.example.com"
        raise RefusalError(f"{describe(text)} means the container itself", fix)


def route_host(value: object) -> str:
    """Check the host of a route of the Gateway API. The host may begin with `*.`.

    Raises:
        RefusalError: the value is not a host name, or is an IP address.
    """
    fix = "write it like app.example.com"
    _no_capitals(value)
    text = matching(value, rf"(\*\.)?{_HOST}", "a host name", fix)
    _no_address(text)
    _no_number(text, fix)
    return _short(text, 253)


def exact_host(value: object) -> str:
    """Check the host of a route that only one service answers, so it stands for no other hosts.

    Raises:
        RefusalError: the value is not a host name, is an IP address, or begins with `*.`.
    """
    text = route_host(value)
    if text.startswith("*."):
        raise RefusalError(f"{describe(text)} stands for many hosts", "write one of them, as in admin.example.com")
    return text


def _no_address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        return
    raise RefusalError(
        f"{describe(text)} is an IP address, and a route needs a host name", "write a name, as in app.example.com"
    )


def _short(text: str, most: int) -> str:
    if len(text) > most:
        raise RefusalError(f"{describe(text)} is too long", f"use at most {most} characters")
    return text


AN_ADDRESS = "write it like https://example.com"


def address(value: object) -> str:
    """Check the address of a server that containers connect to: scheme, host and port.

    Raises:
        RefusalError: the value is not an address, has a path, or its host means the container itself (localhost).
    """
    text, name = _address(value)
    _not_itself(name)
    return text


def _address(value: object) -> tuple[str, str]:
    """Check an address. Return the address and its host."""
    noun = "an address of scheme, host and port"
    text = text_of(value, noun, AN_ADDRESS)
    match = re.fullmatch(rf"https?://({_HOST})\.?(?::(\d+))?(.*)", text, re.ASCII | re.DOTALL)
    if re.match(r"https?://[^/?#]*@", text):
        # The message has no value: the text before `@` may be a password.
        raise RefusalError(
            "the address contains a user name (user@host)", "remove the user name, the password and the @"
        )
    if not match and text != text.lower() and re.match(rf"https?://{_HOST}", text.lower()):
        raise RefusalError(f"{describe(value, 80)} has capitals in its scheme or host", "write them in lower case")
    if not match:
        _refuse(value, noun, AN_ADDRESS)
    *_, digits, rest = match.groups()
    if rest.startswith(("/", "?", "#")):
        raise RefusalError(f"{describe(value, 80)} has a path", f"remove {describe(rest)}")
    if rest or len(match[1]) > 253:
        _refuse(value, noun, AN_ADDRESS)
    _check_port(digits)
    _no_number(match[1], AN_ADDRESS)
    return text, match[1]


def public_address(value: object) -> str:
    """Check the address that users open through a route of the Gateway API.

    Raises:
        RefusalError: the value is not an address, or its host is an IP address.
    """
    text, name = _address(value)
    if (urlsplit(text).hostname or "").endswith("."):
        raise RefusalError(f"{describe(text, 80)} has a host that ends with a dot", "remove the dot")
    _no_address(name)
    return text


def cidr(value: object) -> str:
    """Check an address range of a NetworkPolicy. Host bits may be set, as in 10.1.2.3/8.

    Raises:
        RefusalError: the value is not an address range.
    """
    noun, fix = "a range of addresses", "write it like 10.0.0.0/8"
    text = text_of(value, noun, fix)
    try:
        if re.fullmatch(r"[0-9a-fA-F.:]{2,45}/\d{1,3}", text, re.ASCII):
            ip_network(text, strict=False)
            return text
    except ValueError:
        pass
    _refuse(value, noun, fix)


def docker_host(value: object) -> str:
    """Check the address of a Docker engine: a socket, a host over ssh, or a TCP port.

    Raises:
        RefusalError: the value is not the address of an engine, or a TCP address has no port.
    """
    noun = "the address of an engine"
    fix = "write it like unix:///var/run/docker.sock, ssh://user@host or tcp://host:2376"
    text = text_of(value, noun, fix)
    if re.fullmatch(r"unix:///[^\s]+", text):
        return text
    match = re.fullmatch(
        r"(ssh|tcp)://(?!-)(?:[A-Za-z0-9_.-]+@(?!-))?([A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\])(?::(\d+))?/?", text, re.ASCII
    )
    if not match:
        _refuse(value, noun, fix)
    if match[1] == "tcp" and not match[3]:
        raise RefusalError(f"{describe(value)} has no port", "add it, as in tcp://host:2376")
    _check_port(match[3])
    return text


# ---------------------------------------------------------------------- names and labels of Kubernetes
# Source: k8s.io/apimachinery v0.33, pkg/util/validation/validation.go.


def subdomain(value: object) -> str:
    """Check the name of an object (RFC 1123 subdomain).

    Raises:
        RefusalError: the value is not a valid name.
    """
    label = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
    fix = "use lower-case letters, digits, dots and dashes, and begin and end each part between dots with a letter or digit"
    return _short(matching(value, rf"{label}(\.{label})*", "a name that every platform accepts", fix), 253)


_QUALIFIED = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"


def label_key(value: object) -> str:
    """Check the key of a label: a name, optionally after a domain, as in `example.com/team`.

    Raises:
        RefusalError: the value is not a valid key.
    """
    fix = "write it like release or example.com/team: at most 63 letters, digits, dots, dashes, underscores"
    text = text_of(value, "the key of a label", fix)
    prefix, slash, name = text.rpartition("/")
    if not re.fullmatch(_QUALIFIED, name, re.ASCII) or (slash and not re.fullmatch(_HOST, prefix, re.ASCII)):
        _refuse(value, "the key of a label", fix)
    return text


def label_value(value: object) -> str:
    """Check the value of a label.

    Raises:
        RefusalError: the value is not a valid value of a label.
    """
    fix = "use at most 63 letters, digits, dots, dashes and underscores, and begin and end with a letter or digit"
    return matching(value, _QUALIFIED, "the value of a label", fix)


def secret_key(value: object) -> str:
    """Check a key of a Secret or a ConfigMap.

    Raises:
        RefusalError: the value is not a valid key.
    """
    fix = "use at most 253 letters, digits, dots, dashes and underscores"
    text = matching(value, r"[A-Za-z0-9._-]{1,253}", "a key of a Secret", fix)
    return text if text not in (".", "..") and not text.startswith("..") else _refuse(value, "a key of a Secret", fix)


# ---------------------------------------------------------------------- S3
# Source: docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; Google allows longer names with dots.


def bucket(value: object) -> str:
    """Check the name of a bucket.

    Raises:
        RefusalError: S3 servers refuse the name.
    """
    fix = "use at most 63 lower-case letters, digits, dots and dashes, and begin and end with a letter or digit"
    text = matching(value, _HOST, "the name of a bucket", fix)
    if len(text) > (222 if "." in text else 63) or re.fullmatch(r"\d+(\.\d+){3}", text):
        _refuse(value, "the name of a bucket", fix)
    return text


# ---------------------------------------------------------------------- PostgreSQL
# Sources: src/bin/initdb/initdb.c (get_su_pwd, "role names cannot begin with pg_"; also the databases of a new server), and
# src/backend/parser/gram.y (RoleSpec).

_IDENTIFIER = r"[a-z_][a-z0-9_]{0,62}"
AN_IDENTIFIER = "use at most 63 lower-case letters, digits and underscores, and don't begin with a digit"


def identifier(value: object) -> str:
    """Check that a text is a name that SQL and PromQL accept without quotes, and return it.

    Raises:
        RefusalError: the value is not a valid name.
    """
    return matching(value, _IDENTIFIER, "a name that every platform accepts", AN_IDENTIFIER)


def role(value: object) -> str:
    """Check the name of a PostgreSQL role to create.

    Raises:
        RefusalError: the value is not a valid name, or PostgreSQL reserves the name.
    """
    text = identifier(value)
    if text.startswith("pg_") or text in ("public", "none"):
        raise RefusalError(
            f"{describe(text)} is a name that PostgreSQL reserves (pg_…, public, none)",
            "use another name, such as app",
        )
    return text


def database(value: object) -> str:
    """Check the name of a PostgreSQL database that an application can use.

    Raises:
        RefusalError: the value is not a valid name, or names a template database.
    """
    text = identifier(value)
    if text in ("template0", "template1"):
        raise RefusalError(f"{describe(text)} is a template database of PostgreSQL", "use another name, such as app")
    return text


# ---------------------------------------------------------------------- paths

_OWN_FOLDERS = ("/proc", "/sys", "/dev")
"""Folders of the kernel. There runc refuses a mount (libcontainer/rootfs_linux.go), or the mount would break every process."""
_OPEN_FOLDERS = ("/dev/shm", "/dev/mqueue", "/dev/hugepages")
"""Exceptions from `_OWN_FOLDERS`: folders in which mounts are allowed."""
_PROGRAMS = frozenset(f"{below}/{name}" for below in ("", "/usr") for name in ("bin", "sbin", "lib", "lib64")) | {
    "/usr"
}
"""Folders with the programs and libraries of an image. A mount would hide the programs, so no process could start."""


def normal_path(path: str) -> str:
    """Return the normal form of an absolute path: `//a/./b/` becomes `/a/b`."""
    return f"/{normpath(path).lstrip('/')}"


def within(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` itself or below it."""
    return folder == "/" or normal_path(path) == folder or normal_path(path).startswith(f"{folder}/")


def container_path(value: object) -> str:
    """Check the path of a mount in a container.

    Raises:
        RefusalError: the path is not absolute, is `/`, contains a colon, is in a folder of the kernel, or is a folder with the
            image's programs.
    """
    noun, fix = "an absolute path in the container", "write it like /var/lib/app"
    text = text_of(value, noun, fix)
    if not text.startswith("/") or ".." in text.split("/") or not text.isprintable() or len(text.encode()) > 4000:
        _refuse(value, noun, fix)
    if any(len(part.encode()) > 255 for part in text.split("/")):
        raise RefusalError(f"{describe(value)} has a part of more than 255 bytes, which no file system allows", fix)
    if normal_path(text) == "/":
        raise RefusalError(
            f"{describe(value)} is the root of the container", "name a folder below it, as in /var/lib/app"
        )
    if normal_path(text) in _PROGRAMS:
        fix = "name a folder that only has data, as in /var/lib/app"
        raise RefusalError(
            f"{describe(value)} contains programs and libraries of the image, and a mount would hide them", fix
        )
    # Kubernetes refuses a colon in a mountPath (pkg/apis/core/validation). Docker reads the text after a colon as options.
    if ":" in text:
        raise RefusalError(f"{describe(value)} has a colon", fix)
    if any(within(text, folder) for folder in _OWN_FOLDERS) and not any(
        within(text, open_folder) for open_folder in _OPEN_FOLDERS
    ):
        raise RefusalError(f"{describe(value)} is in a folder of the kernel (/proc, /sys, /dev)", fix)
    return text


_SYSTEM = r"/(bin|boot|dev|etc|lib(32|64)?|proc|run(?!/media/)|sbin|sys|usr(?!/local/)|var/(run|lib/docker))(/.*)?"
_SHARED = r"/(home|root|tmp|var|var/lib|usr/local|run/media)?"


def host_folder(value: object) -> str:
    """Check a folder of the engine's host that a container may write to.

    Raises:
        RefusalError: the path is not absolute, belongs to the host's system, or is shared by all users of the host.
    """
    text = container_path(value)
    if re.fullmatch(f"{_SYSTEM}|{_SHARED}", normal_path(text)):
        raise RefusalError(
            f"{describe(value)} is a system folder of the host",
            "name a folder for this purpose only, like /srv/backups",
        )
    return text


def page(value: object) -> str:
    """Check the link to a page: an address, or a relative path. The link has no fragment, because alerts append one (`#…`).

    Raises:
        RefusalError: the scheme is not http or https, or a character is not valid in a link.
    """
    noun, fix = "a link to a page", "write a path like docs/runbook.md, or an address like https://example.com/runbook"
    return matching(value, r"""https?://[^\s#<>"'{}|\\^`]+|(?!//)[A-Za-z0-9._~/%@+-]+""", noun, fix)


def relative_path(value: object) -> str:
    """Check a path relative to Pulumi.yaml.

    Raises:
        RefusalError: the value is not a path, or is an absolute path.
    """
    noun, fix = "a path relative to Pulumi.yaml", "write it like sql/schema.sql"
    text = text_of(value, noun, fix)
    if not text or text.startswith(("/", "~")) or not text.isprintable() or len(text) > 4000:
        _refuse(value, noun, fix)
    return text


def dockerfile(value: object) -> str:
    """Check the path of a Dockerfile in its build context.

    The path has only characters that a line of .dockerignore reads literally, because builders add the path to this file.

    Raises:
        RefusalError: the value is not such a path, or the path leaves the build context.
    """
    noun, fix = "the path of a Dockerfile", "write it relative to the build context, like docker/api.Dockerfile"
    text = matching(value, rf"{_FILE}(?:/{_FILE})*", noun, fix)
    if {".", ".."} & set(text.split("/")):
        _refuse(value, noun, fix)
    return _short(text, 255)


_FILE = r"[A-Za-z0-9._][A-Za-z0-9._@+-]*"
_URL_CHARACTER = r"[A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2}"


def url_path(value: object) -> str:
    """Check the path of a URL, without a query.

    Raises:
        RefusalError: the value is not a URL path.
    """
    text = matching(value, rf"/(?:{_URL_CHARACTER})*", "a URL path", "write it like /health")
    if text.startswith("//"):
        raise RefusalError(
            f"{describe(value)} begins with two slashes, so browsers read its first part as a host",
            "begin it with one slash",
        )
    if "%00" in text:
        raise RefusalError(f"{describe(value)} has a NUL character (%00), which servers refuse", "remove %00")
    return _short(text, 1024)


def route_path(value: object) -> str:
    """Check the path of a route. The path must have no encoded slashes, empty parts or dot segments.

    Such a path has several spellings, so a request with another spelling could bypass the route. Gateway API v1 also refuses
    these paths (httproute_types.go, HTTPPathMatch).

    Raises:
        RefusalError: the value is not a valid path.
    """
    text = url_path(value)
    if "%2f" in text.lower():
        raise RefusalError(f"{describe(value)} has an encoded slash (%2F)", "write a plain slash, as in /api")
    if "//" in text or {".", ".."} & set(text.split("/")):
        raise RefusalError(f"{describe(value)} has an empty part, or the part `.` or `..`", "write the path like /api")
    return text


def header_value(value: object) -> str:
    """Check the value of a header (RFC 9110, 5.5): one line, without surrounding spaces.

    Raises:
        RefusalError: the value is not valid in an HTTP header.
    """
    noun, fix = "the value of a header", "write it in quotes, on one line"
    text = text_of(value, noun, fix)
    if text != text.strip() or any(ord(mark) < 32 or ord(mark) == 127 for mark in text.replace("\t", " ")):
        _refuse(value, noun, fix)
    if any(ord(mark) > 255 for mark in text):
        # The smoke test reads headers as ISO 8859-1, as Python does (http.client, parse_headers).
        raise RefusalError(
            f"{describe(value)} has a character that is not allowed in a header", "use only ASCII characters"
        )
    return text


# ---------------------------------------------------------------------- times of cron
# Two schedulers must accept an expression, and give it the same meaning:
# - robfig/cron v3 (Kubernetes, CloudNativePG: parser.go). The first day of its week is sun.
# - APScheduler 3 (the backup image: triggers/cron/expressions.py). The first day of its week is mon. It refuses a step that is
#   longer than its range, and a step after a range of names.
# Because of the first day, a range must not begin or end with sun. If a day of the month and a day of the week are set, Kubernetes
# runs the job on either day, and APScheduler only if both match.

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIELDS: Sequence[tuple[str, int, int, tuple[str, ...]]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
A_TIME = 'write daily, weekly, monthly or five fields, as in "30 2 * * mon-fri", with days of the week by name'


def cron(value: object) -> str:
    """Check a cron expression of five fields, and return it with single spaces between the fields.

    Raises:
        RefusalError: a scheduler refuses the expression, schedulers disagree about it, or no date matches it.
    """
    noun = "a cron expression"
    fields = text_of(value, noun, A_TIME).split()
    if len(fields) != 5:
        _refuse(value, noun, A_TIME)
    times = cron_times(fields)
    if not {"*", "*/1"} & {fields[2], fields[4]}:
        wrong = f"{describe(value)} has a day of the month and a day of the week, and schedulers combine the two differently"
        raise RefusalError(wrong, "write * for one of the two")
    if not any(day <= _LENGTHS[month - 1] for day in times[2] for month in times[3]):
        raise RefusalError(
            f"{describe(value)} never occurs: no month of the schedule has this day", "use a day that the month has"
        )
    return " ".join(fields)


def cron_times(fields: Sequence[str]) -> list[set[int]]:
    """Return the times of each of the five fields of a cron expression. Monday is day 0 of the week.

    Raises:
        RefusalError: a field is invalid.
    """
    return [_cron_field(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]


def schedule(expression: str, zone: str) -> Schedule:
    """Return the schedule of a valid cron expression in a time zone."""
    return Schedule.from_times(cron_times(expression.split()), zone)


def time_zone(value: object) -> str:
    """Check the name of a time zone in the IANA database, as in `Europe/Berlin`.

    Raises:
        RefusalError: the database of this machine has no such time zone.
    """
    noun, fix = "a time zone", "write a name of the IANA database, as in Europe/Berlin, or UTC"
    text = text_of(value, noun, fix)
    try:
        posix_rule(text)
    except (LookupError, OSError, ValueError):
        _refuse(value, noun, fix)
    return text


def _cron_field(text: str, field: str, least: int, most: int, names: Sequence[str]) -> set[int]:
    return {time for part in text.split(",") for time in _cron_part(part, field, least, most, names)}


def _cron_part(part: str, field: str, least: int, most: int, names: Sequence[str]) -> Iterable[int]:
    word = "|".join([*names, r"\d{1,2}"]) if field != "day of the week" else "|".join(names)
    match = re.fullmatch(rf"(?:\*|({word})(?:-({word}))?)(?:/(\d{{1,2}}))?", part, re.ASCII)
    if not match:
        raise RefusalError(f"{describe(part)} is not a {field} in a cron expression", A_TIME)
    first, last = (_cron_number(end, least, names) for end in (match[1], match[2]))
    step = int(match[3]) if match[3] else None
    named = [end for end in (match[1], match[2]) if end and not end.isdecimal()]
    if named and (step or len(named) != sum(1 for end in (match[1], match[2]) if end)):
        raise RefusalError(f"{describe(part)} mixes names with numbers or steps", "list the names, as in mon,wed,fri")
    if any(end is not None and not least <= end <= most for end in (first, last)):
        raise RefusalError(f"{describe(part)} is not a {field} in a cron expression", f"use {least} to {most}")
    if last is not None and field == "day of the week" and match[1] != match[2] and "sun" in (match[1], match[2]):
        fix = "list sun separately, as in sat,sun"
        raise RefusalError(
            f"{describe(part)} is a range that begins or ends with sun, but schedulers differ in the first day of the week",
            fix,
        )
    if first is not None and last is not None and first > last:
        raise RefusalError(
            f"{describe(part)} ends before it begins",
            f"write two ranges, as in {_two_ranges(match[1], match[2], names, least, most)}",
        )
    begin = least if first is None else first
    end = most if first is None or (last is None and step) else (first if last is None else last)
    if step is not None and not 1 <= step <= end - begin:
        raise RefusalError(
            f"{describe(part)} has a step that does not fit into its range",
            f"remove /{step}, or use a step from 1 to {end - begin}",
        )
    return range(begin, end + 1, step or 1)


def _cron_number(end: str | None, least: int, names: Sequence[str]) -> int | None:
    if end is None:
        return None
    return int(end) if end.isdecimal() else names.index(end) + least


def _two_ranges(first: str, last: str, names: Sequence[str], least: int, most: int) -> str:
    ends = (names[-1], names[0]) if names else (str(most), str(least))
    return ",".join(a if a == b else f"{a}-{b}" for a, b in ((first, ends[0]), (ends[1], last)))
