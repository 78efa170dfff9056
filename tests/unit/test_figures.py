"""Tests of `app.figures` (business metrics) and `monitoring.runbook` in the Prometheus rules and the Grafana dashboard.

In these tests promtool checks the rendered queries and texts.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from components.config import ConfigError, load_app, load_environment
from components.config.promql import problem
from components.observability import alerts, dashboard
from components.observability.alerts import MonitoringScope
from components.platforms.docker import prometheus

from .test_monitoring import run_promtool

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


def monitoring_scope(figures: dict[str, Any], **monitoring: Any) -> MonitoringScope:
    app = load_app(APP | {"figures": figures})
    environment = load_environment({"platform": "docker", "monitoring": monitoring or True}, app)
    return MonitoringScope(app=app, environment=environment, namespace="shop-t")


@pytest.mark.parametrize("query", GOOD)
def test_valid_promql_query_of_a_business_metric_is_accepted(query: str) -> None:
    assert problem(query, "$here") == ""


@pytest.mark.parametrize("query", BAD, ids=lambda query: ascii(query)[:40])
def test_invalid_promql_query_of_a_business_metric_is_refused_with_the_path_of_the_query(query: str) -> None:
    with pytest.raises(ConfigError, match=r"^app\.figures\.f\.query: .*; write it like"):
        monitoring_scope({"f": {"query": query}})


def test_promtool_accepts_any_text_and_query_of_a_business_metric(tmp_path: Path) -> None:
    figures = {f"q{number}": {"query": query, "above": 1} for number, query in enumerate(GOOD)}
    figures |= {f"t{number}": {"query": "x{$here}", "help": text, "above": 1} for number, text in enumerate(TEXTS)}
    scope = monitoring_scope(figures)
    for name, text in prometheus.files(scope).items():
        (tmp_path / Path(name).name).write_text(text.replace(prometheus.CONFIG, str(tmp_path)))
    result = run_promtool("check", "config", tmp_path / "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    queries = {f"q{number}": query for number, query in enumerate(dashboard.queries(scope))}
    rules = [{"record": f"query_{name}", "expr": query} for name, query in queries.items()]
    (tmp_path / "queries.yml").write_text(prometheus.yaml({"groups": [{"name": "queries", "rules": rules}]}))
    result = run_promtool("check", "rules", tmp_path / "queries.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_alert_summary_contains_the_text_of_the_business_metric_unchanged(tmp_path: Path) -> None:
    """For each text of a metric, fire one alert in promtool. The summary of the alert must equal the text."""
    figures = {f"t{number}": {"query": "x{$here}", "help": text, "above": 1} for number, text in enumerate(TEXTS)}
    scope = monitoring_scope(figures)
    (tmp_path / "rules.yml").write_text(prometheus.yaml(alerts.rule_file(scope)))
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
    result = run_promtool("test", "rules", file)
    assert result.returncode == 0, result.stdout + result.stderr


def test_plain_text_is_rendered_unchanged_in_alert_rules_and_dashboard() -> None:
    """Check the rendered bytes, because a changed byte would replace every deployed Prometheus container."""
    assert alerts.literal("Orders, each hour: 5 % } {x}") == "Orders, each hour: 5 % } {x}"
    assert prometheus.yaml({"a": "ü\\ $"}) == json.dumps({"a": "ü\\ $"}, indent=1)
    assert (
        dashboard.literal("costs $5 [x] $sources of ${x}") != "" and dashboard.literal("$5 [x] ${x}") == "$5 [x] ${x}"
    )


@pytest.mark.parametrize("text", ["$source", "${source}", "${source:raw}", "[[source]]", "$__from", "${__user.login}"])
def test_dashboard_panel_title_contains_no_grafana_variable(text: str) -> None:
    title = dashboard.literal(text)
    assert not re.search(r"\$(source|__)|\$\{(source|__)|\[\[(source|__)", title)
    assert title.replace("\u2060", "") == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.05, "0.05"), (1234567.0, "1234567.0"), (0.1234567, "0.1234567")]
)
def test_business_metric_limit_is_written_without_rounding(value: float, text: str) -> None:
    assert alerts.number(value) == text


@pytest.mark.parametrize("above", [float("nan"), float("inf"), "text"])
def test_business_metric_limit_that_is_not_a_number_is_refused(above: Any) -> None:
    with pytest.raises(ConfigError, match=r"app\.figures\.f\.above"):
        monitoring_scope({"f": {"query": "x{$here}", "above": above}})


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "JavaScript:x", "data:text/html,x", "docs/{{ .Value }}", "https://", "ftp://x/y", "", " docs", "a b", "https://x/ y",
     'https://x/"onclick="', "docs/runbook.md#restore", "vbscript:x", "\nhttps://x", "https://x\n"],
)  # fmt: skip
def test_runbook_link_is_refused_if_the_link_is_not_a_path_or_url(link: str) -> None:
    with pytest.raises(ConfigError, match=r"environment\.monitoring\.runbook: .*; write a path like docs/runbook\.md"):
        monitoring_scope({}, runbook=link)


@pytest.mark.parametrize(
    "link", ["docs/runbook.md", "/ops/runbook", "https://wiki.example.com/ops?page=Shop:+runbook", "http://x"]
)
def test_alerts_link_to_the_configured_runbook(link: str) -> None:
    rules = alerts.alerts(monitoring_scope({}, runbook=link))
    assert all(rule["annotations"]["runbook_url"].startswith(f"{link}#") for rule in rules)
