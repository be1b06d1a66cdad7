"""HP_INSTANCES_FILE: one complete value of Settings for each Nextcloud, and every problem at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from harp.errors import SettingsError
from harp.settings import Settings, examine, load

ONE = """
[[instance]]
name = "school"
url = "https://cloud.school.example/index.php"
key_file = "{keys}/school"
"""
TWO = """
[[instance]]
name = "clinic"
url = "http://nextcloud-clinic/sub"
key_file = "{keys}/clinic"
"""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("school", "clinic"):
        (tmp_path / name).write_text(f"the key of the {name}\n")
    return tmp_path


def read(keys: Path, text: str, **env: str) -> tuple[Settings, list[str]]:
    """The settings, and the problems without the part that all have."""
    file = keys / "instances.toml"
    file.write_text(text.replace("{keys}", str(keys)))
    reading = examine({"HP_INSTANCES_FILE": str(file), **env})
    return reading.settings, [problem.removeprefix(f"HP_INSTANCES_FILE: {file}: ") for problem in reading.problems]


def test_each_entry_has_settings_as_if_it_were_alone(keys: Path) -> None:
    settings, problems = read(keys, ONE + TWO, HP_MAX_HEADERS="99")
    assert problems == []
    school, clinic = settings.instances
    assert (school.instance, school.shared_key) == ("school", "the key of the school")
    assert school.nextcloud.url == "https://cloud.school.example"
    assert school.hosts == ("cloud.school.example",)
    assert (clinic.nextcloud.url, clinic.hosts) == ("http://nextcloud-clinic/sub", ("nextcloud-clinic",))
    assert clinic.limits == school.limits == settings.limits


def test_what_an_entry_does_not_say_the_variables_say(keys: Path) -> None:
    env = {"HP_TRUSTED_PROXY_IPS": "10.0.0.1", "HP_DOCKER_ENGINE_PORTS": "24001-24002", "HP_BLACKLIST_COUNT": "3"}
    settings, _ = read(keys, ONE + TWO + 'trusted_proxies = ["10.0.0.2", "10.1.0.0/16"]\nengines = "24005"', **env)
    school, clinic = settings.instances
    assert [str(one) for one in school.proxies.trusted] == ["10.0.0.1/32"]
    assert [str(one) for one in clinic.proxies.trusted] == ["10.0.0.2/32", "10.1.0.0/16"]
    assert (school.engines.ports, clinic.engines.ports) == (frozenset((24001, 24002)), frozenset((24005,)))
    assert school.bans.count == 3


def test_an_entry_may_have_no_engine_and_no_proxy_at_all(keys: Path) -> None:
    settings, _ = read(keys, ONE + 'engines = "none"\ntrusted_proxies = []', HP_TRUSTED_PROXY_IPS="10.0.0.1")
    assert settings.instances[0].engines.ports == frozenset()
    assert settings.instances[0].proxies.trusted == ()


def test_hosts_are_lower_case_with_or_without_a_port(keys: Path) -> None:
    settings, _ = read(keys, ONE + 'hosts = ["Cloud.Example.", "b.example:8443", "[2001:db8::1]", "*"]')
    assert settings.instances[0].hosts == ("cloud.example", "b.example:8443", "[2001:db8::1]", "*")


def test_limits_are_shares_of_what_there_is(keys: Path) -> None:
    settings, _ = read(keys, ONE + "limits = { connections = 20, requests = 5 }")
    shares = settings.instances[0].shares
    assert (shares.connections, shares.requests, shares.tunnels) == (20, 5, 0)


def test_an_entry_may_have_its_own_sessions_bans_registries_and_mounts(keys: Path) -> None:
    (keys / "registries.toml").write_text("")
    more = f"""
