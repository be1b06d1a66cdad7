"""Names to addresses, without asking anybody outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harp.errors import Unreachable
from harp.net.resolve import Resolver, in_turn
from tests.fakes.clock import Clock


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver(Clock())
    yield made
    made.close()


@pytest.mark.parametrize("literal", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_is_its_own_answer(resolver: Resolver, literal: str) -> None:
    assert await resolver.addresses(literal) == (literal,)


async def test_ipv4_is_preferred(resolver: Resolver) -> None:
    assert (await resolver.addresses("localhost"))[0] == "127.0.0.1"


def test_the_families_take_turns_and_nothing_is_tried_twice() -> None:
    found = [
        (False, "::1"),
        (False, "::2"),
        (False, "::3"),
        (True, "192.0.2.1"),
        (True, "192.0.2.2"),
        (True, "192.0.2.1"),
    ]
    assert in_turn(found) == ("192.0.2.1", "::1", "192.0.2.2", "::2", "::3")
    assert in_turn([(False, "::1")]) == ("::1",)


async def test_what_is_no_name_is_unreachable_in_words(resolver: Resolver) -> None:
    with pytest.raises(Unreachable, match=r"^the name exapp\.\.example does not resolve: "):
        await resolver.addresses("exapp..example")


async def test_two_who_ask_at_once_share_a_look_up_and_the_answer_is_remembered(resolver: Resolver) -> None:
    first, second = await asyncio.gather(resolver.addresses("localhost"), resolver.addresses("localhost"))
    assert first == second
    assert await resolver.addresses("localhost") is first is second
    resolver.forget("localhost")
    again = await resolver.addresses("localhost")
    assert again == first
    assert again is not first
