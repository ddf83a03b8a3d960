"""Requests that leave together, and none of them where it must not any more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from moe_bulk.client import Client
from moe_bulk.config import Credentials
from moe_bulk.connections import UnderWay
from moe_bulk.device import Device
from moe_bulk.dialogue import Dialogue
from moe_bulk.idle import Idle
from moe_bulk.posting import Fields, Poster
from moe_bulk.record import Position, Record, Row
from moe_bulk.sending import PendingRequest, SendQueue
from tests.servers import ACCEPTED, polite, serving
from tests.wires import Wire, comes_in, dialogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.connector import Connection

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

SHORT = 0.1
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ACCEPTED), ACCEPTED)


@pytest.fixture
def anyio_backend() -> str:
    """The connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


async def _turn() -> None:
    """Let the loop do what is due in this turn and the next."""
    for _ in range(2):
        await asyncio.sleep(0)


async def test_they_leave_together_in_the_order_of_their_coming() -> None:
    """Behind what was due as the first of them came, and before what is due since; later ones leave by themselves."""
    written: list[bytes] = []
    queue, loop = SendQueue(), asyncio.get_running_loop()

    def put(name: bytes) -> None:
        queue.put(PendingRequest(dialogue(Wire(written)), name, None))
        written.append(name + b" was put in")

    for name in (b"a", b"b"):
        loop.call_soon(put, name)
    await _turn()
    assert [b"a was put in", b"b was put in", b"a", b"b"] == written
    put(b"c")
    loop.call_soon(written.append, b"due since")
    put(b"d")
    await _turn()
    assert [b"c was put in", b"d was put in", b"c", b"d", b"due since"] == written[4:]


async def test_one_that_comes_amid_the_sending_leaves_by_itself() -> None:
    """None is forgotten, and none is sent twice."""
    written: list[bytes] = []
    queue = SendQueue()

    class Busy(Wire):
        def write(self, data: Any) -> None:
            super().write(data)
            queue.put(PendingRequest(dialogue(Wire(written)), b"c", None))

    queue.put(PendingRequest(dialogue(Busy(written)), b"a", None))
    queue.put(PendingRequest(dialogue(Wire(written)), b"b", None))
    await _turn()
    await _turn()
    assert [b"a", b"b", b"c"] == written


async def test_an_interrupt_amid_the_sending_leaves_no_queue_that_is_stuck() -> None:
    """A program may catch it and go on."""
    written: list[bytes] = []

    class Interrupted(Wire):
        def write(self, data: Any) -> None:
            raise KeyboardInterrupt

    queue = SendQueue()
    queue.put(PendingRequest(dialogue(Interrupted(written)), b"a", None))
    with pytest.raises(KeyboardInterrupt):
        queue.do_now()
    queue.put(PendingRequest(dialogue(Wire(written)), b"b", None))
    await _turn()
    assert [b"b"] == written


async def test_one_whose_connection_is_gone_is_not_sent() -> None:
    """Whoever waits hears of it from the connection; those before and behind it are sent."""
    written: list[bytes] = []
    queue = SendQueue()
    wires = [Wire(written) for _ in range(4)]
    taken = [dialogue(wire) for wire in wires]
    answers = [each.ask() for each in taken]
    for name, each in zip((b"a", b"b", b"c", b"d"), taken, strict=True):
        queue.put(PendingRequest(each, name, None))
    wires[1].abort()
    taken[2].carrier.connection.close()
    await _turn()
    assert [b"a", b"d"] == written
    assert not any(answer.done() for answer in answers)


@pytest.mark.parametrize(("left", "sent"), [(-0.001, []), (60.0, [b"a"])])
async def test_nothing_is_sent_behind_the_timeout(left: float, sent: list[bytes]) -> None:
    """By the time of the loop, at the moment when it would leave."""
    written: list[bytes] = []
    attempt = UnderWay(asyncio.get_running_loop().time() + left)
    SendQueue().put(PendingRequest(dialogue(Wire(written), attempt), b"a", attempt))
    await _turn()
    assert sent == written


async def test_each_leaves_by_its_own_time() -> None:
    """The process may stand still amid the sending, too."""
    written: list[bytes] = []

    class Slow(Wire):
        def write(self, data: Any) -> None:
            super().write(data)
            time.sleep(2 * SHORT)

    queue = SendQueue()
    queue.put(PendingRequest(dialogue(Slow(written)), b"a", None))
    attempt = UnderWay(asyncio.get_running_loop().time() + SHORT)
    queue.put(PendingRequest(dialogue(Wire(written), attempt), b"b", attempt))
    await _turn()
    assert [b"a"] == written


