"""Tests of the formats of configuration values.

A format must accept the same values as the program that reads the value, such as Docker, Kubernetes or PostgreSQL.
Most cases come from the tests and bug reports of these programs.
"""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import grammar
from components.config.grammar import RefusalError

HEX = "0123456789abcdef" * 4
ACCEPTED: list[tuple[Callable[[object], str], list[str]]] = [
    (
        grammar.image,
        ["nginx:1.27", "a:1", "a_b:1", "a__b:1", "a--b.c/d:V_1.0-x", "localhost/app:1", "localhost:5000/app:1", "reg.test:65535/a/b:1",
         "GHCR.io/team/app:1", "[::1]:5000/app:1", f"app@sha256:{HEX}", f"app:latest@sha256:{HEX}", f"app:1@sha256:{HEX}",
         f"app@sha512:{HEX}{HEX}", f"{'a' * 255}:{'t' * 128}", "127.0.0.1:5000/x:1"],
    ),
    (grammar.repository, ["ghcr.io/team", "localhost:5000", "team", "registry.test:5000/a/b/c", "a-b", "10.0.0.1:5000"]),
    (grammar.cron,
     ["* * * * *", "*/5 0-23/2 * jan-mar mon-fri", "*/5 0-23/2 1,15 jan-mar *", "30 2 * * sat,sun", "0 0 29 feb *", "0 0 31 * *", "0 0 30-31 feb,mar *", "5/10 * * * *",
      "59 23 31 12 *", "0 0 * * sun-sun", "0 0 * * mon-sat", "0 0 1 1-6 *", "*/59 * * * *"]),
    (grammar.host, ["db", "db.example.com", "10.0.0.5", "a-b.c", "1.2.3.4"]),
    (grammar.route_host, ["app.example.com", "*.example.com", "localhost", "x.localhost"]),
    (grammar.address, ["http://a", "https://a.b:65535", "http://10.0.0.1:9000", "http://g.gw.svc.cluster.local.:80", "https://s3.eu-1.test"]),
    (grammar.public_address, ["https://shop.example.com", "http://x.localhost:8080", "http://localhost:8000"]),
    (grammar.cidr, ["10.0.0.0/8", "10.1.2.3/8", "0.0.0.0/0", "fd00::/8", "2001:DB8::1/128"]),
    (grammar.docker_host, ["unix:///var/run/docker.sock", "ssh://deploy@server", "ssh://server:2222", "tcp://10.0.0.1:2376", "tcp://[::1]:2376"]),
    (grammar.subdomain, ["a", "1", "a-b.c1", "a" * 253]),
    (grammar.label_key, ["release", "example.com/team", "a_b.C-1", "a" * 63]),
    (grammar.label_value, ["prometheus", "A_b.c-1", "1"]),
    (grammar.secret_key, ["password", "tls.crt", "A_b-1", ".dockerconfigjson"]),
    (grammar.bucket, ["shop-backups", "a.b.c"]),
    (grammar.role, ["app", "_a1", "postgres", "pga"]),
    (grammar.database, ["app", "template2", "postgres"]),
    (grammar.container_path, ["/tmp", "/data/", "//data", "/a/./b", "/run", "/var/run", "/dev/shm", "/a b", "/süd", f"/{'a' * 255}", "/usr/local", "/usr/share/nginx"]),
    (grammar.relative_path, ["sql/a.sql", "./a.sql", "../shared/a.sql", "my file.sql"]),
    (grammar.url_path, ["/", "/health", "/a%20b", "/a//b", "/a/../b", "/~a/b.c_d-e/"]),
    (grammar.route_path, ["/", "/api", "/api/", "/a%20b", "/a.b"]),
    (grammar.header_value, ["DENY", "max-age=1; b", "a\tb", "", "süd"]),
]  # fmt: skip
REFUSED: list[tuple[Callable[[object], str], list[str]]] = [
    (
        grammar.image,
        ["", "nginx", "nginx:", ":1", "nginx:latest", "ghcr.io/Team/app:1", "Team/app:1", "app:1:2", "café:1", "app:-x", "app:.x", "a..b:1",
         "a___b:1", "-a:1", "a-:1", "a/:1", "/a:1", "a//b:1", "app@sha256:0", f"app@sha256:{HEX[1:]}", f"app@sha256:{HEX}0",
         f"app@sha256:{HEX.upper()}", f"app@md5:{HEX[:32]}", f"app:1@{HEX}", "reg.test:99999/a:1", "reg.test:0/a:1", "app:1 ", "app:1\n",
         f"a:{'t' * 129}", f"{'a' * 256}:1", f"{HEX}@sha256:{HEX}x", "https://a/b:1", "$(id):1", "a:1@", "../x:1", f"sha256:{HEX}", "sha512:1"],
    ),
    (grammar.repository, ["", "..", ".", "a..b", "https://x", "Team", "reg.test:99999", "a/", "/a", "a//b", "x:tag/y", "a b", "a" * 300]),
    (grammar.cron,
     ["", "daily", "* * * *", "* * * * * *", "30 2 * * sat-sun", "30 2 * * sun-mon", "30 2 * * fri-tue", "0 0 31 feb *", "0 0 30 2 *",
      "0 0 31 4,6,9,11 *", "0 0 30-31 feb mon", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 1", "* * * * 0",
      "*/60 * * * *", "*/0 * * * *", "5-9/5 * * * *", "* * */31 * *", "* * * * */7", "30-10 * * * *", "* * * dec-jan *", "* * * 1-mar *",
      "* * * * mon-fri/2", "* * * jan-jun/2 *", "* * * * monday", "a * * * *", "1,,2 * * * *", ", * * * *", "- * * * *", "@daily", "* * ? * *",
      "٣ * * * *", "0 0 13 * fri", "0 0 */2 * mon", "0 0 1-31 * mon"]),
    (grammar.host, ["", "*.a", "a..b", "-a", "a-", "A", "http://a", "a b", "a:1", "a/b", "a" * 64, ".".join(["a" * 60] * 5), "a_b",
                    "localhost", "127.0.0.1", "127.1.2.3", "0.0.0.0", "1", "1.0", "999.1.1.1", "1.2.3.4.5", "a.1", "010.0.0.1"]),
    (grammar.route_host, ["10.0.0.1", "*", "*.", "a.*.b", "*.*.a", "a..b", "a_b", "A.b", "1.2.3.4.5", "*.1", "999.1.1.1"]),
    (grammar.address, ["", "a", "//a", "ftp://a", "http://", "http://a/", "http://a/b", "http://a?b", "http://a:0", "http://a:99999", "http://a:b",
                       "http://u@a", "http://a..b", "http://[::1]", "http://A", "http://a:",
                       "http://a:080", "http://localhost", "http://localhost.:9000", "https://127.0.0.1:9000", "http://0.0.0.0", "http://1.2.3.4.5"]),
    (grammar.public_address, ["https://a.1", "https://a:0443", "https://10.0.0.1", "https://a.b.", "https://a/b"]),
    (grammar.cidr, ["", "10.0.0.0", "10.0.0.0/33", "999.0.0.0/99", "a/8", "10.0.0.0/8/8", "10.0.0/8", "fd00::/129", "10.0.0.0/255.0.0.0"]),
    (grammar.docker_host, ["", "unix://", "unix:///", "ssh://", "tcp://", "tcp://a:99999", "tcp://a", "tcp://a:02376", "/var/run/docker.sock", "http://a", "ssh://a b",
                           "ssh://-oProxyCommand=id", "ssh://-x", "ssh://a@-x", "ssh://a/../b"]),
    (grammar.subdomain, ["", "a..b", "-a", "a-", "a.-b", "A", "a_b", "a/b", "a" * 254]),
    (grammar.label_key, ["", "a/b/c", "/a", "a/", "-a", "a" * 64, "A B", "Ex.com/a"]),
    (grammar.label_value, ["", "a/b", "-a", "a-", "a b", "a" * 64]),
    (grammar.secret_key, ["", "a b", "a/b", "..", "..a", "a" * 254]),
    (grammar.bucket, ["", "A", "a..b", "a-.b", "192.168.0.1", "a_b", "a" * 64, "-a"]),
    (grammar.role, ["pg_app", "pg_", "public", "none", "", "1a", "A", "a-b", "a" * 64]),
    (grammar.database, ["template0", "template1", "", "a;b"]),
    (grammar.container_path, ["", "a", "/", "//", "///", "/.", "/./", "/a/..", "/../a", "/a:b", "/a\nb", "/proc", "/proc/self", "/dev", "/x" * 3000,
                              f"/{'a' * 256}", f"/a/{'ü' * 128}", "/ü" * 1500, "/usr", "/bin", "//usr/lib/", "/usr/./bin"]),
    (grammar.relative_path, ["", "/etc/passwd", "/var/run/docker.sock", "~/a", "a\nb"]),
    (grammar.url_path, ["", "a", "//a", "/a?b", "/a#b", "/a%2", "/a%zz", "/a b", "/ü", "/a\\b", f"/{'a' * 1024}"]),
    (grammar.route_path, ["//", "/a//b", "/./a", "/a/..", "/a%2fb", "/a%2Fb"]),
    (grammar.header_value, ["a\nb", "a\rb", " a", "a ", "\x01", "\u20ac", "\U0001f600"]),
]  # fmt: skip


