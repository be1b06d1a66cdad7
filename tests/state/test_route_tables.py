"""Compiled routes take memory and time, so both are bounded."""

from __future__ import annotations

import asyncio

from harp.policy.paths import ExAppPath, locate
from harp.policy.route import Level, Route
from harp.policy.routes import RouteTable
from harp.state.route_tables import RouteTables
from tests.fakes.waiting import turn


def table(size: int) -> RouteTable:
    return RouteTable(tuple(Route(f"^/api/things/{number}$", Level.PUBLIC) for number in range(size)))


def use(routes: RouteTable) -> None:
    path = locate(b"/exapps/hello/api/things/1")
    assert isinstance(path, ExAppPath)
    routes.match(path)


async def test_a_large_table_is_compiled_while_others_have_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await turn()

    beside = asyncio.create_task(others())
    routes = table(1000)
    await RouteTables().compile(routes)
    beside.cancel()
    assert routes.ready
    assert turns >= 5


async def test_two_who_compile_the_same_table_count_it_once() -> None:
    tables, routes = RouteTables(), table(100)
    await asyncio.gather(tables.compile(routes), tables.compile(routes))
    assert (routes.ready, tables.compiled) == (True, 101)


async def test_the_table_that_was_not_used_forgets_its_routes_first() -> None:
    tables = RouteTables(capacity=33)
    first, second, third, fourth = (table(10) for _ in range(4))
    for routes in (first, second, third):
        await tables.compile(routes)
    for routes in (first, third):
        routes.used = False
        use(routes)
    second.used = False
    await tables.compile(fourth)
    assert [routes.ready for routes in (first, second, third, fourth)] == [True, False, True, True]
    assert tables.compiled == 33


async def test_tables_that_are_all_used_are_bounded_as_well() -> None:
    tables = RouteTables(capacity=33)
    all_of_them = [table(10) for _ in range(9)]
    for routes in all_of_them:
        await tables.compile(routes)
        for other in all_of_them:
            if other.ready:
                use(other)
    assert sum(routes.ready for routes in all_of_them) == 3
    assert all_of_them[-1].ready


async def test_tables_without_routes_are_bounded_as_well() -> None:
    tables = RouteTables(capacity=5)
    for _ in range(20):
        await tables.compile(table(0))
    assert tables.compiled == 5
