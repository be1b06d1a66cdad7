"""Dashboard and alert rules of deploy/monitoring, with a real Prometheus that scrapes a HaRP."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text("utf-8"))
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
NAMES = [f"{title}-{number}" for number, (title, _) in enumerate(QUERIES)]
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: harp
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
QUIET = {"Calls to Nextcloud", "Answers that HaRP made itself", "Failed requests by ExApp"}  # may have nothing to show


class Prometheus:
    """One that scrapes each second."""

    def __init__(self, directory: Path, product: Product) -> None:
        self.port = free_port()
        file = directory / "prometheus.yml"
        file.write_text(CONFIGURATION.format(rules=MONITORING / "alerts.yaml", port=product.admin))
        self.argv = [
            path_of("prometheus", "prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. Raises AssertionError when it is not one that Prometheus understands."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return []
        result: list[dict[str, Any]] = found["data"]["result"]
        return result


@pytest.fixture(scope="module")
def prometheus(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has seen requests of every kind for some seconds; ExApp "lost" has no tunnel."""
    directory = tmp_path_factory.mktemp("monitoring")
    with running(directory / "harp", world.nextcloud) as product:
        server = Prometheus(directory, product)
        product.register("lost", "127.0.0.1", 23009)
        with (
            start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
            Process(server.argv, directory / "prometheus.log") as process,
        ):
            tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")

            def scraped() -> bool:
                for path in ("/exapps/hello/public", "/exapps/hello/user", "/exapps/nope/x", "/exapps/hello/static/9"):
                    product.status(path)
                return any(float(one["value"][1]) >= 5 for one in server.ask('count_over_time(up{job="harp"}[1m])'))

            process.until(scraped, "five scrapes")
            yield server


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=NAMES)
def test_every_panel_has_something_to_show(prometheus: Prometheus, title: str, expression: str) -> None:
    for name, value in {"$job": "harp", "$instance": ".*", "$app": ".*", "$__rate_interval": "15s"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    assert prometheus.ask(expression) != [] or title in QUIET, expression


def test_an_exapp_without_its_tunnel_is_about_to_be_an_alert(prometheus: Prometheus) -> None:
    (alert,) = prometheus.ask('ALERTS{alertname="HarpExAppWithoutTunnel"}')
    assert (alert["metric"]["app"], alert["metric"]["alertstate"]) == ("lost", "pending")
    assert prometheus.ask('ALERTS{alertname=~"HarpDown|HarpNextcloudDown"}') == []


def test_every_metric_that_is_asked_for_is_documented() -> None:
    text = (MONITORING.parents[1] / "docs/metrics.md").read_text("utf-8")
    asked = "".join(expression for _, expression in QUERIES) + (MONITORING / "alerts.yaml").read_text("utf-8")
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:harp|process)_[a-z_0-9]+", asked)}
    assert {name for name in names if name not in text} == set()


def test_the_alert_rules_do_what_they_say() -> None:
    argv = [path_of("prometheus", "promtool"), "test", "rules", str(MONITORING / "alerts.test.yaml")]
    done = subprocess.run(argv, cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
