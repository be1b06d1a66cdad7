"""The code blocks that administrators, authors and operators copy, run as they are; tests/blocks.py finds them.

What is not the same here as with a reader: ports, /opt, where the engine's socket is, and the image, which is built
from the same Dockerfile without a registry.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blocks import ROOT, CodeBlock, blocks, left
from tests.fakes.environment import bare
from tests.live.docker_command import docker, eventually
from tests.live.engine import Engine
from tests.live.frp import frpc
from tests.live.images import wheels
from tests.live.kubernetes.programs import program
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import HARP, Product
from tests.live.registry import running_registry
from tests.live.shell import BIN, PATIENCE, executable, script
from tests.live.tunnels import SHIPPED

pytestmark = pytest.mark.timeout(300)


# README: the demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running demo."""
    ports = [free_port() for _ in range(3)]
    options = [
        word
        for name, port in zip(("--port", "--frp-port", "--admin-port"), ports, strict=True)
        for word in (name, str(port))
    ]
    with Process([*HARP, "demo", *options], tmp_path_factory.mktemp("demo") / "log", env=bare()) as process:
        process.until(lambda: f":{ports[0]}/exapps/hello/public" in process.text(), "invitation")
        yield f"127.0.0.1:{ports[0]}"


def calls_of_the_demo() -> list[str]:
    """Return the lines of README that ask the demo."""
    return [line for block in left("README.md") for line in block.text.splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize("line", calls_of_the_demo())
def test_the_demo_answers_as_the_readme_says(demo: str, tmp_path: Path, line: str) -> None:
    command, _, comment = line.partition("#")
    code = command.replace("127.0.0.1:8780", demo).replace("curl ", "curl -so /dev/null -w '%{http_code}' ", 1)
    assert script(code, tmp_path) == comment.split()[0].strip(",")


# README and docs/install.md: without a container


def the(page: str, words: str) -> CodeBlock:
    """Return the block of a page with these words."""
    (found,) = (block for block in left(page) if words in block.text)
    return found


def offline() -> dict[str, str]:
    """Return what lets pip find the wheels that the image is made of, and nothing else where they fit this Python.

    Nor does it compile what nothing will load, which takes most of the time.
    """
    found = {"PIP_FIND_LINKS": str(wheels()), "PIP_CONSTRAINT": str(ROOT / "requirements.lock"), "PIP_NO_COMPILE": "1"}
    return found | {"PIP_NO_INDEX": "1"} if sys.version_info[:2] == (3, 11) else found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, as a directory of its own."""
    at = tmp_path_factory.mktemp("checkout")
    files = ("src", "compiled", "pyproject.toml", "README.md", "LICENSE", "requirements.lock")
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in files), str(at)], check=True)
    return at


def alive(address: str) -> bool:
    """Does the admin listener at `address` answer its heartbeat?"""
    try:
        with urllib.request.urlopen(f"http://{address}/heartbeat", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_it_is_installed_and_runs_as_the_readme_says(checkout: Path, tmp_path: Path) -> None:
    text = the("README.md", "harp run").text
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("HP_EXAPPS_ADDRESS", "HP_FRP_ADDRESS", "HP_ADMIN_ADDRESS")}
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    path = f"{tmp_path}/venv/bin:{os.environ['PATH']}"
    env = bare(**offline(), **ports) | {"PATH": path}
    argv = ["bash", "-euo", "pipefail", "-c", f"cd {checkout}\n{text.replace('harp run ', 'exec harp run ')}"]
    process = Process(argv, tmp_path / "log", env=env)
    try:
        process.until(lambda: alive(ports["HP_ADMIN_ADDRESS"]), "running HaRP", PATIENCE, pause=0.3)
    finally:
        process.stop()
    assert "HP_CERTS_DIR" in process.text()  # `harp check` has shown the settings in effect
    assert (checkout / "certs/frp/ca.crt").exists()


def test_a_virtual_environment_is_made_as_the_page_says(checkout: Path, tmp_path: Path) -> None:
    text = the("docs/install.md", "/opt/harp").text.replace("/opt/harp", str(tmp_path / "harp"))
    certs = tmp_path / "certs"
    made = script(
        text,
        checkout,
        **offline(),
        HP_SHARED_KEY="k" * 32,
        NC_INSTANCE_URL="https://a.example",
        HP_CERTS_DIR=str(certs),
    )
    assert "HP_SHARED_KEY" in made


def test_setup_prints_the_command_for_nextcloud(tmp_path: Path) -> None:
    made = script(the("docs/install.md", "harp setup").text, tmp_path, HP_SHARED_KEY="k" * 32)
    assert "occ app_api:daemon:register" in made


# docs/install.md, docs/engines.md, docs/maintenance.md: with an engine


def test_in_a_container_from_install_to_backup(engine: Engine, tmp_path: Path) -> None:
    """All blocks of three pages, in their order, in one directory."""
    path = docker(engine, tmp_path)
    try:
        for page in ("docs/install.md", "docs/engines.md", "docs/maintenance.md"):
            for block in left(page):
                if "/opt/harp" not in block.text and "harp setup" not in block.text:
                    eventually(block.text, tmp_path, path)
        assert (tmp_path / "harp-certs.tgz").stat().st_size > 1000
        assert (tmp_path / "gpu1.tar").stat().st_size > 1000
    finally:
        engine.clear()


def test_the_image_goes_to_a_registry_as_the_page_says(engine: Engine, tmp_path: Path) -> None:
    path = docker(engine, tmp_path)
    (text,) = (block.text for block in blocks("docs/kubernetes-install.md") if "docker push" in block.text)
    with running_registry(tmp_path) as registry:
        script(text.replace("registry.example.com", registry), tmp_path, path)
        with urllib.request.urlopen(f"http://{registry}/v2/appapi-harp/tags/list", timeout=30) as answer:
            assert json.loads(answer.read())["tags"] == ["0.5.0"]
        engine.call("DELETE", f"/images/{registry}/appapi-harp:0.5.0").ok(200)


# Other pages


def test_the_settings_of_nextcloud_behind_harp_are_php(tmp_path: Path) -> None:
    for block in left("docs/reverse-proxies.md", "php"):
        code = f"echo json_encode([{block.text}\n]);"
        done = subprocess.run(
            [path_of("php-cli", "php"), "-r", code], capture_output=True, text=True, timeout=30, check=True
        )
        assert set(json.loads(done.stdout)) == {"trusted_proxies", "overwriteprotocol"}


def test_the_chart_takes_the_values_of_the_docs(tmp_path: Path) -> None:
    for block in left("docs/kubernetes-install.md", "yaml"):
        values = tmp_path / "values.yaml"
        values.write_text(block.text)
        own = ["--set=nextcloud.url=https://cloud.example.com", "--set=sharedKey.existingSecret=harp-key"]
        own.append("--set=image.repository=registry.example.com/appapi-harp")
        argv = [program("helm"), "template", "harp", str(ROOT / "deploy/helm/harp"), *own, "--values", str(values)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "kind: Ingress" in done.stdout


OCC = [block for page in ("docs/kubernetes.md", "docs/kubernetes-install.md", "docs/exapps.md") for block in left(page)]


@pytest.mark.parametrize("block", OCC, ids=str)
def test_nextcloud_gets_whole_commands(tmp_path: Path, block: CodeBlock) -> None:
    """Those that speak to a cluster as well: its answers are a stand-in's here, the shell's reading of them is not."""
    executable(tmp_path / "bin/occ", 'printf "%s\\n" "$@" >occ')
    executable(tmp_path / "bin/kubectl", "printf 'a key' | base64")
    script(block.text, tmp_path, tmp_path / "bin", HP_SHARED_KEY="a key")
    words = (tmp_path / "occ").read_text().splitlines()
    if words[0] == "app_api:daemon:register":
        assert words[words.index("--harp_shared_key") + 1] == "a key"
    else:
        assert words[0] == "app_api:app:register"
        assert json.loads(" ".join(words[words.index("--json-info") + 1 :]))["port"] == 23042


def test_several_nextclouds_are_configured_as_the_page_says(tmp_path: Path) -> None:
    for block in left("docs/instances.md", "toml"):
        (tmp_path / "instances.toml").write_text(block.text.replace("/run/secrets", str(tmp_path)))
        for name in re.findall(r"/run/secrets/([\w-]+)", block.text):
            (tmp_path / name).write_text(f"the key of {name}")
        settings = {"HP_INSTANCES_FILE": str(tmp_path / "instances.toml"), "HP_CERTS_DIR": str(tmp_path)}
        assert "clinic" in script("harp check", tmp_path, **settings)


def test_a_replica_is_configured_as_the_page_says(tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks("docs/scaling.md") if "HP_CLUSTER_NAME" in block.text)
    settings = {"HP_SHARED_KEY": "k" * 32, "NC_INSTANCE_URL": "https://a.example", "HP_CERTS_DIR": str(tmp_path)}
    shown = script(f"set -a\n{text}harp check", tmp_path, **settings)
    assert "harp-1" in shown
    assert "10.0.0.11:8782" in shown
    assert ":PASSWORD@" not in shown


def test_frpc_takes_the_configuration_of_the_page_for_authors(tmp_path: Path) -> None:
    for block in left("docs/exapps.md", "toml"):
        (tmp_path / "frpc.toml").write_text(block.text)
        argv = [frpc(SHIPPED), "verify", "--config", str(tmp_path / "frpc.toml")]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_admin_api_is_called_as_the_page_says(product: Product, tmp_path: Path) -> None:
    for block in left("docs/operating.md"):
        made = script(block.text.replace("127.0.0.1:8200", f"127.0.0.1:{product.admin}"), tmp_path)
        assert "192.0.2.7" in made or not block.text.startswith("curl")


def test_prometheus_takes_the_configuration_of_the_page(tmp_path: Path) -> None:
    for block in left("docs/operating.md", "yaml"):
        (tmp_path / "prometheus.yml").write_text(block.text)
        (tmp_path / "alerts.yaml").write_bytes((ROOT / "deploy/monitoring/alerts.yaml").read_bytes())
        argv = [path_of("prometheus", "promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_test_of_the_page_for_authors_passes_with_the_sample(tmp_path: Path) -> None:
    (block,) = left("docs/exapps.md", "python")
    (tmp_path / "test_page.py").write_text(block.text)
    (tmp_path / "main.py").write_bytes((ROOT / "exapp/sample/main.py").read_bytes())
    env = bare() | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_page.py")]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b1 passed", done.stdout)


def test_the_first_exapp_works_as_the_page_says(tmp_path: Path) -> None:
    """Its program, its test, and then both shell blocks, with other ports than the page's."""
    program, test = (block.text for block in left("docs/first-exapp.md", "python"))
    (tmp_path / "main.py").write_text(program)
    (tmp_path / "test_main.py").write_text(test)
    passed = script(f"{sys.executable} -m pytest -q -p no:cacheprovider test_main.py", tmp_path)
    assert re.search(r"\b1 passed", passed)

    start, ask = (block.text for block in left("docs/first-exapp.md"))
    gateway, app, admin = (str(free_port()) for _ in range(3))
    start = start.replace("9000", app).replace(
        "harp dev hello", f"harp dev hello --port {gateway} --admin-port {admin}"
    )
    secret, program, harp = start.splitlines()
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}"}

    def started(line: str) -> Process:
        argv = ["bash", "-euc", f"cd {tmp_path}\n{secret}\nexec {line.removesuffix(' &')}"]
        return Process(argv, tmp_path / f"{line.split(maxsplit=1)[0]}.log", env=environment)

    with started(program) as server, started(harp) as process:
        process.until(lambda: "Requests, as they end" in process.text(), "running harp dev")
        server.until_listening(int(app))
        for line in ask.replace("8780", gateway).splitlines():
            code, _, comment = line.partition("#")
            asked = code.replace("curl ", "curl -so /dev/null -w '%{http_code}' ", 1)
            assert script(asked, tmp_path) == comment.split()[0].strip(",")
