"""What comes in over a kept connection, byte by byte, without a network: answers, what is none, and its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from aiohttp.http_parser import HttpResponseParserPy
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.connections import Carrier, UnderWay
from moe_bulk.dialogue import MOST_PROVISIONAL, READ_AT_ONCE, Dialogue
from tests.wires import Wire, comes_in, dialogue, held

if TYPE_CHECKING:
    from moe_bulk.dialogue import Head

pytestmark = pytest.mark.anyio

BODY = b'{"status":"success"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"
KINDS = {
    ANSWER: (200, BODY),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n%b\r\n0\r\n\r\n" % BODY: (200, BODY),
    EARLY + ANSWER: (200, BODY),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b""),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n": (304, b""),
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n": (400, b""),
}
"""Whole answers behind which a connection goes on, and what they say."""

BUFFER = memoryview(bytearray(READ_AT_ONCE))


@pytest.fixture
def anyio_backend() -> str:
    """The connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


def _asked(wire: Wire | None = None) -> tuple[Dialogue, asyncio.Future[Head]]:
    """Send a request over a wire."""
    talk = dialogue(wire or Wire())
    answer = talk.ask()
    talk.send(b"POST")
    return talk, answer


def _said(answer: asyncio.Future[Head]) -> tuple[int, bytes]:
    message, body = answer.result()
    assert body.is_eof()
    return message.code, body.read_nowait()


@given(st.lists(st.tuples(st.sampled_from(list(KINDS)), st.integers(1, 80)), min_size=1, max_size=6))
def test_one_answer_behind_the_other_cut_in_any_place(answers: list[tuple[bytes, int]]) -> None:
    """One parser reads all of a connection: nothing of an answer is left to the next one."""

    async def main() -> None:
        talk = dialogue(Wire())
        for said, step in answers:
            answer = talk.ask()
            talk.send(b"POST")
            for start in range(0, len(said), step):
                assert talk.fit
                comes_in(talk, said[start : start + step])
            assert KINDS[said] == _said(answer)
            assert talk.fit
            talk.rest()

    asyncio.run(main())


@pytest.mark.parametrize("behind", [*KINDS, EARLY, b"HTTP/1.1 401 No\r\nX-Hide: "])
async def test_a_beginning_behind_an_answer_ends_it(behind: bytes) -> None:
    """However little of it came with the answer: it would stand before the next one, and change what that says."""
    for length in range(1, len(behind) + 1):
        talk, answer = _asked()
        comes_in(talk, ANSWER + behind[:length])
        assert (200, BODY) == _said(answer)
        talk.rest()
        assert not talk.fit


async def test_line_feeds_behind_an_answer_mean_nothing() -> None:
    """Some servers write them."""
    talk, answer = _asked()
    comes_in(talk, ANSWER + b"\r\n")
    talk.rest()
    assert talk.fit
    second = talk.ask()
    talk.send(b"POST")
    comes_in(talk, ANSWER)
    assert [(200, BODY)] * 2 == [_said(each) for each in (answer, second)]


