"""Tests of the HAProxy configuration of the gateway: routes to both slots, hidden paths, and quoting of values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config.paths import covers, normalise
from components.model.workload import Route
from components.platforms import readiness
from components.platforms.docker.haproxy import configuration, quote, quote_log_format
from components.release.planner import Slot

API = Route(tier="api", prefixes=("/api", "/api/internal"), port=8000, health="/ready", hidden=("/metrics",))
WEB = Route(tier="web", prefixes=("/",), port=8080, health="/health")
CONFIGURATION = configuration({slot: [API, WEB] for slot in Slot}, url="http://127.0.0.1:8080")


@pytest.mark.parametrize("slot", list(Slot))
@pytest.mark.parametrize("route", [API, WEB], ids=lambda route: route.tier)
def test_every_route_has_a_backend_in_both_slots(route: Route, slot: Slot) -> None:
    block = CONFIGURATION.split(f"backend {route.tier}-{slot}\n")[1].split("\n\n")[0]
    assert f" {route.tier}-{slot}:{route.port}" in block
    assert (
        f"http-check send meth GET uri {route.health} ver HTTP/1.1 hdr Host 127.0.0.1:8080 hdr X-Forwarded-Proto http"
        in block
    )
    assert "init-addr last,none" in block


def test_gateway_tries_the_longest_path_prefix_first_and_matches_whole_path_segments() -> None:
    rules = [line.strip() for line in CONFIGURATION.splitlines() if "use_backend" in line and "txn.tier" not in line]
    for slot, slot_rules in zip(Slot, (rules[:3], rules[3:]), strict=True):
        slot_condition = f"{{ var(txn.slot) -m str {slot} }}"
        assert slot_rules == [
            f"use_backend api-{slot} if {slot_condition} {{ var(txn.normal) -m beg -- /api/internal/ }}",
            f"use_backend api-{slot} if {slot_condition} {{ var(txn.normal) -m beg -- /api/ }}",
            f"use_backend web-{slot} if {slot_condition}",
        ]


def test_smoke_test_reaches_every_tier_through_the_gateway_regardless_of_its_paths() -> None:
    for route in (API, WEB):
        assert (
            f"set-var(txn.tier) str({route.tier}) if {{ path {readiness(route)} }} {{ var(txn.asked) -m found }}"
            in CONFIGURATION
        )
        assert f"set-path {route.health} if {{ var(txn.tier) -m str {route.tier} }}" in CONFIGURATION
        assert f"use_backend {route.tier}-green if {{ var(txn.tier) -m str {route.tier} }}" in CONFIGURATION


def test_gateway_uses_for_each_slot_the_routes_of_the_release_in_this_slot() -> None:
    moved = replace(API, port=9000, prefixes=("/v2",), hidden=("/internal",))
    text = configuration({Slot.BLUE: [API, WEB], Slot.GREEN: [moved, WEB]}, url="http://127.0.0.1:8080")
    assert "server-template api 10 api-blue:8000" in text
    assert "server-template api 10 api-green:9000" in text
    assert "use_backend api-green if { var(txn.slot) -m str green } { var(txn.normal) -m beg -- /v2/ }" in text
    assert "use_backend api-blue if { var(txn.slot) -m str blue } { var(txn.normal) -m beg -- /v2/ }" not in text
    assert "if { var(txn.normal) -m beg -- /internal/ } { var(txn.slot) -m str green }" in text


def test_gateway_port_of_a_tier_routes_every_path_to_this_tier() -> None:
    text = configuration({slot: [API, WEB] for slot in Slot}, ["api"], url="http://127.0.0.1:8080")
    assert "  bind :8082" in text.splitlines() and "bind :8081" not in text
    for slot in Slot:
        port_rule = f"use_backend api-{slot} if {{ dst_port 8082 }} {{ var(txn.slot) -m str {slot} }}"
        assert text.index(port_rule) < text.index(f"use_backend web-{slot} if {{ var(txn.slot) -m str {slot} }}")


def test_gateway_denies_requests_to_the_metrics_path_of_a_tier() -> None:
    deny_rule = (
        "http-request deny deny_status 404 if { var(txn.normal) -m beg -- /metrics/ } { var(txn.slot) -m str blue }"
    )
    assert deny_rule in CONFIGURATION
    assert CONFIGURATION.index("set-var(txn.normal)") < CONFIGURATION.index(deny_rule)


def test_gateway_accepts_only_blue_and_green_in_the_slot_header() -> None:
    assert "if { req.hdr(X-Tiers-Slot) blue green }" in CONFIGURATION


def test_gateway_exports_metrics_only_if_enabled() -> None:
    assert "prometheus-exporter" not in CONFIGURATION
    assert "prometheus-exporter" in configuration({Slot.BLUE: [WEB]}, metrics=True, url="http://127.0.0.1:8080")


def test_gateway_retries_requests_only_after_connection_failures() -> None:
    assert "retry-on conn-failure\n" in CONFIGURATION


def test_gateway_routes_requests_with_a_release_cookie_to_the_slot_that_served_the_page() -> None:
    for slot in Slot:
        assert (
            f"set-var(txn.slot) str({slot}) if !{{ var(txn.page) -m found }} {{ req.cook(tiers-release),strcmp(txn.{slot}) eq 0 }}"
            in CONFIGURATION
        )
    assert "tiers-release" not in configuration({Slot.BLUE: [replace(WEB, sticky=False)]}, url="http://127.0.0.1:8080")


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/./metrics",
        "/x/../metrics",
        "/x/%2e%2E/metrics",
        "/metrics/",
        "/metrics/x",
        "/%2Fmetrics",
        "/x%2f..%2fmetrics",
        "/../metrics",
        "/%2e/metrics",
        "/a/b/../../metrics",
        "///x//..//./metrics",
    ],
)
def test_hidden_path_matches_every_spelling_of_the_same_path(path: str) -> None:
    assert covers("/metrics", path)


@pytest.mark.parametrize(
    "path",
    ["/metrics-of-2026", "/METRICS", "/x/metrics", "/metrics/../x", "/%256detrics", "/metric", "/metrics%zz", "/"],
)
def test_hidden_path_does_not_match_similar_paths(path: str) -> None:
    assert not covers("/metrics", path)


segments = st.lists(
    st.sampled_from(["a", "metrics", ".", "..", "", "%2e", "%2F", "%", "%zz", "%C3%A9", "b;c", "+"]), max_size=9
)


@given(segments)
def test_normalised_path_is_absolute_has_no_dot_segments_and_is_not_longer_than_the_original(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    result = normalise(path)
    assert result[:1] == result[-1:] == b"/"
    assert not {b"", b".", b".."} & set(result.split(b"/")[1:-1])
    assert len(result) <= len(path) + 1


@given(segments, segments)
def test_hidden_path_matches_all_its_subpaths_and_the_root_matches_every_path(
    parts: list[str], more: list[str]
) -> None:
    path, below = "/" + "/".join(parts), [part for part in more if part not in ("..", "%2e", "%2F", "%")]
    assert covers("/", path)
    assert covers(path, "/".join([path, *below])) or "%" in parts[-1:]


# ---------------------------------------------------------------------- values


def split_haproxy_line(line: str) -> list[bytes]:
    """Split a line by the quoting rules of HAProxy (configuration manual 2.6, section 2.2)."""
    words: list[bytes] = []
    current: bytearray | None = None
    at = 0
    while at < len(line):
        char = line[at]
        if char == "#":
            break
        if char in '"$':
            raise AssertionError(f"HAProxy does not read the character at {at} as plain text: {line}")
        if char == " ":
            words += [bytes(current)] if current is not None else []
            current, at = None, at + 1
            continue
        current = current or bytearray()
        if char == "'":
            end = line.index("'", at + 1)
            current += line[at + 1 : end].encode()
            at = end + 1
        elif line.startswith("\\x", at):
            current.append(int(line[at + 2 : at + 4], 16))
            at += 4
        else:
            assert char.isprintable() and char.isascii() and char != "\\", line
            current += char.encode()
            at += 1
    return words + ([bytes(current)] if current is not None else [])


values = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b"")) | st.text(
    st.sampled_from("%#'\"\\$ {}()[],;/&|!\n\r\ta0é"), max_size=20
).map(str.encode)


@given(values)
def test_haproxy_reads_any_quoted_value_in_its_configuration_unchanged(value: bytes) -> None:
    assert split_haproxy_line(f"http-request set-path {quote(value)} if x") == [
        b"http-request",
        b"set-path",
        value,
        b"if",
        b"x",
    ]


@given(values)
def test_value_in_an_haproxy_log_format_is_never_read_as_a_log_variable(value: bytes) -> None:
    [result] = split_haproxy_line(quote_log_format(value))
    assert result.replace(b"%%", b"").count(b"%") == 0
    assert result.replace(b"%%", b"%") == value


def test_value_with_a_nul_byte_is_refused_in_the_haproxy_configuration() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("/a\0b")


def test_percent_sign_in_a_readiness_path_is_escaped_in_the_haproxy_configuration() -> None:
    encoded_route = replace(API, health="/a%20b", hidden=("/m%20n",), prefixes=("/caf%C3%A9",))
    text = configuration({Slot.BLUE: [encoded_route, WEB]}, url="http://127.0.0.1:8080")
    assert "http-request set-path /a%%20b if" in text
    assert "http-check send meth GET uri /a%20b ver" in text
    assert "-m beg -- /m\\x20n/ }" in text
    assert "-m beg -- /caf\\xc3\\xa9/ }" in text