def _cases(rules: list[tuple[Callable[[object], str], list[str]]]) -> list[tuple[Callable[[object], str], str]]:
    return [(check, text) for check, texts in rules for text in texts]


@pytest.mark.parametrize(("check", "text"), _cases(ACCEPTED))
def test_value_in_a_valid_format_is_returned_unchanged(check: Callable[[object], str], text: str) -> None:
    assert check(text) == text


@pytest.mark.parametrize(("check", "text"), _cases(REFUSED))
def test_value_in_an_invalid_format_is_refused_with_a_fix(check: Callable[[object], str], text: str) -> None:
    with pytest.raises(RefusalError) as error:
        check(text)
    assert error.value.wrong
    assert error.value.fix
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


@given(
    st.sampled_from([check for check, _ in ACCEPTED]),
    st.text(max_size=30) | st.none() | st.integers() | st.lists(st.text()),
)
def test_any_value_is_accepted_or_refused_by_every_format_check_without_a_crash(
    check: Callable[[object], str], value: object
) -> None:
    try:
        assert check(value) == value or check is grammar.cron
    except RefusalError as error:
        assert len(str(error)) < 300


PARTS = st.sampled_from(["*", "*/2", "1", "0", "5-9", "9-5", "1-31", "31", "30", "feb", "jan-mar", "mar-jan", "mon", "sat-sun", "mon-fri",
                         "sun", "sun-tue", "fri-mon", "5/3", "1-4/3", "1-4/4", "4,5", "2"])  # fmt: skip


