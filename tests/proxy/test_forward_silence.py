"""A tunnel behind which nothing answers."""

from __future__ import annotations

from weakref import ref

from harp.proxy.listening import FIRST_SILENCE, PROBE_LIMIT, SILENCE, STEP
from tests.fakes.waiting import settled
from tests.proxy.forward_world import BEHIND_TUNNEL, OK, TIMEOUTS, NotingClient, ProbedOffer, ProxyWorld

GET = b"GET / HTTP/1.1\r\n"

POST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n"


async def through_a_tunnel(lines: bytes, *, listens: bool) -> tuple[ProxyWorld, ProbedOffer, NotingClient]:
    """A request that has just gone out through a tunnel of which nothing is known."""
    world = ProxyWorld()
    offer = world.dialer.offer = ProbedOffer(listens=listens)
    world.ports.claim(23001, offer)
    client, _ = await world.send(lines, target=BEHIND_TUNNEL)
    return world, offer, client


async def silence(world: ProxyWorld, seconds: float) -> None:
    """Pass the time, tick by tick."""
    for _ in range(round(seconds / 0.25)):
        world.wait(0.25)
        await settled()


async def test_silence_of_a_tunnel_behind_which_nothing_listens_is_502_within_seconds() -> None:
    """frpc up to 0.67 keeps silent when the ExApp's socket is missing (F 5.6)."""
    for lines in (GET, POST):
        world, offer, client = await through_a_tunnel(lines, listens=False)
        await silence(world, FIRST_SILENCE)
        assert len(offer.probes) == 1
        await silence(world, PROBE_LIMIT + 4 * STEP)
        assert client.status == 502
        assert client.refused == (
            "the tunnel of ExApp hello is up, but nothing listens behind it (frpc's log says why)"
        )
        await silence(world, PROBE_LIMIT)
        assert world.wire().aborted
        assert all(probe.aborted for probe in offer.probes)


async def test_a_request_that_came_before_its_exapp_listened_is_sent_again_as_soon_as_it_does() -> None:
    world, offer, client = await through_a_tunnel(GET, listens=False)
    await silence(world, 1.0)
    offer.listens = True
    await silence(world, 2 * STEP)
    assert world.wire(0).aborted
    world.answer(OK, index=1)
    assert client.received == b"ok"


async def test_what_may_not_be_sent_twice_is_502_when_it_came_before_its_exapp_listened() -> None:
    world, offer, client = await through_a_tunnel(POST, listens=False)
    await silence(world, 1.0)
    offer.listens = True
    await silence(world, 2 * STEP)
    assert client.status == 502
    assert "nothing was listening behind it when this request was sent" in client.refused
    assert len(world.dialer.made) == 1


async def test_a_long_request_through_a_fresh_tunnel_is_waited_for_when_the_app_listens() -> None:
    world, _, client = await through_a_tunnel(POST, listens=True)
    await silence(world, 2.0)
    world.wait(TIMEOUTS.response - 5)
    assert (client.status, len(world.dialer.made)) == (0, 1)
    world.answer(OK, index=0)
    assert client.status == 200


async def test_a_long_request_is_sent_once_through_a_tunnel_that_has_answered_before() -> None:
    world, offer, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    client, _ = await world.send(GET, target=BEHIND_TUNNEL)
    await silence(world, SILENCE + 2 * STEP)
    assert len(offer.probes) == 1
    world.wait(TIMEOUTS.response - 5)
    assert client.status == 0
    world.wait(10)
    assert (client.status, len(world.dialer.made)) == (504, 2)


async def test_an_exapp_that_has_died_behind_its_tunnel_is_noticed_although_it_has_answered_before() -> None:
    world, offer, _ = await through_a_tunnel(POST, listens=True)
    world.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    offer.listens = False
    client, _ = await world.send(POST, target=BEHIND_TUNNEL)
    await silence(world, SILENCE + PROBE_LIMIT + 4 * STEP)
    assert client.status == 502


async def test_who_has_sent_an_interim_answer_through_a_fresh_tunnel_has_all_the_time_for_the_real_one() -> None:
    world, _, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    await silence(world, 60.0)
    world.answer(OK)
    assert (client.status, client.received) == (200, b"ok")


async def test_an_interim_answer_through_a_fresh_tunnel_does_not_lift_the_limit() -> None:
    world, _, client = await through_a_tunnel(GET, listens=True)
    world.answer(b"HTTP/1.1 102 Processing\r\n\r\n")
    world.wait(TIMEOUTS.response + 1)
    assert client.status == 504


async def test_a_kept_stream_is_not_probed_because_it_has_carried_an_answer() -> None:
    world, offer, _ = await through_a_tunnel(GET, listens=True)
    world.answer(OK)
    client, _ = await world.send(GET, target=BEHIND_TUNNEL)
    await silence(world, 20)
    assert (offer.probes, client.status, len(world.dialer.made)) == ([], 0, 1)


async def test_a_tunnel_that_has_gone_is_not_kept_by_what_was_learnt_of_it() -> None:
    world, tunnel = ProxyWorld(), ProbedOffer()
    gone = ref(tunnel)
    assert world.upstreams.listening(tunnel) is world.upstreams.listening(tunnel)
    del tunnel
    assert gone() is None
