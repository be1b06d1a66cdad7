"""A running HaRP as its operator sees it: the commands, the admin API, and what it refuses to others."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.live.peers import do_without, path_of
from tests.live.processes import Process, free_port
from tests.live.product import HARP, KEY, Product, running
from tests.live.tunnels import SHIPPED, start_tunnel
from tests.live.world import TUNNEL_PORT, World

ROOT = Path(__file__).parent.parent.parent
BANS = {"HP_BLACKLIST_COUNT": "3", "HP_LOG_LEVEL": "warning"}


@pytest.fixture(scope="module")
def product(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Serves "hello" through a stock frpc, and has banned 192.0.2.7."""
    with (
        running(tmp_path_factory.mktemp("product"), world.nextcloud, **BANS) as product,
        start_tunnel(product, SHIPPED, "hello", TUNNEL_PORT, world.socket) as tunnel,
    ):
        tunnel.until(lambda: product.status("/exapps/hello/public") == 200, "tunnel")
        yield product


def harp(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`harp ...` with the same environment."""
    command = [*HARP, *arguments]
    return subprocess.run(command, env=product.environment, capture_output=True, text=True, timeout=30, check=False)


def told(product: Product, *arguments: str) -> Any:
    """What the command prints with --json."""
    done = harp(product, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def curl(product: Product, method: str, target: str, *headers: str) -> int:
    """The status that curl gets from the admin listener."""
    lines = [part for header in headers for part in ("-H", header)]
    url = f"http://127.0.0.1:{product.admin}{target}"
    argv = [path_of("curl", "curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, *lines, url]
    return int(subprocess.run(argv, capture_output=True, timeout=30, check=True).stdout)


def ban(product: Product, address: str) -> None:
    for _ in range(3):
        product.status("/exapps/app_api/info", harp_shared_key="another", x_forwarded_for=address)


def test_tunnels_shows_the_client_and_its_port(product: Product) -> None:
    (tunnel,) = told(product, "tunnels")["tunnels"]
    assert (tunnel["names"], tunnel["ports"], tunnel["address"]) == (["hello"], [TUNNEL_PORT], "127.0.0.1")
    assert tunnel["client"] == SHIPPED
    lines = harp(product, "tunnels").stdout.splitlines()
    assert " ".join(lines[0].split()) == "port name address host client up for round trip streams received sent"
    assert lines[1].split()[:3] == ["23000", "hello", "127.0.0.1"]


def test_status_says_whether_all_is_well_and_exits_with_1_where_it_is_not(product: Product) -> None:
    done = harp(product, "status")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Everything works.")
    assert told(product, "status")["snapshot"]["apps"][0]["app"] == "hello"
    product.register("away", "127.0.0.1", 23099)
    done = harp(product, "status", "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    assert (done.returncode, problem["what"]) == (1, "ExApp away has no tunnel on port 23099")
    product.forget("away")


def test_apps_shows_what_each_has_served(product: Product) -> None:
    before = told(product, "apps")["apps"][0]
    assert (before["app"], before["tunnel"], before["port"]) == ("hello", "connected", TUNNEL_PORT)
    assert {"url": "^/public$", "level": "PUBLIC"} in before["routes"]
    assert product.status("/exapps/hello/public") == 200
    after = told(product, "apps")["apps"][0]
    assert after["traffic"]["statuses"]["2xx"] == before["traffic"]["statuses"]["2xx"] + 1
    assert before["answered"] <= after["answered"] <= time.time()
    assert told(product, "status")["snapshot"]["caches"]["records"] >= 1
    (tunnel,) = told(product, "tunnels")["tunnels"]
    assert tunnel["received"] > 0 < tunnel["sent"]
    assert harp(product, "apps").stdout.splitlines()[1].split()[0] == "hello"


def test_bans_are_shown_and_lifted(product: Product) -> None:
    ban(product, "192.0.2.7")
    assert product.status("/exapps/hello/public", x_forwarded_for="192.0.2.7") == 429
    (found,) = told(product, "bans")["bans"]
    assert (found["address"], found["reason"]) == ("192.0.2.7", "a control call without the right harp-shared-key")
    assert "192.0.2.7" in harp(product, "bans").stdout
    assert harp(product, "bans", "lift", "192.0.2.7").stdout == "192.0.2.7 is served again.\n"
    assert product.status("/exapps/hello/public", x_forwarded_for="192.0.2.7") == 200
    again = harp(product, "bans", "lift", "192.0.2.7")
    assert (again.returncode, again.stderr) == (1, "192.0.2.7 is not banned\n")
    assert harp(product, "bans").stdout == "Nobody is banned.\n"


def test_the_ban_of_a_network_can_be_lifted_by_its_name(product: Product) -> None:
    ban(product, "2001:db8::7")
    assert harp(product, "bans", "lift", "2001:db8::/64").returncode == 0


def test_the_log_level_is_changed_while_harp_runs(product: Product) -> None:
    assert json.loads(harp(product, "log-level").stdout) == {"level": "warning", "access": "off"}
    changed = harp(product, "log-level", "info", "--access", "all")
    assert json.loads(changed.stdout) == {"level": "info", "access": "all"}
    ban(product, "192.0.2.8")
    assert product.served("/exapps/app_api/info")
    product.process.until(lambda: "strike counted" in product.process.text(), "log line")
    assert harp(product, "log-level", "warning", "--access", "off").returncode == 0
    assert harp(product, "bans", "lift", "192.0.2.8").returncode == 0


def test_a_program_changes_things_with_the_header_and_a_web_page_does_not(product: Product) -> None:
    ban(product, "192.0.2.9")
    target = "/api/v1/bans/192.0.2.9"
    assert curl(product, "DELETE", target) == 403
    assert curl(product, "DELETE", target, "Origin: http://evil", "X-Requested-With: XMLHttpRequest") == 403
    assert curl(product, "DELETE", target, "Sec-Harp-Admin: curl") == 200
    assert curl(product, "GET", "/api/v1/snapshot") == 200


def test_the_api_is_not_served_where_browsers_come(product: Product) -> None:
    for target in ("/api/v1/bans", "/exapps/api/v1/bans", "/exapps/app_api/api/v1/bans"):
        assert product.status(target) in (401, 404)


def test_the_snapshot_has_no_secret(product: Product) -> None:
    text = harp(product, "apps", "--json").stdout + json.dumps(told(product, "tunnels"))
    assert KEY not in text
    assert "secret of hello" not in text


def test_over_a_unix_socket_everything_works_as_well(world: World, tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="harp-adm-") as directory:
        address = f"unix:{directory}/admin.sock"
        with running(tmp_path, world.nextcloud, HP_ADMIN_ADDRESS=address, **BANS) as product:
            ban(product, "192.0.2.7")
            assert harp(product, "bans", "lift", "192.0.2.7").returncode == 0


def test_without_a_running_harp_the_commands_say_so(world: World, tmp_path: Path) -> None:
    product = Product(tmp_path, world.nextcloud, HP_ADMIN_ADDRESS=f"127.0.0.1:{free_port()}")
    for command in ("apps", "tunnels", "bans", "log-level"):
        done = harp(product, command)
        assert done.returncode == 1
        assert "does `harp run` run here?" in done.stderr


def test_prometheus_reads_the_metrics_and_finds_a_request_that_was_made(product: Product) -> None:
    before = scraped(product)
    assert product.status("/exapps/hello/public") == 200
    assert product.status("/exapps/nobody/x") == 404
    after = scraped(product)
    grown = {name: round(after[name] - before.get(name, 0.0), 3) for name in after}
    assert grown["harp_requests_total", ("hello", "2xx")] == 1
    assert grown["harp_request_duration_seconds_count", ("hello",)] == 1
    assert grown["harp_requests_total", ("", "4xx")] == 1
    assert grown["harp_refusals_total", ("404",)] == 1
    assert after["harp_app_tunnel_up", ("hello",)] == 1
    assert after["harp_tunnel_streams", ("hello", str(TUNNEL_PORT))] >= 1
    assert after["process_resident_memory_bytes", ()] > 20e6
    assert after["process_open_fds", ()] > 10
    assert after["harp_certificate_days_left", (str(product.certs / "frp/ca.crt"),)] > 1000


def scraped(product: Product) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and values of labels."""
    url = f"http://127.0.0.1:{product.admin}/metrics"
    argv = [path_of("curl", "curl"), "-sf", url]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="make setup installs it")
    families = parser.text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_requests_are_followed_in_a_terminal_until_ctrl_c(product: Product, tmp_path: Path) -> None:
    command = [*HARP, "requests", "--follow", "--app", "hello"]
    with Process(command, tmp_path / "follow.log", env=product.environment) as follower:

        def seen(path: str) -> bool:
            product.status(path)
            return path in follower.text()

        follower.until(lambda: seen("/exapps/hello/public"), "first request")
        product.status("/exapps/direct/public")
        product.status("/exapps/hello/user?token=secret")
        follower.until(lambda: "403 GET /exapps/hello/user?token=…" in follower.text(), "refused request")
        assert "direct" not in follower.text()
        follower.signal(signal.SIGINT)
        assert follower.wait() == 130
    assert "Traceback" not in follower.text()


def test_the_api_is_described_as_openapi_wants_it(product: Product) -> None:
    python = ROOT / ".cache/exapp-servers/venv/bin/python"
    if not python.exists():
        do_without(f"{python} not found: run scripts/install-exapp-servers")
    url = f"http://127.0.0.1:{product.admin}/api/v1/openapi.json"
    program = "import json, sys, openapi_spec_validator as v; v.validate(json.load(sys.stdin))"
    text = subprocess.run([path_of("curl", "curl"), "-sf", url], capture_output=True, timeout=30, check=True).stdout
    done = subprocess.run([str(python), "-c", program], input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_from_another_host_the_api_needs_the_password(product: Product) -> None:
    """A request that a proxy has passed on counts as one of another host."""
    forwarded = "X-Forwarded-For: 192.0.2.1"
    assert curl(product, "GET", "/api/v1/snapshot", forwarded) == 401
    assert curl(product, "GET", "/api/v1/doctor", forwarded) == 401
    assert curl(product, "GET", "/api/v1/snapshot", forwarded, f"Authorization: Bearer {KEY}") == 200
    assert curl(product, "GET", "/metrics", forwarded) == 200
    assert curl(product, "GET", "/healthz", forwarded) == 200
