"""Texts and queries of `app.figures` and the runbook's address in Prometheus' rules and Grafana's dashboard, checked by promtool."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components import alerts, dashboard
from components.alerts import Watched
from components.config import ConfigError, load_app, load_environment
from components.platforms import prometheus
from components.promql import problem

from .test_monitoring import promtool

APP: dict[str, Any] = {"name": "shop", "version": "1", "api": {"image": "x:1", "port": 8000, "metrics": "/metrics"}}
GOOD = [
    "x{$here}",
    "sum(rate(shop_orders_total{$here}[5m]))",
    'sum by (kind) (increase(x{$here,kind!~"a|b"}[1h])) / on (kind) group_left () y{$here}',
    "x{$here} > bool 1",
    'x{a="{{", $here}',
    'label_replace(x{$here}, "a", "$1", "b", "(.*)")',
    "max_over_time(x{$here}[1h:1m] offset 1d)",
    "x{$here} # comment (",
    "vector(1) + 0 * scalar(x{$here})",
    'x{$here,a="😀 }) $value"}',
    "x{$here,} @ end()",
    "topk(3, x{$here})",
]
BAD = [
    "sum(x{$here}",
    "sum(x{$here}))",
    "x{$here",
    'x{a="$here"}',
    "x{a='$here'}",
    "x{a=`$here`}",
    "x{$here} # $here",
    '"$here"',
    "x{$here}[5m]",
    "(x{$here}[5m:1m])",
    "x{$hereafter}",
    'x{$here or a="b"}',
    "rate(x{$here})",
    "unknown(x{$here})",
    'x{$here,a=~"("}',
    "$here",
    "x{$here} y",
    'x{$here,a="unfinished}',
    "(" * 3000 + "x{$here}" + ")" * 3000,
    "-" * 5000 + "x{$here}",
]
TEXTS = ["{{", "{{ $value }}", "}}", "{{{", "{{{{", "a {{- /* */ -}} b", "{{ `x` }}", '{{ "{{" }}', "{{ template", "%s $labels", "😀 ü \\ud83d \\\\",
         'quote " \' `', "two\nlines", "\x01 tab\t", "<script>", "${source} [[source]] $__from", "ends with {"]  # fmt: skip


def watched(figures: dict[str, Any], **monitoring: Any) -> Watched:
    app = load_app(APP | {"figures": figures})
    environment = load_environment({"platform": "docker", "monitoring": monitoring or True}, app)
    return Watched(app=app, environment=environment, namespace="shop-t")


@pytest.mark.parametrize("query", GOOD)
def test_query_that_prometheus_takes_is_accepted(query: str) -> None:
    assert problem(query, "$here") == ""


@pytest.mark.parametrize("query", BAD, ids=lambda query: ascii(query)[:40])
def test_query_that_prometheus_refuses_is_refused_by_path(query: str) -> None:
    with pytest.raises(ConfigError, match=r"^app\.figures\.f\.query: .*; write it like"):
        watched({"f": {"query": query}})


def test_promtool_takes_rules_of_all_texts_and_queries(tmp_path: Path) -> None:
    figures = {f"q{number}": {"query": query, "above": 1} for number, query in enumerate(GOOD)}
    figures |= {f"t{number}": {"query": "x{$here}", "help": text, "above": 1} for number, text in enumerate(TEXTS)}
    one = watched(figures)
    for name, text in prometheus.files(one).items():
        (tmp_path / Path(name).name).write_text(text.replace(prometheus.CONFIG, str(tmp_path)))
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    queries = {f"q{number}": query for number, query in enumerate(dashboard.queries(one))}
    rules = [{"record": f"query_{name}", "expr": query} for name, query in queries.items()]
    (tmp_path / "queries.yml").write_text(prometheus.yaml({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "queries.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_summary_of_an_alert_shows_the_text_as_written(tmp_path: Path) -> None:
    """promtool fires the alerts of all texts and compares what their templates write."""
    figures = {f"t{number}": {"query": "x{$here}", "help": text, "above": 1} for number, text in enumerate(TEXTS)}
    one = watched(figures)
    (tmp_path / "rules.yml").write_text(prometheus.yaml(alerts.file(one)))
    expected = [
        {
            "exp_labels": {"namespace": "shop-t", "severity": "warning", "figure": f"t{number}"},
            "exp_annotations": {
                "summary": f"shop-t: {text}: 2, which is beyond 1",
                "runbook_url": "docs/runbook.md#a-figure-is-beyond",
            },
        }
        for number, text in enumerate(TEXTS)
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": 'x{namespace="shop-t"}', "values": "2x20"}],
        "alert_rule_test": [{"eval_time": "15m", "alertname": "FigureIsBeyond", "exp_alerts": expected}],
    }
    file = tmp_path / "test.yml"
    file.write_text(prometheus.yaml({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plain_texts_keep_their_bytes() -> None:
    """Rules and configuration of a deployed Prometheus are its inputs."""
    assert alerts.literal("Orders, each hour: 5 % } {x}") == "Orders, each hour: 5 % } {x}"
    assert prometheus.yaml({"a": "ü\\ $"}) == json.dumps({"a": "ü\\ $"}, indent=1)
    assert (
        dashboard.literal("costs $5 [x] $sources of ${x}") != "" and dashboard.literal("$5 [x] ${x}") == "$5 [x] ${x}"
    )


@pytest.mark.parametrize("text", ["$source", "${source}", "${source:raw}", "[[source]]", "$__from", "${__user.login}"])
def test_title_of_a_panel_has_no_variable_of_grafana(text: str) -> None:
    shown = dashboard.literal(text)
    assert not re.search(r"\$(source|__)|\$\{(source|__)|\[\[(source|__)", shown)
    assert shown.replace("\u2060", "") == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.05, "0.05"), (1234567.0, "1234567.0"), (0.1234567, "0.1234567")]
)
def test_limit_of_a_figure_is_written_without_loss(value: float, text: str) -> None:
    assert alerts.number(value) == text


@pytest.mark.parametrize("above", [float("nan"), float("inf"), "text"])
def test_limit_that_is_no_number_is_refused(above: Any) -> None:
    with pytest.raises(ConfigError, match=r"app\.figures\.f\.above"):
        watched({"f": {"query": "x{$here}", "above": above}})


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "JavaScript:x", "data:text/html,x", "docs/{{ .Value }}", "https://", "ftp://x/y", "", " docs", "a b", "https://x/ y",
     'https://x/"onclick="', "docs/runbook.md#restore", "vbscript:x", "\nhttps://x", "https://x\n"],
)  # fmt: skip
def test_runbook_that_is_no_page_is_refused(link: str) -> None:
    with pytest.raises(ConfigError, match=r"environment\.monitoring\.runbook: .*; write a path like docs/runbook\.md"):
        watched({}, runbook=link)


@pytest.mark.parametrize(
    "link", ["docs/runbook.md", "/ops/runbook", "https://wiki.example.com/ops?page=Shop:+runbook", "http://x"]
)
def test_runbook_that_is_a_page_is_linked(link: str) -> None:
    rules = alerts.alerts(watched({}, runbook=link))
    assert all(rule["annotations"]["runbook_url"].startswith(f"{link}#") for rule in rules)
