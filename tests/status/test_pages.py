"""The pages of the admin listener: alive and ready are two questions."""

from __future__ import annotations

from typing import Any

import msgspec

from harp.status.conditions import Condition
from harp.status.engines import EngineLine, TunnelOfEngine
from harp.status.pages import Pages


class FactsOfPages:
    """A process whose state the test sets."""

    def __init__(self) -> None:
        self.http = Condition(True, "0.0.0.0:8780")
        self.asked: Condition | None = Condition(True, "answered 200")
        self.stopping = False
        self.known: list[EngineLine] = []

    def listeners(self) -> dict[str, Condition]:
        return {"http": self.http, "frp": Condition(True, "0.0.0.0:8782")}

    def nextcloud(self) -> Condition | None:
        return self.asked

    def draining(self) -> bool:
        return self.stopping

    def engines(self) -> list[EngineLine]:
        return self.known


def page(facts: FactsOfPages, path: str) -> tuple[int, Any]:
    """Status and content of the page at `path`."""
    found = Pages(facts).at(path.encode())
    assert found is not None
    return found.status, msgspec.json.decode(found.body)


def test_heartbeat_looks_at_nothing() -> None:
    facts = FactsOfPages()
    facts.http = Condition(False, "closed")
    assert page(facts, "/heartbeat") == (200, {"status": "ok"})


def test_a_process_with_all_listeners_up_is_healthy_and_ready() -> None:
    assert page(FactsOfPages(), "/healthz")[0] == 200
    assert page(FactsOfPages(), "/readyz") == (
        200,
        {
            "status": "ready",
            "conditions": {
                "http": {"ok": True, "detail": "0.0.0.0:8780"},
                "frp": {"ok": True, "detail": "0.0.0.0:8782"},
                "accepting": {"ok": True, "detail": "accepting requests"},
                "nextcloud": {"ok": True, "detail": "answered 200"},
            },
        },
    )


def test_a_listener_that_is_down_makes_it_unhealthy_and_unready() -> None:
    facts = FactsOfPages()
    facts.http = Condition(False, "address already in use")
    status, healthy = page(facts, "/healthz")
    assert status == 503
    assert healthy["conditions"]["http"] == {"ok": False, "detail": "address already in use"}
    assert page(facts, "/readyz")[0] == 503


def test_before_nextcloud_was_asked_it_is_healthy_but_not_ready() -> None:
    facts = FactsOfPages()
    facts.asked = None
    assert page(facts, "/healthz")[0] == 200
    status, ready = page(facts, "/readyz")
    assert status == 503
    assert ready["conditions"]["nextcloud"] == {"ok": False, "detail": "not asked yet"}


def test_a_nextcloud_out_of_reach_is_shown_but_does_not_make_us_unready() -> None:
    facts = FactsOfPages()
    facts.asked = Condition(False, "cloud.example.com: name does not resolve")
    status, ready = page(facts, "/readyz")
    assert status == 200
    assert ready["conditions"]["nextcloud"]["detail"] == "cloud.example.com: name does not resolve"


def test_while_draining_it_is_healthy_but_not_ready_even_with_listeners_closed() -> None:
    facts = FactsOfPages()
    facts.stopping = True
    facts.http = Condition(False, "closed")
    assert page(facts, "/healthz")[0] == 200
    status, ready = page(facts, "/readyz")
    assert status == 503
    assert ready["conditions"]["accepting"]["ok"] is False


def test_engines_are_listed() -> None:
    facts = FactsOfPages()
    tunnel = TunnelOfEngine("gpu1", "192.0.2.7", "gpu", since=1000.0, round_trip=0.02)
    facts.known = [EngineLine(24001, "29.0.1", "1.44 to 1.52", False, 2000.0, "", tunnel)]
    status, (line,) = page(facts, "/engines")
    assert status == 200
    assert (line["port"], line["version"], line["api"], line["trouble"]) == (24001, "29.0.1", "1.44 to 1.52", "")
    assert line["tunnel"]["round_trip"] == 0.02


def test_there_is_no_page_elsewhere() -> None:
    assert Pages(FactsOfPages()).at(b"/metrics") is None
