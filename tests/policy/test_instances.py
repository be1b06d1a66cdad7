"""Which Nextcloud a request is for: its key's, else its host's."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from harp.policy.bans import Denial, Offence
from harp.policy.instances import InstanceNames
from harp.settings import load

BASE = load({"HP_SHARED_KEY": "nobody's key", "NC_INSTANCE_URL": "http://nobody"})
RED = replace(BASE, instance="red", shared_key="key of red", hosts=("red.example", "shared.example:1"))
BLUE = replace(
    BASE, instance="blue", shared_key="key of blue", hosts=("blue.example", "shared.example:2", "[2001:db8::1]")
)
REST = replace(BASE, instance="rest", shared_key="key of rest", hosts=("*",))
NAMES = InstanceNames([RED, BLUE], b"seal")


def chosen(names: InstanceNames = NAMES, speaks_for: tuple[str, ...] = (), **lines: str) -> str | int:
    """The name, or the status of the refusal. In names of headers `_` stands for `-`."""
    found = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in lines.items()}
    choice = names.choose(found, lambda name: name in speaks_for)
    return choice.status if isinstance(choice, Denial) else choice


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("red.example", "red"),
        ("RED.Example:8443", "red"),
        ("red.example.", "red"),
        ("blue.example", "blue"),
        ("shared.example:1", "red"),
        ("shared.example:2", "blue"),
        ("[2001:DB8::1]:8781", "blue"),
        ("shared.example", 421),
        ("shared.example:3", 421),
        ("red.example.evil", 421),
        ("xred.example", 421),
        ("", 421),
        ("[", 421),
        (":", 421),
        ("red.example" * 30, 421),
        ("\xff", 421),
    ],
)
def test_a_browser_is_taken_where_its_host_says(host: str, name: str | int) -> None:
    assert chosen(host=host) == name


def test_without_a_host_nobody_is_meant() -> None:
    assert chosen() == 421


def test_one_entry_may_take_every_other_host() -> None:
    names = InstanceNames([RED, REST], b"seal")
    assert chosen(names, host="red.example") == "red"
    assert chosen(names, host="any.example") == "rest"
    assert chosen(names) == "rest"
    assert chosen(names, host="*") == "rest"
    assert chosen(names, host="*", harp_shared_key="key of red") == "red"
    assert chosen(names, speaks_for=("rest",), host="red.example", x_forwarded_host="*") == "red"


def test_a_key_decides_wherever_it_arrives() -> None:
    assert chosen(host="appapi-harp:8780", harp_shared_key="key of red") == "red"
    assert chosen(harp_shared_key="key of blue") == "blue"
    assert chosen(host="blue.example", harp_shared_key="key of blue") == "blue"


def test_the_key_of_one_at_the_host_of_another_does_nothing_and_both_are_named() -> None:
    choice = NAMES.choose({b"host": b"blue.example", b"harp-shared-key": b"key of red"}, lambda _: False)
    assert isinstance(choice, Denial)
    assert choice.status == 421
    assert choice.offence is Offence.NONE  # the key is a right one
    assert "red" in choice.reason
    assert "blue" in choice.reason


def test_a_wrong_key_is_an_attack_on_the_one_whose_host_it_comes_to() -> None:
    assert chosen(host="blue.example", harp_shared_key="wrong") == "blue"  # its gate refuses and counts it
    choice = NAMES.choose({b"host": b"elsewhere", b"harp-shared-key": b"wrong"}, lambda _: False)
    assert isinstance(choice, Denial)
    assert (choice.status, choice.offence) == (401, Offence.ATTACK)


@pytest.mark.parametrize("key", ["", "KEY OF RED", "key of red ", "nobody's key"])
def test_a_key_is_right_to_the_letter(key: str) -> None:
    assert chosen(host="elsewhere", harp_shared_key=key) == 401


def test_what_a_proxy_says_counts_for_the_instance_that_trusts_it() -> None:
    assert chosen(speaks_for=("blue",), host="inner", x_forwarded_host="blue.example") == "blue"
    assert chosen(speaks_for=("red",), host="inner", x_forwarded_host="blue.example") == 421
    assert chosen(host="inner", x_forwarded_host="blue.example") == 421


def test_a_proxy_of_one_cannot_lead_its_visitors_to_another() -> None:
    assert chosen(speaks_for=("red",), host="red.example", x_forwarded_host="blue.example") == "red"


def test_a_chain_of_proxies_is_read_from_the_visitors_end() -> None:
    told = "unknown.example, Blue.Example:443 ,red.example"
    assert chosen(speaks_for=("red", "blue"), host="inner", x_forwarded_host=told) == "blue"


def test_a_long_chain_is_not_read_to_its_end() -> None:
    told = ",".join(["unknown.example"] * 1000 + ["blue.example"])
    assert chosen(speaks_for=("blue",), host="inner", x_forwarded_host=told) == 421


def test_the_refusal_of_a_host_shows_the_host_shortened() -> None:
    choice = NAMES.choose({b"host": b"a" * 200}, lambda _: False)
    assert isinstance(choice, Denial)
    assert "a" * 80 + ";" in choice.reason
