"""Values of variables: addresses, durations, sizes, switches, lists."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from harp.settings import Address
from tests.settings.reading import problem, reading, settings, warning

NEVER = float("inf")


# --- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        (":8780", Address("0.0.0.0", 8780)),
        ("*:8780", Address("0.0.0.0", 8780)),
        ("[::]:8780", Address("::", 8780)),
        (":::8780", Address("::", 8780)),
        ("[::1]:8780", Address("::1", 8780)),
        ("2001:db8::5:8780", Address("2001:db8::5", 8780)),
        ("[2001:DB8:0:0::5]:8780", Address("2001:db8::5", 8780)),
        ("localhost:8780", Address("localhost", 8780)),
        ("ipv4@10.0.0.1:8780", Address("10.0.0.1", 8780)),
        ("ipv6@[::]:8780", Address("::", 8780)),
        ("[::]:8780 v4v6", Address("::", 8780)),
        ("[::]:8780 v6only", Address("::", 8780, v6only=True)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("/run/harp/x.sock", Address("", 0, "/run/harp/x.sock")),
        ("unix:/run/harp/x.sock", Address("", 0, "/run/harp/x.sock")),
        ("unix@/run/harp/x.sock", Address("", 0, "/run/harp/x.sock")),
    ],
)
def test_an_address_in_haproxys_bind_syntax(text: str, address: Address) -> None:
    assert settings(HP_EXAPPS_ADDRESS=text).listen.http == (address,)
    assert settings(HP_EXAPPS_ADDRESS="127.0.0.1:1," + text).listen.http[1] == address


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "8780",
        "0.0.0.0:",
        "0.0.0.0:http",
        "0.0.0.0:65536",
        "0.0.0.0:8780-8790",
        "::1",
        "[::1]",
        "[::1:8780",
        "[nonsense]:8780",
        "300.0.0.1:8780",
        "ho st:8780",
        "-x:8780",
        "http://0.0.0.0:8780",
        "0.0.0.0:8780 ssl crt /x",
        "unix:relative.sock",
        "/" + "x" * 107,
        ",",
    ],
)
def test_what_is_no_address_is_refused_and_shown(text: str) -> None:
    assert problem(HP_ADMIN_ADDRESS=text).startswith("HP_ADMIN_ADDRESS: ")


def test_both_wildcards_on_one_port_share_it_by_family() -> None:
    for text in ("0.0.0.0:8780,[::]:8780", "[::]:8780,*:8780"):
        v6 = [address for address in settings(HP_EXAPPS_ADDRESS=text).listen.http if address.host == "::"]
        assert v6 == [Address("::", 8780, v6only=True)]


@pytest.mark.parametrize(
    ("http", "frp"),
    [("127.0.0.1:80", "127.0.0.1:80"), ("0.0.0.0:80", "10.0.0.1:80"), ("[::]:80", "10.0.0.1:80"), ("/x/y", "/x/y")],
)
def test_two_listeners_at_one_place_are_a_problem_before_they_clash(http: str, frp: str) -> None:
    text = problem(HP_EXAPPS_ADDRESS=http, HP_FRP_ADDRESS=frp)
    assert text.startswith("HP_FRP_ADDRESS: ")
    assert "taken by HP_EXAPPS_ADDRESS" in text


def test_listeners_at_different_places_do_not_clash() -> None:
    settings(HP_EXAPPS_ADDRESS="127.0.0.1:80", HP_FRP_ADDRESS="127.0.0.2:80", HP_ADMIN_ADDRESS="/run/admin.sock")
    settings(HP_EXAPPS_ADDRESS="127.0.0.1:0", HP_FRP_ADDRESS="127.0.0.1:0")


def test_the_https_address_may_be_reused_when_there_is_no_certificate() -> None:
    assert settings(HP_EXAPPS_ADDRESS="0.0.0.0:8781").listen.http == (Address("0.0.0.0", 8781),)


def test_an_address_is_shown_as_one_would_write_it() -> None:
    shown = [str(address) for address in settings(HP_EXAPPS_ADDRESS="*:80,[::1]:81,/run/x").listen.http]
    assert shown == ["0.0.0.0:80", "[::1]:81", "unix:/run/x"]


# --- durations and numbers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500us", 0.0005),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5s", 1.5),
        ("3 s", 3),
    ],
)
def test_durations_are_haproxys(text: str, seconds: float) -> None:
    assert settings(HP_TIMEOUT_CONNECT=text).timeouts.connect == pytest.approx(seconds)
    assert reading(HP_TIMEOUT_CONNECT=text).warnings == ()


def test_a_number_alone_counts_as_milliseconds_with_a_warning() -> None:
    assert settings(HP_TIMEOUT_SERVER="1800").timeouts.server == 1.8
    assert warning(HP_TIMEOUT_SERVER="1800") == (
        "HP_TIMEOUT_SERVER: 1800 has no unit and counts as milliseconds, as in HAProxy; write 1800ms or 1800s"
    )


@pytest.mark.parametrize("text", ["30 sec", "-5s", "s", "1e3s", "∞", "30S", "1m30s", "0x10"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    assert problem(HP_TIMEOUT_SERVER=text).startswith("HP_TIMEOUT_SERVER: ")


@pytest.mark.parametrize("zero", ["0", "0s", "0ms", "0d", "00"])
def test_zero_for_a_tunnel_is_no_limit(zero: str) -> None:
    assert settings(HP_TIMEOUT_TUNNEL=zero).timeouts.tunnel == NEVER


def test_the_tunnel_limit_follows_the_server_limit_unless_given() -> None:
    assert settings(HP_TIMEOUT_SERVER="10m").timeouts.tunnel == 600
    assert settings(HP_TIMEOUT_SERVER="10m", HP_TIMEOUT_TUNNEL="1h").timeouts.tunnel == 3600


def test_the_response_limit_is_the_server_limit_and_a_minute_unless_given() -> None:
    assert settings(HP_TIMEOUT_SERVER="10m").timeouts.response == 660
    assert settings(HP_TIMEOUT_SERVER="0").timeouts.response == NEVER
    assert settings(HP_TIMEOUT_RESPONSE="5s").timeouts.response == 5


def test_zero_is_refused_where_it_would_serve_nobody() -> None:
    for name in ("HP_TIMEOUT_HEAD", "HP_TIMEOUT_KEEPALIVE", "HP_TIMEOUT_HALF_CLOSED", "HP_RECORD_LIFETIME"):
        assert "above 0" in problem(**{name: "0s"})


def test_zero_switches_off_draining_holding_sessions_and_bans() -> None:
    result = settings(HP_TIMEOUT_DRAIN="0s", HP_TUNNEL_HOLD="0s", HP_SESSION_LIFETIME="0", HP_BLACKLIST_COUNT="0")
    assert (result.timeouts.drain, result.tunnel.hold, result.nextcloud.session_lifetime) == (0, 0, 0)
    assert result.bans.count == 0
    assert settings(HP_BLACKLIST_WINDOW="0").bans.window == 0


def test_lifetimes_and_windows_are_seconds_as_ever() -> None:
    result = settings(HP_SESSION_LIFETIME="0.5", HP_BLACKLIST_WINDOW="60", HP_RECORD_LIFETIME="2m")
    assert result.nextcloud.session_lifetime == 0.5
    assert result.bans.window == 60
    assert result.nextcloud.record_lifetime == 120
    assert result.warnings == ()


def test_a_session_lives_ten_seconds_at_most() -> None:
    assert settings(HP_SESSION_LIFETIME="10").nextcloud.session_lifetime == 10
    assert "at most 10" in problem(HP_SESSION_LIFETIME="10.1")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1" * 30, "٣"])
def test_the_certificates_validity_is_a_number_of_days_from_one(text: str) -> None:
    assert problem(HP_FRP_CERT_VALIDITY_DAYS=text).startswith("HP_FRP_CERT_VALIDITY_DAYS: ")


@pytest.mark.parametrize(("text", "size"), [("65536", 65536), ("64k", 65536), ("64KiB", 65536), ("64 kb", 65536)])
def test_sizes_take_units(text: str, size: int) -> None:
    assert settings(HP_MAX_HEAD_SIZE=text).limits.head_size == size


def test_a_tunnel_window_below_yamuxs_own_is_refused() -> None:
    assert "262144" in problem(HP_TUNNEL_WINDOW="262143")
    assert settings(HP_TUNNEL_WINDOW="256k").tunnel.window == 262144


# --- words and switches


def test_only_true_in_lower_case_disables_tls_as_ever() -> None:
    assert not settings(HP_FRP_DISABLE_TLS="true").tunnel.tls
    assert settings(HP_FRP_DISABLE_TLS="false").tunnel.tls
    for attempt in ("1", "TRUE", "yes"):
        assert settings(HP_FRP_DISABLE_TLS=attempt).tunnel.tls
        assert "counts as false" in warning(HP_FRP_DISABLE_TLS=attempt)


def test_only_false_disables_the_check_of_the_clusters_certificate() -> None:
    assert not settings(HP_K8S_VERIFY_SSL="false").kubernetes.verify
    assert settings(HP_K8S_VERIFY_SSL="0").kubernetes.verify


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_other_switches_take_the_usual_words(text: str) -> None:
    assert settings(HP_TUNNEL_LISTEN=text).tunnel.listen
    assert settings(HP_REWRITE_LOCATION=text).rewrite_location
    assert settings(HP_EXAPP_BIND_MOUNTS_DISABLED=text).engines.mounts_disabled


def test_a_switch_that_is_neither_is_a_problem() -> None:
    assert "write true or false" in problem(HP_EXAPP_BIND_MOUNTS_ENFORCE_ALL="maybe")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HP_BLACKLIST_STRIKES", "auth, all"),
        ("HP_BAN_ACTION", "reply, drop"),
        ("HP_TUNNEL_CLAIMS", "warn, strict"),
        ("HP_EXAPP_KEYS", "shared, derived"),
        ("HP_LOG_FORMAT", "text, json"),
    ],
)
def test_a_choice_lists_its_words(name: str, words: str) -> None:
    assert problem(**{name: "other"}) == f'{name}: "other" is not known; write one of: {words}'
    for word in words.split(", "):
        assert reading(**{name: word.upper()}).problems == ()


def test_an_unknown_log_level_counts_as_warning() -> None:
    assert settings(HP_LOG_LEVEL="loud").logs.level == "warning"
    assert "loud" in warning(HP_LOG_LEVEL="loud")
    assert settings(HP_LOG_LEVEL="DEBUG").logs.level == "debug"


# --- Nextcloud


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://cloud.example.com/", "https://cloud.example.com"),
        ("https://cloud.example.com/index.php", "https://cloud.example.com"),
        ("https://cloud.example.com/index.php/", "https://cloud.example.com"),
        ("http://10.0.0.1:8080/nextcloud/index.php", "http://10.0.0.1:8080/nextcloud"),
        ("http://[fd00::1]:8080", "http://[fd00::1]:8080"),
    ],
)
def test_the_url_loses_its_slash_and_index_php(text: str, url: str) -> None:
    assert settings(NC_INSTANCE_URL=text).nextcloud.url == url


@pytest.mark.parametrize(
    "text", ["cloud.example.com", "ftp://x", "https://", "https://a b", "https://a:port", "https://x/?q", "http://[x"]
)
def test_what_is_no_web_url_is_refused_with_an_example(text: str) -> None:
    assert "https://cloud.example.com" in problem(NC_INSTANCE_URL=text)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    result = reading(NC_INSTANCE_URL="https://admin:hunter2@cloud.example.com")
    assert result.problems == ("NC_INSTANCE_URL: contains a user name or password; write the URL without them",)
    assert "hunter2" not in "".join(value.text for value in result.values)


# --- trusted proxies


def test_trusted_proxies_are_addresses_and_networks_of_both_families() -> None:
    result = settings(HP_TRUSTED_PROXY_IPS="10.0.0.1, 192.168.0.0/16,, fd00::/8")
    assert result.proxies.trusted == tuple(map(ip_network, ("10.0.0.1/32", "192.168.0.0/16", "fd00::/8")))
    assert result.warnings == ()


def test_a_bad_entry_is_skipped_with_a_warning_and_the_others_stay() -> None:
    for entries in ("10.0.0.1,nginx", "nginx,10.0.0.1,"):
        assert settings(HP_TRUSTED_PROXY_IPS=entries).proxies.trusted == (ip_network("10.0.0.1"),)
        assert '"nginx"' in warning(HP_TRUSTED_PROXY_IPS=entries)


def test_host_bits_are_masked_with_a_warning() -> None:
    assert settings(HP_TRUSTED_PROXY_IPS="172.18.0.5/16").proxies.trusted == (ip_network("172.18.0.0/16"),)
    assert "172.18.0.0/16" in warning(HP_TRUSTED_PROXY_IPS="172.18.0.5/16")


def test_entries_may_be_separated_by_blanks_and_lines() -> None:
    result = settings(HP_TRUSTED_PROXY_IPS="10.0.0.1 10.0.0.2\n10.0.0.3")
    assert result.proxies.trusted == tuple(ip_network(f"10.0.0.{number}") for number in (1, 2, 3))
    assert result.warnings == ()


def test_more_proxies_may_stand_in_a_file_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "proxies"
    file.write_text("# our load balancers\n10.0.0.1, 10.0.0.2  # old\n\n fd00::/8\r\nnginx\n")
    variables = {"HP_TRUSTED_PROXY_IPS": "192.0.2.1", "HP_TRUSTED_PROXY_IPS_FILE": str(file)}
    expected = ("192.0.2.1", "10.0.0.1", "10.0.0.2", "fd00::/8")
    assert settings(**variables).proxies.trusted == tuple(map(ip_network, expected))
    assert warning(**variables).startswith('HP_TRUSTED_PROXY_IPS_FILE: "nginx" ')


def test_a_file_of_proxies_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert os.strerror(2) in problem(HP_TRUSTED_PROXY_IPS_FILE=str(tmp_path / "none"))


def test_quotes_are_stripped_per_entry() -> None:
    result = settings(HP_TRUSTED_PROXY_IPS="“10.0.0.1”,'10.0.0.2'")
    assert result.proxies.trusted == (ip_network("10.0.0.1"), ip_network("10.0.0.2"))


def test_an_ipv4_mapped_proxy_is_the_ipv4_one() -> None:
    result = settings(HP_TRUSTED_PROXY_IPS="::ffff:10.0.0.1,::ffff:10.1.0.0/112")
    assert result.proxies.trusted == (ip_network("10.0.0.1"), ip_network("10.1.0.0/16"))


def test_trusting_everybody_is_warned_of() -> None:
    assert "every client" in warning(HP_TRUSTED_PROXY_IPS="0.0.0.0/0")


def test_the_header_that_names_the_client_is_a_header() -> None:
    assert settings(HP_REAL_IP_HEADER="CF-Connecting-IP").proxies.header == "cf-connecting-ip"
    assert "not the name of a header" in problem(HP_REAL_IP_HEADER="X Forwarded For")


# --- engines


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("24001", {24001}),
        ("24001, 24003-24005", {24001, 24003, 24004, 24005}),
        ("'24000'-24001", None),
        ("1-65536", None),
    ],
)
def test_engine_ports_are_a_list_of_ports_and_ranges(text: str, ports: set[int] | None) -> None:
    if ports is None:
        assert problem(HP_DOCKER_ENGINE_PORTS=text).startswith("HP_DOCKER_ENGINE_PORTS: ")
    else:
        assert settings(HP_DOCKER_ENGINE_PORTS=text).engines.ports == ports


@pytest.mark.parametrize("text", ["0", "24000-", "a", "24000,,24001", "24002-24001"])
def test_what_is_no_list_of_ports_is_refused(text: str) -> None:
    assert problem(HP_DOCKER_ENGINE_PORTS=text).startswith("HP_DOCKER_ENGINE_PORTS: ")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("none", ()),
        ("9030", (range(9030, 9031),)),
        ("9032, 9030-9031, 8000-8010, 8005", (range(8000, 8011), range(9030, 9033))),
        ("1-65535", (range(1, 65536),)),
    ],
)
def test_local_ports_are_kept_as_few_ranges_in_order(text: str, ports: tuple[range, ...]) -> None:
    assert settings(HP_LOCAL_EXAPPS=text).local_exapps == ports


def test_mounts_are_absolute_and_normalised() -> None:
    engines = settings(
        HP_EXAPP_BIND_MOUNTS_ALLOWED="/srv//data/, '/mnt/./x'", HP_EXAPP_BIND_MOUNTS_DENIED="/etc:rw,/,/a b"
    ).engines
    assert engines.mounts_allowed == ("/srv/data", "/mnt/x")
    assert engines.mounts_denied == ("/etc:rw", "/", "/a b")


def test_absent_mount_lists_mean_all_and_the_default_and_an_empty_denial_removes_it() -> None:
    assert (settings().engines.mounts_allowed, settings().engines.mounts_denied) == (None, None)
    assert settings(HP_EXAPP_BIND_MOUNTS_DENIED="").engines.mounts_denied == ()
    assert settings(HP_EXAPP_BIND_MOUNTS_ALLOWED="").engines.mounts_allowed is None


@pytest.mark.parametrize("text", ["srv", "/srv/../etc", "/srv:ro", "/srv /mnt", "/a,b"])
def test_what_is_no_absolute_path_is_refused_as_a_mount(text: str) -> None:
    for name in ("HP_EXAPP_BIND_MOUNTS_ALLOWED", "HP_EXAPP_BIND_MOUNTS_DENIED"):
        assert problem(**{name: text}).startswith(f"{name}: ")


def test_rw_is_for_denied_mounts_alone() -> None:
    assert problem(HP_EXAPP_BIND_MOUNTS_ALLOWED="/srv:rw").startswith("HP_EXAPP_BIND_MOUNTS_ALLOWED: ")
