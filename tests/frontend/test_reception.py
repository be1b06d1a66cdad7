"""The reception, connection by connection: whose turn it is, and what is remembered."""

from __future__ import annotations

from io import BytesIO
from random import Random

from msgspec.structs import replace

from harp.frontend.access import AccessLog
from harp.frontend.books import Books
from harp.frontend.connection import ClientConnection
from harp.frontend.gate import Gate
from harp.frontend.reception import A_TURN, Reception
from harp.logs import RareWarnings
from harp.net.ports import PortTable
from harp.net.turns import Turns
from harp.nextcloud.banning import Banning
from harp.proxy.upstreams import Upstreams
from harp.settings import Settings, load
from tests.fakes.clock import Clock
from tests.fakes.dialer import ScriptedDialer
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled
from tests.frontend.gate_world import ENV, FakeInstance

NAMES = ("red", "blue")


class Lobby:
    """A reception with two Nextclouds whose ExApps are scripted."""

    def __init__(self, **env: str) -> None:
        environment = {**ENV, **env}
        self.settings = load(environment)
        self.deadlines = Clock().deadlines
        self.log = BytesIO()
        access = AccessLog("all", json=True, stream=self.log)
        self.warnings = RareWarnings(lambda: self.deadlines.now)
        self.strangers = Banning(self.settings.bans, lambda: self.deadlines.now, self.warnings, lambda: None)
        books = Books(access, self.warnings)
        self.turns = Turns()
        self.reception = Reception(self.settings, self.deadlines, self.turns, books, self.strangers, self.warnings)
        self.instances = {name: FakeInstance(environment) for name in NAMES}
        self.dialers = {name: ScriptedDialer() for name in NAMES}
        self.served: dict[str, tuple[Settings, Gate]] = {}
        for name in NAMES:
            settings = replace(self.settings, instance=name, hosts=(f"{name}.example",), shared_key=f"key of {name}")
            timeouts = settings.timeouts
            upstreams = Upstreams(self.dialers[name], PortTable(), self.deadlines, timeouts, turns=self.turns)
            gate = Gate(
                *(settings, self.instances[name], upstreams, self.deadlines),
                Books(access, self.warnings, instance=name),
                self.turns,
                reader=self.reception.reader,
            )
            self.served[name] = (settings, gate)
        self.reception.open(self.served)

    def connect(self, peer: str = "8.8.4.4") -> tuple[MemoryTransport, ClientConnection]:
        wire = MemoryTransport((peer, 4000))
        connection = ClientConnection(self.reception, secure=False)
        connection.connection_made(wire)
        return wire, connection


def request(name: str, more: str = "") -> bytes:
    return f"GET /exapps/hello/public HTTP/1.1\r\nHost: {name}.example\r\n{more}\r\n".encode()


async def test_a_flood_on_one_instance_stands_in_line_and_the_other_is_begun_at_once() -> None:
    lobby = Lobby()
    crowd = [lobby.connect() for _ in range(10 * A_TURN)]
    for _, connection in crowd:  # all of them are ready in one turn of the loop
        connection.data_received(request("red"))
    assert lobby.reception.load("red")[1:] == (A_TURN, 9 * A_TURN)
    _, alone = lobby.connect()
    alone.data_received(request("blue"))
    assert lobby.reception.load("blue")[1:] == (1, 0)
    await settled()
    assert lobby.reception.load("red")[1:] == (10 * A_TURN, 0)


async def test_requests_of_one_instance_are_begun_in_the_order_they_came() -> None:
    lobby = Lobby()
    crowd = [lobby.connect() for _ in range(3 * A_TURN)]
    for number, (_, connection) in enumerate(crowd):
        connection.data_received(request("red", f"X-Number: {number}\r\n"))
    await settled()
    sent = [transport.take() for transport, _ in lobby.dialers["red"].made]
    numbers = [int(head.partition(b"X-Number: ")[2].split(b"\r\n")[0]) for head in sent]
    assert numbers == list(range(3 * A_TURN))


async def test_what_is_said_again_is_not_chosen_again_until_it_is_forgotten() -> None:
    lobby = Lobby()
    _, connection = lobby.connect()
    connection.data_received(request("red"))
    await settled()
    lobby.reception.open({"blue": lobby.served["blue"]})
    wire, again = lobby.connect()
    again.data_received(request("red"))
    assert wire.take().startswith(b"HTTP/1.1 421")


