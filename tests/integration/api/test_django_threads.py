"""Django's requests in threads of their own: whole answers, kept connections, nothing left of one for the next."""

import asyncio
import threading

import pytest
from django.db import connection, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils import translation
from django.views.decorators.csrf import csrf_exempt

from smartflow.accounts.models import User
from smartflow.api.django_threads import ThreadedDjango
from smartflow.observability.request_id import current_request_id

pytestmark = pytest.mark.django_db(transaction=True)
meeting = threading.Barrier(4, timeout=10)
closed = []


@csrf_exempt
def tell(request):
    """Say who answers, by which connection, in which language, and what was sent."""
    User.objects.exists()
    words = (threading.current_thread().name, id(connection.connection), translation.get_language(), request.body)
    return HttpResponse("|".join(map(str, words)))


def meet(request):
    meeting.wait()
    return HttpResponse(current_request_id())


def stream(request):
    response = StreamingHttpResponse(part for part in (b"one ", b"two ", b"three"))
    response._resource_closers.append(lambda: closed.append("stream"))
    return response


def stream_slowly(request):
    async def parts():
        for part in (b"one ", b"two"):
            await asyncio.sleep(0)
            assert not closed
            yield part

    response = StreamingHttpResponse(parts())
    response._resource_closers.append(lambda: closed.append("slow"))
    return response


def lose_connection(request):
    with connection.cursor() as cursor:
        cursor.execute("KILL CONNECTION_ID()")
    return HttpResponse()


urlpatterns = [
    path("tell", tell),
    path("meet", meet),
    path("stream", stream),
    path("stream-slowly", stream_slowly),
    path("lose-connection", lose_connection),
]


@pytest.fixture
def application(settings):
    settings.ROOT_URLCONF = __name__
    settings.ALLOWED_HOSTS = ["testserver"]
    closed.clear()
    kept = {alias: dict(values) for alias, values in connections.settings.items()}
    made = ThreadedDjango()
    yield made
    made.close()
    for alias, values in kept.items():
        connections.settings[alias].update(values)


async def ask(application, name, *, body=b"", leaves=False, **headers):
    """Send one request and return the status, the headers and the parts of the answer."""
    pieces = [{"type": "http.request", "body": body[:3], "more_body": True}]
    pieces += [{"type": "http.disconnect"}] if leaves else [{"type": "http.request", "body": body[3:]}]
    sent = []

    async def receive():
        return pieces.pop(0)

    async def send(message):
        sent.append(message)

    given = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    scope = {
        **{"type": "http", "method": "POST" if body else "GET", "path": f"/{name}", "query_string": b""},
        **{"headers": [(b"host", b"testserver"), *given], "http_version": "1.1", "scheme": "http"},
    }
    await application(scope, receive, send)
    if not sent:
        return None
    found = {key.decode().lower(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], found, [message["body"] for message in sent[1:] if message.get("body")]


def words(answer):
    status, _headers, parts = answer
    assert status == 200, parts
    return b"".join(parts).decode().split("|")


def test_requests_of_one_thread_share_its_connection_and_not_their_language(application):
    async def some():
        return [await ask_when_free(("en", "zh-hans")[n % 2]) for n in range(8)]

    async def ask_when_free(language):
        # a thread that has answered is free a moment later than its answer
        pool = application._threads
        while len(pool._free) < len(pool._threads):
            await asyncio.sleep(0)
        return await ask(application, "tell", accept_language=language)

    told = list(map(words, asyncio.run(some())))

    assert [language for _thread, _connection, language, _body in told] == ["en", "zh-hans"] * 4
    used = {(thread, connection) for thread, connection, *_ in told}
    assert len(used) == 1


def test_body_reaches_the_view_whole(application):
    assert words(asyncio.run(ask(application, "tell", body=b"abcdefg")))[3] == "b'abcdefg'"


def test_requests_at_once_have_threads_and_ids_of_their_own(application):
    async def four():
        return await asyncio.gather(*(ask(application, "meet", x_request_id=f"request-{n}") for n in range(4)))

    answers = asyncio.run(four())

    assert [words(answer)[0] for answer in answers] == [f"request-{n}" for n in range(4)]
    assert [answer[1]["x-request-id"] for answer in answers] == [f"request-{n}" for n in range(4)]


def test_a_stream_comes_in_its_parts_and_is_closed(application):
    assert asyncio.run(ask(application, "stream"))[2] == [b"one ", b"two ", b"three"]
    assert closed == ["stream"]


def test_an_asynchronous_stream_is_closed_behind_its_last_part(application):
    assert asyncio.run(ask(application, "stream-slowly"))[2] == [b"one ", b"two"]
    assert closed == ["slow"]


def test_a_request_whose_client_left_before_its_body_is_not_answered(application):
    assert asyncio.run(ask(application, "tell", body=b"abcdef", leaves=True)) is None


@pytest.mark.skipif(connection.vendor != "mysql", reason="a file is never lost")
def test_a_lost_connection_costs_the_next_request_nothing(application):
    async def two():
        return await ask(application, "lose-connection"), await ask(application, "tell")

    lost, told = asyncio.run(two())

    assert lost[0] == 500
    assert words(told)[0]


def test_close_gives_the_connections_back(application):
    thread = words(asyncio.run(ask(application, "tell")))[0]
    application.close()
    assert thread not in [each.name for each in threading.enumerate()]
