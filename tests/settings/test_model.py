"""Settings as a whole: defaults, the key, and problems that are reported all at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from harp.errors import SettingsError
from harp.settings import OBSOLETE, Address, examine, load
from tests.settings.reading import KEY, LEAST, URL, problem, reading, settings, warning

# --- what an admin may leave out


def test_key_and_url_are_enough_and_nothing_is_warned_of() -> None:
    result = settings()
    assert result.shared_key == KEY
    assert result.nextcloud.url == URL
    assert result.warnings == ()


def test_the_defaults_are_those_of_the_existing_system() -> None:
    result = settings()
    assert result.listen.http == (Address("0.0.0.0", 8780),)
    assert result.listen.https == (Address("0.0.0.0", 8781),)
    assert result.listen.frp == (Address("0.0.0.0", 8782),)
    assert result.listen.admin == (Address("127.0.0.1", 8200),)
    assert result.certs == Path("/certs")
    assert result.tunnel.tls
    assert result.tunnel.validity_days == 5000
    assert result.nextcloud.session_lifetime == 3
    assert (result.bans.count, result.bans.window) == (10, 300)
    assert (result.timeouts.connect, result.timeouts.client, result.timeouts.server) == (30, 30, 1800)
    assert result.timeouts.tunnel == 1800
    assert result.proxies.trusted == ()
    assert result.engines.ports == frozenset(range(24000, 24100))
    assert (result.logs.level, result.logs.format) == ("warning", "text")
    assert not result.kubernetes.enabled
    assert result.kubernetes.verify
    assert result.kubernetes.pods.storage_size == "10Gi"


def test_our_own_defaults_fit_their_neighbours() -> None:
    timeouts = settings().timeouts
    assert timeouts.keepalive > 60  # nginx closes its side after 60 s
    assert timeouts.upstream_idle < 5  # uvicorn closes after 5 s
    assert timeouts.drain < 10  # docker stop kills after 10 s
    assert timeouts.response > 1800  # A 2.8


def test_an_empty_variable_is_an_absent_one() -> None:
    names = [value.name for value in reading().values if value.name not in LEAST]
    result = settings(**dict.fromkeys(names, ""))
    assert result.listen == settings().listen
    assert result.timeouts == settings().timeouts
    assert result.warnings == ()


def test_what_steered_other_programs_is_accepted_in_silence() -> None:
    assert reading(**dict.fromkeys(OBSOLETE, "no number at all")).warnings == ()


# --- the key


@pytest.mark.parametrize(
    "key", ['with " inside', "back\\slash and #", "schlüssel-größe", "a'b'c'd'e'f'", "${not} %s {}"]
)
def test_a_key_may_hold_any_printable_character(key: str) -> None:
    assert settings(HP_SHARED_KEY=key).shared_key == key


@pytest.mark.parametrize("quoted", [f'"{KEY}"', f"'{KEY}'", f"“{KEY}”"])
def test_one_pair_of_quotes_around_the_key_is_removed_with_a_warning(quoted: str) -> None:
    assert settings(HP_SHARED_KEY=quoted).shared_key == KEY
    assert warning(HP_SHARED_KEY=quoted).startswith("HP_SHARED_KEY: the quotes around it were removed")


def test_only_one_pair_is_removed() -> None:
    assert settings(HP_SHARED_KEY=f"''{KEY}''").shared_key == f"'{KEY}'"


def test_blanks_around_the_key_are_removed_because_no_header_can_carry_them() -> None:
    assert settings(HP_SHARED_KEY=f" {KEY}\n").shared_key == KEY
    assert "spaces" in warning(HP_SHARED_KEY=f" {KEY}\n")


@pytest.mark.parametrize("key", ["tab\tinside", "line\nbreak", "nul\0", "not\udcffutf8", '" blank inside quotes"'])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    assert problem(HP_SHARED_KEY=key).startswith("HP_SHARED_KEY: ")


def test_a_short_key_is_warned_of() -> None:
    assert "guessed" in warning(HP_SHARED_KEY="hunter2")


def test_the_key_may_stand_in_a_file_with_a_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b'schl\xc3\xbcssel with "quotes" \r\n\n'.replace(b" \r", b"\r"))
    result = load({"HP_SHARED_KEY_FILE": str(file), "NC_INSTANCE_URL": URL})
    assert result.shared_key == 'schlüssel with "quotes"'


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"a" * 70_000, "larger"),
        (b"one\ntwo", "one line"),
    ],
)
def test_a_key_file_that_holds_no_key_is_a_problem(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    found = examine({"HP_SHARED_KEY_FILE": str(file), "NC_INSTANCE_URL": URL}).problems
    assert len(found) == 1
    assert found[0].startswith("HP_SHARED_KEY_FILE: ")
    assert text in found[0]


def test_a_key_file_that_cannot_be_read_is_a_problem_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", os.strerror(2)), (tmp_path, os.strerror(21))):
        found = examine({"HP_SHARED_KEY_FILE": str(path), "NC_INSTANCE_URL": URL}).problems
        assert len(found) == 1
        assert reason in found[0]


def test_key_and_file_together_are_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    assert problem(HP_SHARED_KEY_FILE=str(file)) == (
        "HP_SHARED_KEY: HP_SHARED_KEY_FILE is set as well; remove one of the two"
    )


# --- saying what is wrong


def test_nothing_given_names_both_required_variables_and_what_to_write() -> None:
    with pytest.raises(SettingsError) as caught:
        load({})
    assert [line.partition(":")[0] for line in caught.value.problems] == ["HP_SHARED_KEY", "NC_INSTANCE_URL"]
    assert "https://cloud.example.com" in str(caught.value)


def test_all_problems_are_told_at_once_each_with_its_variable() -> None:
    found = examine(
        {
            "HP_SHARED_KEY": "tab\tinside the key",
            "NC_INSTANCE_URL": "cloud.example.com",
            "HP_EXAPPS_ADDRESS": "0.0.0.0",
            "HP_TIMEOUT_SERVER": "30 seconds",
            "HP_BLACKLIST_COUNT": "ten",
            "HP_BAN_ACTION": "explode",
            "HP_DOCKER_ENGINE_PORTS": "24001-24000",
        }
    )
    assert {line.partition(":")[0] for line in found.problems} == {
        "HP_SHARED_KEY",
        "NC_INSTANCE_URL",
        "HP_EXAPPS_ADDRESS",
        "HP_TIMEOUT_SERVER",
        "HP_BLACKLIST_COUNT",
        "HP_BAN_ACTION",
        "HP_DOCKER_ENGINE_PORTS",
    }
    assert len(found.problems) == 7


@examples(deadline=None)
@given(st.text(alphabet="☃\"'\\#a \t\n\0\udcff"))
def test_no_problem_or_warning_repeats_any_of_the_key(key: str) -> None:
    result = examine({"HP_SHARED_KEY": f"☃{key}☃", "NC_INSTANCE_URL": URL, "HP_BLACKLIST_COUNT": "ten"})
    assert "☃" not in "\n".join((*result.problems, *result.warnings, repr(result)))


@examples(deadline=None)
@given(st.text(st.characters(), max_size=40))
@example("/\ud7fc")
@example("unix:/\udcff")
def test_no_text_makes_reading_fail_in_another_way(text: str) -> None:
    names = [value.name for value in reading().values if not value.name.endswith("_FILE")]
    result = examine(dict.fromkeys(names, text))
    assert all(line.isprintable() for line in (*result.problems, *result.warnings))


def test_an_unknown_variable_is_warned_of_with_the_nearest_name() -> None:
    assert warning(HP_TRUSTED_PROXY_IP="10.0.0.1") == (
        "HP_TRUSTED_PROXY_IP: is not a variable of HaRP; did you mean HP_TRUSTED_PROXY_IPS?"
    )
    assert warning(HP_QQQQ="1") == "HP_QQQQ: is not a variable of HaRP"


def test_a_long_or_binary_value_is_shown_short_and_on_one_line() -> None:
    text = problem(HP_BLACKLIST_COUNT="9" * 500 + "\n\x1b[31m")
    assert len(text) < 160
    assert text.isprintable()


@pytest.mark.parametrize("quotes", ['""', "''", "“”", "‘’", "„“", "\"'"])
def test_quotes_around_any_other_value_are_removed_with_a_warning(quotes: str) -> None:
    value = f"{quotes[0]}20s{quotes[1]}"
    assert settings(HP_TIMEOUT_CLIENT=value).timeouts.client == 20
    assert warning(HP_TIMEOUT_CLIENT=value).startswith("HP_TIMEOUT_CLIENT: the quotes around the value were removed")


def test_the_values_in_effect_are_listed_and_tell_given_from_default() -> None:
    values = {value.name: value for value in reading(HP_TIMEOUT_CLIENT="20s", HP_BAN_ACTION="explode").values}
    assert (values["HP_TIMEOUT_CLIENT"].text, values["HP_TIMEOUT_CLIENT"].given) == ("20s", True)
    assert (values["HP_TIMEOUT_CONNECT"].text, values["HP_TIMEOUT_CONNECT"].given) == ("30s", False)
    assert (values["HP_BAN_ACTION"].text, values["HP_BAN_ACTION"].given) == ("reply", False)
    assert values["HP_SHARED_KEY"].secret
    assert KEY not in repr(values)


def test_settings_never_show_the_key() -> None:
    assert KEY not in repr(settings())
