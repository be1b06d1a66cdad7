"""Names, owners, mounts, limits, and the JSON of a container."""

from __future__ import annotations

from typing import Any

import pytest

from harp.policy.container import (
    DENIED,
    CreatePlan,
    Mount,
    Names,
    Owner,
    Refused,
    ResourceLimits,
    image_reference,
    mounts_refusal,
    owner_from,
)
from harp.policy.keys import own_key
from harp.settings import Engines, load

HELLO = Names("hello")


def engines(**variables: str) -> Engines:
    env = {f"HP_EXAPP_BIND_MOUNTS_{name}": text for name, text in variables.items()}
    return load({"HP_SHARED_KEY": "a-shared-key-for-tests", "NC_INSTANCE_URL": "http://cloud", **env}).engines


# Names


@pytest.mark.parametrize(
    ("names", "container", "volume"),
    [
        (Names("hello"), "nc_app_hello", "nc_app_hello_data"),
        (Names("hello", "one"), "nc_app_one_hello", "nc_app_one_hello_data"),
        (Names("hello", "", "worker"), "nc_app_hello_worker", "nc_app_hello_data"),
        (Names("hello", "one", "worker"), "nc_app_one_hello_worker", "nc_app_one_hello_data"),
    ],
)
def test_container_and_volume_are_named_as_always(names: Names, container: str, volume: str) -> None:
    assert (names.checked().container, names.volume) == (container, volume)


@pytest.mark.parametrize("name", ["", "_a", "-a", ".a", "a/b", "a b", "a%2f", "ä", "a\n", "a" * 64, "../x"])
def test_a_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=r"^name: "):
        Names(name).checked()


@pytest.mark.parametrize("part", ["a/b", "a b", "x" * 64, "?"])
def test_so_are_instance_and_role(part: str) -> None:
    with pytest.raises(Refused, match=r"^instance_id: "):
        Names("a", instance_id=part).checked()
    with pytest.raises(Refused, match=r"^role_suffix: "):
        Names("a", role_suffix=part).checked()


# Owners


def test_an_owner_is_the_same_whatever_the_scheme_and_differs_with_the_place() -> None:
    one = owner_from("https://cloud.example.com", "")
    assert one == owner_from("http://Cloud.Example.com/", "") == owner_from("https://cloud.example.com:443", "")
    others = {owner_from(url, "") for url in ("https://other.example", "https://cloud.example.com/nc", "http://c:8080")}
    assert len({one, *others}) == 4
    assert len(one.instance) == 16


def test_a_chosen_owner_is_taken_as_it_is() -> None:
    assert owner_from("https://cloud.example.com", "home") == Owner("home")


def test_labels_say_whose_and_what_it_is() -> None:
    assert Owner("one").labels(Names("hello", "", "worker"), "1.2.3") == {
        "com.nextcloud.harp.instance": "one",
        "com.nextcloud.harp.app": "hello",
        "com.nextcloud.harp.version": "1.2.3",
        "com.nextcloud.harp.role": "worker",
    }
    assert "com.nextcloud.harp.role" not in Owner("one").labels(HELLO, "1.2.3")


@pytest.mark.parametrize("labels", [None, {}, {"other": "x"}, {"com.nextcloud.harp.instance": "one"}])
def test_what_is_ours_or_older_than_owners_is_ours(labels: dict[str, str] | None) -> None:
    assert Owner("one").objection("volume x", labels) == ""


def test_what_is_anothers_is_refused_with_the_way_out_in_120_characters() -> None:
    text = Owner("one").objection("container nc_app_hello", {"com.nextcloud.harp.instance": "0123456789abcdef"})
    assert text.startswith("container nc_app_hello belongs to another Nextcloud")
    assert "HP_INSTANCE_ID=0123456789abcdef" in text[:120]


# Mounts


@pytest.mark.parametrize(
    ("path", "normal"),
    [("/srv/data", "/srv/data"), ("//srv//data/", "/srv/data"), ("/srv/./data/.", "/srv/data"), ("/", "/")],
)
def test_paths_of_mounts_are_normalised(path: str, normal: str) -> None:
    assert Mount(path, path).checked("m") == Mount(normal, normal)


