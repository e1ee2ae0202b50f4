"""Which client serves a call."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from chat.llm.connections import CALLS_PER_CLIENT, Connections


@asynccontextmanager
async def connections(*, max_connections: int = 1000) -> AsyncIterator[Connections]:
    opened = Connections(
        api_key="sk-test",
        base_url="http://127.0.0.1:1/v1",
        connect_timeout_seconds=1,
        max_connections=max_connections,
    )
    try:
        yield opened
    finally:
        await opened.aclose()


async def test_client_is_the_same_while_calls_come_one_after_the_other() -> None:
    async with connections() as opened:
        clients = set()
        for _ in range(2 * CALLS_PER_CLIENT):
            with opened.client() as client:
                clients.add(client)
    assert len(clients) == 1


async def test_client_is_another_when_the_first_has_enough_to_do() -> None:
    async with connections() as opened, opened_calls(opened, CALLS_PER_CLIENT) as first:
        assert len(set(first)) == 1
        with opened.client() as another:
            assert another not in first
    assert all(client.is_closed() for client in (first[0], another))


async def test_client_is_the_first_again_once_it_has_room() -> None:
    async with connections() as opened:
        async with opened_calls(opened, CALLS_PER_CLIENT + 1) as clients:
            first = clients[0]
        with opened.client() as client:
            assert client is first


async def test_client_is_the_one_with_least_to_do_when_no_more_may_be_made() -> None:
    limit = 2 * CALLS_PER_CLIENT
    async with connections(max_connections=limit) as opened, opened_calls(opened, limit + 2) as clients:
        assert len(set(clients)) == 2
        assert clients[-1] is not clients[-2]


async def test_client_has_no_more_connections_than_allowed() -> None:
    async with connections(max_connections=3) as opened, opened_calls(opened, 5) as clients:
        assert len(set(clients)) == 1


async def test_client_is_given_back_when_its_call_fails() -> None:
    async with connections(max_connections=1) as opened:
        for _ in range(2):
            try:
                with opened.client() as client:
                    raise OSError
            except OSError:
                assert opened._calls[client] == 0


@asynccontextmanager
async def opened_calls(opened: Connections, count: int) -> AsyncIterator[list[object]]:
    with ExitStack() as stack:
        yield [stack.enter_context(opened.client()) for _ in range(count)]