async def test_a_connection_that_fails_is_the_trouble_of_one() -> None:
    """Whoever waits for its answer hears of it; those behind it are sent."""
    written: list[bytes] = []
    queue = SendQueue()
    broken = dialogue(Wire(written, broken=True))
    answer = broken.ask()
    queue.put(PendingRequest(broken, b"a", None))
    queue.put(PendingRequest(dialogue(Wire(written)), b"b", None))
    with pytest.raises(RuntimeError, match="it is broken"):
        await answer
    assert ([b"b"], False) == (written, broken.fit)


def _spoken(connection: Connection) -> None:
    assert connection.transport is not None
    protocol = connection.transport.get_protocol()
    if isinstance(protocol, Dialogue):
        comes_in(protocol, ANSWER)
    else:
        assert isinstance(protocol, ResponseHandler)
        protocol.data_received(ANSWER)


def _closed(connection: Connection) -> None:
    assert connection.transport is not None
    connection.transport.close()


def _as_one_is_taken(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Dialogue], object]) -> None:
    """Let something happen right behind the choice of a connection that was used before."""
    take = Idle.take

    def chosen(self: Idle, attempt: UnderWay | None) -> Dialogue | None:
        taken = take(self, attempt)
        assert taken is not None
        asyncio.get_running_loop().call_soon(happens, taken)
        return taken

    monkeypatch.setattr(Idle, "take", chosen)


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize(
    ("server_does", "said"),
    # of the end of a connection the loop hears behind the sending: it is lost as any other
    [(_spoken, "spoke before it was asked"), (_closed, "[Ss]erver disconnected")],
)
async def test_what_comes_in_between_is_no_answer(
    server_does: Callable[[Connection], None],
    said: str,
    used: bool,  # noqa: FBT001  two cases
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the moment when the connection was chosen and the one when the request leaves."""

    class Late(aiohttp.TCPConnector):
        async def connect(self, *args: Any) -> Connection:
            connection = await super().connect(*args)
            if not used:
                asyncio.get_running_loop().call_soon(server_does, connection)
            return connection

    async with serving(polite) as server, aiohttp.ClientSession(connector=Late()) as session:
        poster = Poster(session, server.url, Fields({}), None)
        if used:
            await (await poster.post(b"first")).read_into(bytearray(), 65536)
            _as_one_is_taken(monkeypatch, lambda taken: server_does(taken.carrier.connection))
        with pytest.raises(aiohttp.ClientConnectionError, match=said):
            await poster.post(b"second")
        await asyncio.sleep(0.01)
        assert [b"first"] * used == [each.body for each in server.requests]


async def test_a_request_that_is_cancelled_as_it_waits_takes_its_connection_with_it() -> None:
    """It may leave all the same, as if it had been cancelled a moment later; no other one meets its answer."""
    cancel: list[Callable[[], object]] = []

    class Late(aiohttp.TCPConnector):
        async def connect(self, *args: Any) -> Connection:
            connection = await super().connect(*args)
            while cancel:
                asyncio.get_running_loop().call_soon(cancel.pop())
            return connection

    async with serving(polite) as server, aiohttp.ClientSession(connector=Late()) as session:
        poster = Poster(session, server.url, Fields({}), None)
        task = asyncio.ensure_future(poster.post(b"first"))
        cancel.append(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        reply = await poster.post(b"second")
        await reply.read_into(bytearray(), 65536)
        poster.close()
        assert 200 == reply.status
        assert 2 == server.connections


async def test_a_process_that_stood_still_before_its_request_left_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within its timeout when the connection was chosen, but its slot in the window may have passed since."""
    record = Record(Row(Position("rows", 1, 0), {}), Device("user-1", "device-1", {"platform": "ANDROID"}))
    async with serving(polite) as server:
        credentials = Credentials("WORKSPACE", "KEY", base_url=server.url)
        async with Client(credentials, SHORT, time.time) as client:
            assert 200 == (await client.attempt(record)).http_status
            _as_one_is_taken(monkeypatch, lambda _: time.sleep(2 * SHORT))
            assert "timeout" == (await client.attempt(record)).error
            await asyncio.sleep(0.1)
        assert 1 == len(server.requests)