@pytest.mark.parametrize("path", ["", "srv", "./srv", "/srv/../etc", "/..", "/a:b", "/a\nb", "/a\0"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(Refused, match=r"^m\.source: "):
        Mount(path, "/x").checked("m")
    with pytest.raises(Refused, match=r"^m\.target: "):
        Mount("/x", path).checked("m")


@pytest.mark.parametrize("mode", ["", "RW", "rw,z", "r"])
def test_a_mount_is_ro_or_rw(mode: str) -> None:
    with pytest.raises(Refused, match=r"^m\.mode: "):
        Mount("/x", "/x", mode).checked("m")


def refused(source: str, mode: str = "rw", **variables: str) -> bool:
    return mounts_refusal([Mount(source, "/x", mode)], engines(**variables))[0] != ""


def warned(source: str, mode: str = "rw", **variables: str) -> bool:
    refusal, warnings = mounts_refusal([Mount(source, "/x", mode)], engines(**variables))
    return refusal == "" and len(warnings) == 1


def fine(source: str, mode: str = "rw", **variables: str) -> bool:
    return mounts_refusal([Mount(source, "/x", mode)], engines(**variables)) == ("", [])


@pytest.mark.parametrize(
    "source",
    ["/proc", "/sys/fs", "/", "/var", "/var/lib", "/var/lib/docker/volumes", "/run/docker.sock", "/etc/shadow", "/etc"],
)
def test_by_default_what_leads_to_the_host_is_refused_the_parents_of_it_included(source: str) -> None:
    assert refused(source)
    assert refused(source, "ro")


@pytest.mark.parametrize("source", ["/srv", "/home/me", "/procx", "/var/lib/dockerx", "/mnt/var/lib/docker"])
def test_by_default_the_rest_is_fine(source: str) -> None:
    assert fine(source)


@pytest.mark.parametrize("source", ["/dev/dri", "/root/x", "/usr/share", "/etc/app", "/var/spool/cups"])
def test_some_of_the_default_list_warns_until_all_of_it_is_enforced(source: str) -> None:
    assert warned(source)
    assert refused(source, ENFORCE_ALL="true")


def test_rw_entries_do_not_concern_read_only_mounts() -> None:
    assert fine("/usr/share/fonts", "ro", ENFORCE_ALL="true")
    assert refused("/dev/dri", "ro", ENFORCE_ALL="true")


def test_own_entries_replace_the_list_and_are_always_enforced() -> None:
    assert refused("/data/secret/x", DENIED="/data/secret,/media:rw")
    assert refused("/media/x", DENIED="/data/secret,/media:rw")
    assert fine("/media/x", "ro", DENIED="/data/secret,/media:rw")
    assert fine("/proc", DENIED="/data/secret")
    assert fine("/proc", DENIED="")


def test_with_an_allowed_list_nothing_else_is_allowed() -> None:
    assert fine("/srv/apps/x", ALLOWED="/srv/apps")
    assert fine("/srv/apps", ALLOWED="/srv/apps")
    assert refused("/srv", ALLOWED="/srv/apps")
    assert refused("/srv/apps2", ALLOWED="/srv/apps")
    assert refused("/home", ALLOWED="/srv/apps")
    assert fine("/anything", ALLOWED="/")


def test_the_longest_entry_decides_and_a_tie_denies() -> None:
    assert fine("/data/pub/x", ALLOWED="/data/pub", DENIED="/data")
    assert refused("/data/pub/key", ALLOWED="/data/pub", DENIED="/data,/data/pub/key")
    assert refused("/data/pub", ALLOWED="/data/pub", DENIED="/data/pub/key")
    assert refused("/data/pub", ALLOWED="/data/pub", DENIED="/data/pub")


def test_all_bind_mounts_can_be_refused() -> None:
    assert refused("/srv", "ro", DISABLED="true")
    assert mounts_refusal([], engines(DISABLED="true")) == ("", [])


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({}, ["HP_EXAPP_BIND_MOUNTS_DENIED", "(/proc)", "/proc:/x:ro"]),
        ({"ALLOWED": "/srv"}, ["HP_EXAPP_BIND_MOUNTS_ALLOWED", "/proc:/x:ro"]),
        ({"DISABLED": "true"}, ["HP_EXAPP_BIND_MOUNTS_DISABLED", "/proc:/x:ro"]),
    ],
)
def test_a_refusal_names_variable_rule_and_mount(variables: dict[str, str], parts: list[str]) -> None:
    text, _ = mounts_refusal([Mount("/proc", "/x", "ro")], engines(**variables))
    assert all(part in text for part in parts)
    assert len(text) <= 120


def test_the_default_list_is_the_documented_one() -> None:
    assert len(DENIED) == 29


# ResourceLimits and the rest


@pytest.mark.parametrize(
    ("given", "taken"),
    [(4099999999.9999995, 4100000000), (1.07e9, 1070000000), (0, 0), (None, None), (2009999999.9999998, 2010000000)],
)
def test_processors_are_rounded(given: float | None, taken: int | None) -> None:
    assert ResourceLimits(nano_cpus=given).checked().nano_cpus == taken


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e30])
def test_limits_that_are_no_amounts_are_refused(value: float) -> None:
    with pytest.raises(Refused, match=r"resource_limits\.memory"):
        ResourceLimits(memory=value).checked()
    with pytest.raises(Refused, match=r"resource_limits\.nanoCPUs"):
        ResourceLimits(nano_cpus=value).checked()


def test_memory_is_a_whole_number_of_bytes() -> None:
    assert ResourceLimits(memory=1024.0).checked().memory == 1024
    with pytest.raises(Refused):
        ResourceLimits(memory=1024.5).checked()