async def test_the_choice_belongs_to_the_peer_as_well() -> None:
    """The same bytes from a proxy and from a stranger are for different Nextclouds."""
    lobby = Lobby(HP_TRUSTED_PROXY_IPS="10.0.0.1")
    for peer, name in (("10.0.0.1", "blue"), ("8.8.4.4", "red"), ("10.0.0.1", "blue"), ("8.8.4.4", "red")):
        before = {one: lobby.reception.load(one)[1] for one in NAMES}
        _, connection = lobby.connect(peer)
        connection.data_received(request("red", "X-Forwarded-Host: blue.example\r\n"))
        after = {one: lobby.reception.load(one)[1] for one in NAMES}
        assert {one for one in NAMES if after[one] > before[one]} == {name}


async def test_a_connection_counts_where_its_last_request_went() -> None:
    lobby = Lobby()
    _, connection = lobby.connect()
    connection.data_received(request("red"))
    assert [lobby.reception.load(name)[0] for name in NAMES] == [1, 0]
    await settled()
    lobby.dialers["red"].made[-1][1].data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    connection.data_received(request("blue"))
    assert [lobby.reception.load(name)[0] for name in NAMES] == [0, 1]
    connection.connection_lost(None)
    assert [lobby.reception.load(name)[0] for name in NAMES] == [0, 0]


async def test_the_access_log_names_the_instance_and_nobody_for_strangers() -> None:
    lobby = Lobby()
    wire, connection = lobby.connect()
    connection.data_received(request("green"))
    assert wire.take().startswith(b"HTTP/1.1 421")
    connection.data_received(request("red"))
    await settled()
    lobby.dialers["red"].made[-1][1].data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await lobby.reception.close()
    stranger, red = lobby.log.getvalue().splitlines()
    assert b'"instance"' not in stranger
    assert b'"status":421' in stranger
    assert b'"instance":"red"' in red


async def test_what_is_no_request_is_nobodys() -> None:
    lobby = Lobby()
    wire, connection = lobby.connect()
    connection.data_received(b"nonsense\r\n\r\n")
    assert wire.take().startswith(b"HTTP/1.1 400")
    assert [lobby.reception.load(name) for name in NAMES] == [(0, 0, 0)] * 2


PEERS = ("10.0.0.1", "10.0.0.2", "8.8.4.4", "192.168.1.1")
HOSTS = ("red.example", "blue.example", "green.example", "RED.example:1")
KEYS = ("", "harp-shared-key: key of red\r\n", "harp-shared-key: key of blue\r\n", "harp-shared-key: wrong\r\n")


async def chosen(lobby: Lobby, peer: str, lines: str) -> dict[str, int]:
    """Requests under way of each, after one more."""
    wire, connection = lobby.connect(peer)
    connection.data_received(f"GET /exapps/hello/public HTTP/1.1\r\n{lines}\r\n".encode())
    await settled()
    wire.take()
    found = {name: lobby.reception.load(name)[1] for name in NAMES}
    connection.connection_lost(None)
    await settled()
    return found


async def test_what_is_remembered_changes_no_choice() -> None:
    """Random requests in random order at one reception, and each at one that has never seen any."""
    random, env = Random(7), {"HP_TRUSTED_PROXY_IPS": "10.0.0.1", "HP_BLACKLIST_COUNT": "0"}
    lobby = Lobby(**env)
    for _ in range(300):
        told = random.choice(("", "X-Forwarded-Host: blue.example\r\n", "X-Forwarded-Host: red.example, x\r\n"))
        lines = f"Host: {random.choice(HOSTS)}\r\n{told}{random.choice(KEYS)}"
        peer = random.choice(PEERS)
        assert await chosen(lobby, peer, lines) == await chosen(Lobby(**env), peer, lines), (peer, lines)


async def test_a_line_that_half_has_left_is_closed_up() -> None:
    lobby = Lobby()
    settings, gate = lobby.served["red"]
    shares = replace(settings.shares, requests=1, connections=10)
    lobby.reception.open({**lobby.served, "red": (replace(settings, shares=shares), gate)})
    crowd = [lobby.connect() for _ in range(9)]
    for _, connection in crowd:
        connection.data_received(request("red"))
    await settled()
    assert lobby.reception.load("red") == (9, 1, 8)
    for _, connection in crowd[1:6]:
        connection.connection_lost(None)
    assert lobby.reception.load("red")[2] <= 5