@given(st.tuples(PARTS, PARTS, PARTS, PARTS, PARTS))
def test_accepted_cron_schedule_has_an_existing_day_and_no_descending_range(fields: tuple[str, ...]) -> None:
    text = " ".join(fields)
    try:
        grammar.cron(text)
    except RefusalError:
        return
    assert not re.search(r"-sun|sun-|feb-|mar-jan|sat-|fri-", text)
    assert not (fields[2] in ("30", "31") and fields[3] in ("feb", "2"))


@pytest.mark.parametrize(
    ("check", "text", "message"),
    [
        (grammar.public_address, "https://Shop.test", "'https://Shop.test' has capitals in its scheme or host; write them in lower case"),
        (grammar.address, "HTTP://shop.test:80", "'HTTP://shop.test:80' has capitals in its scheme or host; write them in lower case"),
        (grammar.address, "https://me:hidden@shop.test", "the address contains a user name (user@host); remove the user name, the password and the @"),
        (grammar.host, "DB.test", "'DB.test' has capitals; write it in lower case"),
        (grammar.route_host, "*.Shop.test", "'*.Shop.test' has capitals; write it in lower case"),
    ],
)  # fmt: skip
def test_error_about_an_invalid_url_or_host_names_the_wrong_part_and_the_fix(
    check: Callable[[object], str], text: str, message: str
) -> None:
    with pytest.raises(RefusalError) as error:
        check(text)
    assert str(error.value) == message