@pytest.mark.parametrize("network", ["", "a:b", "a b", "a\tb", "container:x", "n" * 256, "a\x7f"])
def test_networks_without_sense_are_refused(network: str) -> None:
    with pytest.raises(Refused, match=r"^network_mode: "):
        CreatePlan(HELLO, "image", network).checked()


@pytest.mark.parametrize("policy", ["Always", "on-failure:3", "never"])
def test_unknown_restart_policies_are_refused(policy: str) -> None:
    with pytest.raises(Refused, match=r"^restart_policy: "):
        CreatePlan(HELLO, "image", restart_policy=policy).checked()


@pytest.mark.parametrize("text", ["", "a\nb", "a" * 1025])
def test_an_image_has_a_name(text: str) -> None:
    with pytest.raises(Refused, match=r"^image_ref: "):
        image_reference(text)


def test_the_body_of_a_container_on_a_network_of_its_own() -> None:
    plan = CreatePlan(
        HELLO,
        "img:1",
        "nextcloud-aio",
        ("A=1",),
        "always",
        mounts=(Mount("/srv", "/data", "ro"),),
        limits=ResourceLimits(1 << 30, 2_000_000_000),
    ).checked()
    assert plan.body({"l": "1"}) == {
        "Image": "img:1",
        "Hostname": "hello",
        "Env": ["A=1"],
        "Labels": {"l": "1"},
        "HostConfig": {
            "NetworkMode": "nextcloud-aio",
            "RestartPolicy": {"Name": "always"},
            "Mounts": [
                {"Type": "volume", "Source": "nc_app_hello_data", "Target": "/nc_app_hello_data", "ReadOnly": False},
                {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": True},
            ],
            "Memory": 1 << 30,
            "NanoCPUs": 2_000_000_000,
        },
        "NetworkingConfig": {"EndpointsConfig": {"nextcloud-aio": {"Aliases": ["hello"]}}},
    }


@pytest.mark.parametrize("network", ["bridge", "host", "none", "default"])
def test_networks_of_the_engine_itself_know_no_aliases(network: str) -> None:
    assert "NetworkingConfig" not in CreatePlan(HELLO, "i", network).body({})


def host_config(device: str) -> Any:
    return CreatePlan(HELLO, "i", device=device).body({})["HostConfig"]


def test_gpus_are_asked_for_in_the_engines_own_way() -> None:
    assert host_config("cuda")["DeviceRequests"] == [
        {"Driver": "nvidia", "Count": -1, "Capabilities": [["compute", "utility"]]}
    ]
    assert [device["PathOnHost"] for device in host_config("rocm")["Devices"]] == ["/dev/kfd", "/dev/dri"]
    assert "Devices" not in host_config("cpu")


def test_podman_gets_the_same_container_in_its_own_words_with_a_cdi_name_for_the_gpu() -> None:
    plan = CreatePlan(
        HELLO,
        "img:1",
        "net",
        ("A=1=2", "B"),
        device="cuda",
        mounts=(Mount("/srv", "/data", "ro"),),
        limits=ResourceLimits(1 << 30, 1_500_000_000),
    ).checked()
    assert plan.podman_body({"l": "1"}) == {
        "name": "nc_app_hello",
        "image": "img:1",
        "hostname": "hello",
        "env": {"A": "1=2", "B": ""},
        "labels": {"l": "1"},
        "restart_policy": "unless-stopped",
        "netns": {"nsmode": "bridge"},
        "networks": {"net": {"aliases": ["hello"]}},
        "volumes": [{"Name": "nc_app_hello_data", "Dest": "/nc_app_hello_data"}],
        "mounts": [{"type": "bind", "source": "/srv", "destination": "/data", "options": ["rbind", "ro"]}],
        "devices": [{"path": "nvidia.com/gpu=all"}],
        "resource_limits": {"memory": {"limit": 1 << 30}, "cpu": {"period": 100000, "quota": 150000}},
    }
    host = CreatePlan(HELLO, "i", "host", device="cuda").podman_body({})
    assert host["netns"] == {"nsmode": "host"}
    assert not {"networks", "resource_limits"} & host.keys()


def test_an_own_key_takes_the_place_of_the_shared_one_and_nothing_else_changes() -> None:
    plan = CreatePlan(HELLO, "i", environment=("A=HP_SHARED_KEY=1", "HP_SHARED_KEY=shared", "B=2"))
    changed = plan.with_own_key("shared")
    assert changed.environment == ("A=HP_SHARED_KEY=1", f"HP_SHARED_KEY={own_key('shared', 'hello')}", "B=2")
    assert CreatePlan(HELLO, "i").with_own_key("shared") == CreatePlan(HELLO, "i")


def test_a_plan_shows_no_secret() -> None:
    assert "s3cret" not in repr(CreatePlan(HELLO, "i", environment=("HP_SHARED_KEY=s3cret",)))