session_lifetime = 0
bans = {{ count = 50, window = "10m" }}
registries_file = "{keys}/registries.toml"
mounts_allowed = ["/srv/clinic", "/srv/models"]
"""
    env = {"HP_SESSION_LIFETIME": "5", "HP_BLACKLIST_COUNT": "3", "HP_EXAPP_BIND_MOUNTS_ALLOWED": "/srv"}
    settings, problems = read(keys, ONE + TWO + more, **env)
    assert problems == []
    school, clinic = settings.instances
    assert (school.nextcloud.session_lifetime, clinic.nextcloud.session_lifetime) == (5, 0)
    assert (school.bans, clinic.bans) == (settings.bans, replace(settings.bans, count=50, window=600))
    assert (school.engines.registries, clinic.engines.registries) == (None, keys / "registries.toml")
    assert school.engines.mounts_allowed == ("/srv",)
    assert clinic.engines.mounts_allowed == ("/srv/clinic", "/srv/models")


def test_an_entry_may_allow_no_mounts_at_all(keys: Path) -> None:
    settings, _ = read(keys, ONE + "mounts_allowed = []")
    assert settings.instances[0].engines.mounts_allowed == ()


def test_a_cluster_is_that_of_entries_with_a_namespace(keys: Path) -> None:
    env = {"HP_K8S_ENABLED": "true", "HP_K8S_API_SERVER": "https://k8s:6443"}
    settings, problems = read(keys, ONE + TWO + 'kubernetes_namespace = "clinic-apps"', **env)
    school, clinic = settings.instances
    assert problems == []
    assert not school.kubernetes.enabled
    assert (clinic.kubernetes.enabled, clinic.kubernetes.namespace) == (True, "clinic-apps")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has 0 entries"),
        ("[instance]\nname = 1", "instance: is not a list of tables; begin each Nextcloud with [[instance]]"),
        ("[[instances]]\nname = 'a'", "instances: is not known here; begin each Nextcloud with [[instance]]"),
        (ONE + 'ulr = "x"', "instance school: ulr: is not known; did you mean url?"),
        (ONE.replace('name = "school"', ""), "entry 1: name: is missing"),
        (ONE.replace('"school"', '"My School"'), 'instance My School: name: "My School" is not a name'),
        (ONE.replace("https", "ftp"), "instance school: url: "),
        (ONE.replace("/school", "/nobody"), "instance school: key_file: "),
        (ONE + "hosts = 3.5", "instance school: hosts: is neither text, a number nor a list of texts"),
        (ONE + 'hosts = ["a b"]', 'instance school: hosts: "a b" is not a host'),
        (ONE + 'engines = "many"', "instance school: engines: "),
        (ONE + "limits = { tunnels = 0 }", "instance school: limits.tunnels: 0 is out of range"),
        (ONE + "bans = { count = -1 }", "instance school: bans.count: "),
        (ONE + "session_lifetime = 60", "instance school: session_lifetime: "),
        (ONE + 'mounts_allowed = ["data"]', "instance school: mounts_allowed: "),
        (ONE + "limits = { tunels = 5 }", "instance school: limits.tunels: is not known; did you mean limits.tunnels?"),
    ],
)
def test_a_problem_names_entry_key_and_what_to_write(keys: Path, text: str, problem: str) -> None:
    _, problems = read(keys, text)
    assert any(one.startswith(problem) for one in problems), problems


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('name = "school"', "name"),
        ('url = "https://cloud.school.example"', "url"),
        ('key_file = "{keys}/school"', "key_file"),
        ('hosts = ["cloud.school.example"]', "hosts"),
    ],
)
def test_two_entries_cannot_have_the_same(keys: Path, more: str, key: str) -> None:
    second = TWO if key == "hosts" else re.sub(rf"{key} = .*", "", TWO)
    _, problems = read(keys, ONE + second + more)
    clashes = [problem.split(": ")[1] for problem in problems if "is that of instance school as well" in problem]
    assert key in clashes


def test_all_problems_are_told_at_once_and_no_key_is(keys: Path) -> None:
    _, problems = read(keys, ONE.replace("https", "ftp") + TWO.replace("clinic/sub", "") + "limits = { requests = -1 }")
    assert len(problems) >= 2
    assert "the key of" not in " ".join(problems)


def test_a_file_that_cannot_be_read_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"HP_INSTANCES_FILE: .*missing.toml cannot be read"):
        load({"HP_INSTANCES_FILE": str(tmp_path / "missing.toml")})
    broken = tmp_path / "broken.toml"
    broken.write_text("[[instance\n")
    with pytest.raises(SettingsError, match=r"broken.toml is not TOML: .*line 1"):
        load({"HP_INSTANCES_FILE": str(broken)})


@pytest.mark.parametrize(
    "name", ["HP_SHARED_KEY", "NC_INSTANCE_URL", "HP_PUBLIC_URL", "HP_GATEWAY_URL", "HP_INSTANCE_ID"]
)
def test_what_is_an_instances_own_is_no_variable_beside_the_file(keys: Path, name: str) -> None:
    value = "https://cloud.example" if "URL" in name else "a-long-enough-value"
    _, problems = read(keys, ONE, **{name: value})
    assert problems == [f"{name}: every Nextcloud has its own in HP_INSTANCES_FILE; remove the variable"]


def test_tunnel_ports_are_not_opened_for_several(keys: Path) -> None:
    _, problems = read(keys, ONE, HP_TUNNEL_LISTEN="true")
    assert problems[0].startswith("HP_TUNNEL_LISTEN: cannot be used with HP_INSTANCES_FILE")


def test_the_example_of_the_documentation_can_be_used(keys: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "instances.md"
    (example,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    text = re.sub(r"/run/secrets/(\w+)-key", r"{keys}/\1", example)
    settings, problems = read(keys, text)
    assert problems == []
    assert [one.instance for one in settings.instances] == ["school", "clinic"]


def test_every_key_is_documented() -> None:
    from harp.settings.instances import KEYS, TABLES  # noqa: PLC0415

    text = (Path(__file__).parents[2] / "docs" / "instances.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert documented == [*KEYS, *TABLES["limits"]]