async def test_a_parser_that_keeps_what_it_was_told_reads_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiohttp has one in Python for where there is no compiled one."""
    monkeypatch.setattr("moe_bulk.dialogue.HttpResponseParser", HttpResponseParserPy)
    talk, first = _asked()
    comes_in(talk, ANSWER + ANSWER[:5])
    talk.rest()
    second = talk.ask()
    talk.send(b"POST")
    comes_in(talk, ANSWER.replace(b"200 OK", b"400 No"))
    assert [(200, BODY), (400, BODY)] == [_said(each) for each in (first, second)]


@pytest.mark.parametrize("when", ["before it is asked", "before it is sent", "behind the answer", "with the answer"])
async def test_whatever_is_unasked_ends_it(when: str) -> None:
    """It would pass for the answer to the next request."""
    wire = Wire()
    talk = dialogue(wire)
    if when == "before it is asked":
        comes_in(talk, ANSWER)
    answer = talk.ask()
    if when == "before it is sent":
        comes_in(talk, ANSWER)
    talk.send(b"POST")
    if when.startswith("before"):
        assert [] == wire.written
        with pytest.raises(aiohttp.ClientConnectionError, match="spoke before it was asked"):
            answer.result()
    else:
        comes_in(talk, ANSWER * (1 + (when == "with the answer")))
        assert (200, BODY) == _said(answer)
        if when == "behind the answer":
            talk.rest()
            comes_in(talk, b"\r\n")
    assert not talk.fit


async def test_what_came_in_before_it_was_taken_over_ends_it() -> None:
    """It would pass for an answer with aiohttp, too."""
    carrier = Carrier(held(Wire()), None)
    assert carrier.connection.protocol is not None
    carrier.connection.protocol.data_received(b"HTTP/1.1 408 Request Timeout\r\n")
    assert not Dialogue(carrier, BUFFER).fit


async def test_a_connection_that_is_gone_cannot_be_taken_over() -> None:
    """Whoever has to send hears of it."""
    carrier = Carrier(held(Wire()), None)
    carrier.connection.close()
    with pytest.raises(aiohttp.ClientConnectionError, match="closed the connection"):
        Dialogue(carrier, BUFFER)


@pytest.mark.parametrize(
    "last",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\nhello",
    ],
)
async def test_an_answer_may_be_the_last_one(last: bytes) -> None:
    """It says so, or another protocol is spoken behind it."""
    talk, answer = _asked()
    comes_in(talk, last)
    assert answer.result()[0].code in (200, 101)
    assert not talk.fit


@pytest.mark.parametrize("more", [0, 1])
async def test_so_many_provisional_answers_and_no_more(more: int) -> None:
    """Each request may have them anew."""
    talk, first = _asked()
    comes_in(talk, EARLY * MOST_PROVISIONAL + ANSWER)
    assert (200, BODY) == _said(first)
    talk.rest()
    second = talk.ask()
    talk.send(b"POST")
    comes_in(talk, EARLY * (MOST_PROVISIONAL + more))
    assert (bool(more), not more) == (second.done(), talk.fit)
    if more:
        with pytest.raises(BadHttpMessage, match="nothing but provisional"):
            second.result()


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_what_is_no_answer_aborts_it(said: bytes) -> None:
    """Whoever waits hears at once."""
    wire = Wire()
    talk, answer = _asked(wire)
    comes_in(talk, said)
    assert ("aborted", False) == (wire.ends[0][0], talk.fit)
    with pytest.raises(HttpProcessingError):
        answer.result()


async def test_a_body_that_breaks_is_told_at_once() -> None:
    """Its head was right: whoever reads on hears of it, and does not wait for the timeout."""
    wire = Wire()
    talk, answer = _asked(wire)
    comes_in(talk, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
    _, body = answer.result()
    comes_in(talk, b"no length\r\n")
    assert "aborted" == wire.ends[0][0]
    assert not body.is_eof()
    with pytest.raises((aiohttp.ClientPayloadError, HttpProcessingError)):
        await body.read()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, aiohttp.ServerDisconnectedError),
        (ConnectionResetError(104, "reset"), aiohttp.ClientOSError),
        (ValueError("a bug of the event loop's"), ValueError),
    ],
)
@pytest.mark.parametrize("came", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_a_connection_that_is_lost_before_the_answer(
    error: Exception | None, told: type[Exception], came: bytes
) -> None:
    """Whoever waits hears of it; and so does the connector, which waits for its end as it closes."""
    talk, answer = _asked()
    before = talk.carrier.connection.protocol
    assert before is not None
    closed = before.closed
    if came:
        comes_in(talk, came)
    talk.connection_lost(error)
    with pytest.raises(told) as raised:
        answer.result()
    if isinstance(error, OSError):
        assert error is raised.value.__cause__
    assert (False, False, None) == (talk.fit, talk.connected, before.transport)
    assert closed is not None
    assert closed.done()
    closed.exception()


@pytest.mark.parametrize(
    ("head", "whole"),
    [(b"", True), (b"Content-Length: 100\r\n", False), (b"Transfer-Encoding: chunked\r\n", False)],
)
async def test_a_body_may_end_with_its_connection(head: bytes, whole: bool) -> None:  # noqa: FBT001  two cases
    """Where its length is told, what is missing is missing."""
    talk, answer = _asked()
    comes_in(talk, b"HTTP/1.1 200 OK\r\n%b\r\n" % head)
    if whole:
        comes_in(talk, b"{}")
    message, body = answer.result()
    talk.eof_received()
    talk.connection_lost(None)
    assert (200, whole) == (message.code, body.is_eof())
    if whole:
        assert b"{}" == await body.read()
    else:
        with pytest.raises(aiohttp.ClientPayloadError, match="ended too early"):
            await body.read()


async def test_a_body_that_nobody_reads_holds_the_connection_up() -> None:
    """No more than twice of what is read at once waits in memory, about; and all of it comes in the end."""
    wire = Wire()
    talk, answer = _asked(wire)
    length = 8 * READ_AT_ONCE
    comes_in(talk, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    _, body = answer.result()
    came = 0
    for _ in range(length // 1000):
        if wire.reading:
            comes_in(talk, b"x" * 1000)
            came += 1000
    assert READ_AT_ONCE < came < 3 * READ_AT_ONCE
    taken = 0
    while taken < length:
        taken += len(await body.read(5000))
        while wire.reading and came < length:
            part = min(1000, length - came)
            comes_in(talk, b"x" * part)
            came += part
    assert (length, True, True) == (taken, body.at_eof(), talk.fit)


async def test_a_server_that_says_no_more_hears_nothing_more() -> None:
    """Its end may be known before the connection's."""
    talk = dialogue(wire := Wire())
    talk.eof_received()
    assert not talk.fit
    assert not wire.ends  # the event loop closes it


@pytest.mark.parametrize("said", [b"", ANSWER])
async def test_what_a_server_that_says_no_more_has_not_read_is_not_sent_on(said: bytes) -> None:
    """The event loop would wait until it has: with the attempt, up to its timeout."""
    wire = Wire()
    wire.unsent = 1
    talk, answer = _asked(wire)
    comes_in(talk, said)
    talk.eof_received()
    assert ["aborted"] == [how for how, _ in wire.ends]
    talk.connection_lost(None)
    if said:
        assert KINDS[said] == _said(answer)
    else:
        assert isinstance(answer.exception(), aiohttp.ServerDisconnectedError)


async def test_an_error_that_the_parser_does_not_foresee_is_a_broken_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not end in the event loop's log, and tells where it came from."""
    talk, answer = _asked()
    bug = LookupError("a bug of the parser's")

    class Parser:
        def feed_data(self, _data: bytes) -> None:
            raise bug

    monkeypatch.setattr(talk, "_parser", Parser())
    comes_in(talk, ANSWER)
    with pytest.raises(HttpProcessingError) as raised:
        answer.result()
    assert bug is raised.value.__cause__


async def test_giving_up_is_one_reset() -> None:
    """However many notice that it is over: TLS of some versions of Python fails where it is told twice."""
    wire = Wire()
    attempt = UnderWay(1e9)
    talk = dialogue(wire, attempt)
    talk.abort()
    attempt.abort()
    assert ("aborted", None, False) == (wire.ends[0][0], talk.carrier.connection.protocol, talk.fit)
