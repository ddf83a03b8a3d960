"""TLS between a wire and whoever speaks over it, against a server in memory: cut in any place, refused, and ended."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from typing import TYPE_CHECKING, cast

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.connections import Carrier
from moe_bulk.dialogue import READ_AT_ONCE, Dialogue
from moe_bulk.tls import Tls
from tests.wires import Wire, held

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AUTHORITY = trustme.CA()
HOST = "api.example"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Before(asyncio.Protocol):
    """Whose the connection was before; told of the end where nobody speaks yet."""

    def __init__(self) -> None:
        self.lost: list[Exception | None] = []

    def connection_lost(self, error: Exception | None) -> None:
        """Note it."""
        self.lost.append(error)


class Speaker(asyncio.BufferedProtocol):
    """Notes what it is told; `on_data` is done with each of them."""

    def __init__(self, on_data: Callable[[], object] = lambda: None) -> None:
        self.told: list[object] = []
        self._on_data = on_data
        self._buffer = memoryview(bytearray(READ_AT_ONCE))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102  the parent's
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102  the parent's
        self.told.append(bytes(self._buffer[:nbytes]))
        self._on_data()

    def eof_received(self) -> None:  # noqa: D102  the parent's
        self.told.append("eof")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102  the parent's
        self.told.append(error)

    @property
    def heard(self) -> bytes:
        """All the data together."""
        return b"".join(each for each in self.told if isinstance(each, bytes))


class Server:
    """The other side: what it sends is taken from `sends`, what it is sent by `hear`."""

    def __init__(self, *names: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.verify_mode = ssl.CERT_OPTIONAL  # so that it may ask who speaks, later on
        AUTHORITY.issue_cert(*names or (HOST,)).configure_cert(context)
        AUTHORITY.configure_trust(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.done = False

    def take(self, wire: Wire) -> None:
        """Take in all that was written to the wire."""
        for data in wire.written:
            self.incoming.write(data)
        wire.written.clear()

    def hear(self, wire: Wire) -> bytes:
        """Take it in; what it says, where there is any."""
        self.take(wire)
        heard = b""
        try:
            if not self.done:
                self.object.do_handshake()
                self.done = True
            while data := self.object.read(65536):
                heard += data
        except ssl.SSLWantReadError:
            pass
        return heard

    def sends(self, *parts: bytes) -> bytes:
        """What comes over the wire where it says these, each in a record of its own or more."""
        for part in parts:
            self.object.write(part)
        return self.outgoing.read()


class World:
    """A wire with TLS over it, and its server; make it within an event loop."""

    def __init__(
        self, server: Server | None = None, *, hostname: str = HOST, trusts: bool = True, wire: Wire | None = None
    ) -> None:
        self.server = server or Server()
        self.wire = wire or Wire()
        self.before = Before()
        self.wire.set_protocol(self.before)
        context = ssl.create_default_context()
        context.post_handshake_auth = True
        if trusts:
            AUTHORITY.configure_trust(context)
        self.buffer = memoryview(bytearray(READ_AT_ONCE))
        self.tls = Tls(self.wire, context, hostname, self.buffer)

    def comes_in(self, data: bytes, step: int = READ_AT_ONCE) -> None:
        """Let this come in, so many bytes at a time."""
        for start in range(0, len(data), step):
            part = data[start : start + step]
            buffer = self.tls.get_buffer(-1)
            buffer[: len(part)] = part
            self.tls.buffer_updated(len(part))

    def agree(self, step: int = READ_AT_ONCE) -> asyncio.Future[None]:
        """Begin the handshake, and let both sides say all that they have to say of it."""
        shaken = self.tls.handshake()
        while self.wire.written:
            self.server.hear(self.wire)
            self.comes_in(self.server.outgoing.read(), step)
        return shaken

    async def speaking(self, speaker: Speaker, step: int = READ_AT_ONCE) -> Speaker:
        """Agree, and let this one speak."""
        await self.agree(step)
        self.tls.set_protocol(speaker)
        return speaker

    def ends(self, error: Exception | None = None) -> None:
        """Let the connection end, as an event loop does."""
        self.wire.end("ended")
        self.tls.connection_lost(error)


def within_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Do it on asyncio's loop."""

    async def main() -> None:
        await work()

    asyncio.run(main())


@given(
    st.sampled_from(VERSIONS),
    st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 600),
)
def test_what_is_said_is_heard_cut_in_any_place(version: ssl.TLSVersion, turns: list[list[bytes]], step: int) -> None:
    """All of it as soon as the last byte is there, whatever came with what; on both sides, in turns."""

    async def main() -> None:
        world = World(Server(version=version))
        speaker = await world.speaking(Speaker(), step)
        for parts in turns:
            before = len(speaker.heard)
            world.comes_in(world.server.sends(*parts), step)
            assert b"".join(parts) == speaker.heard[before:]
            for part in parts:
                world.tls.write(part)
            assert b"".join(parts) == world.server.hear(world.wire)
        assert all(isinstance(each, bytes) for each in speaker.told)
        assert not world.wire.ends

    within_a_loop(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_more_than_one_record_holds(version: ssl.TLSVersion) -> None:
    """As much as is read at once and more, in either direction."""

    async def main() -> None:
        world = World(Server(version=version))
        speaker = await world.speaking(Speaker())
        much = bytes(range(256)) * 1000
        world.comes_in(world.server.sends(much))
        assert much == speaker.heard
        world.tls.write(much)
        assert much == world.server.hear(world.wire)

    within_a_loop(main)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("names", "hostname", "trusts", "said"),
    [
        (["other.example"], HOST, True, "Hostname mismatch"),
        (["127.0.0.2"], "127.0.0.1", True, "IP address mismatch"),
        ([HOST], HOST, False, "self-signed certificate in certificate chain"),
    ],
)
def test_another_s_certificate_is_refused(
    version: ssl.TLSVersion,
    names: list[str],
    hostname: str,
    trusts: bool,  # noqa: FBT001  a case
    said: str,
) -> None:
    """Nobody speaks then, and the server is told why."""

    async def main() -> None:
        world = World(Server(*names, version=version), hostname=hostname, trusts=trusts)
        shaken = world.tls.handshake()
        world.server.hear(world.wire)
        world.comes_in(world.server.outgoing.read())
        with pytest.raises(ssl.SSLCertVerificationError, match=said):
            await shaken
        with pytest.raises(ssl.SSLError, match="alert"):
            world.server.hear(world.wire)

    within_a_loop(main)


def test_what_is_no_tls_is_refused() -> None:
    """A server may speak plainly."""

    async def main() -> None:
        world = World()
        shaken = world.tls.handshake()
        world.comes_in(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version|record"):
            await shaken

    within_a_loop(main)


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
def test_an_end_amid_the_handshake(error: ConnectionResetError | None) -> None:
    """Whoever waits hears of it, and whoever had the connection before."""

    async def main() -> None:
        world = World()
        shaken = world.tls.handshake()
        world.ends(error)
        with pytest.raises(ConnectionResetError, match="reset" if error else "amid the TLS handshake"):
            await shaken
        assert [error] == world.before.lost

    within_a_loop(main)


def test_a_handshake_for_which_nobody_waits_any_more() -> None:
    """Whatever becomes of it then is nobody's error."""

    async def main() -> None:
        for ends in (lambda world: world.ends(), lambda world: world.comes_in(b"no TLS at all, this")):
            world = World()
            world.tls.handshake().cancel()
            cast("Callable[[World], None]", ends)(world)
        world = World()
        shaken = world.tls.handshake()
        shaken.cancel()
        world.server.hear(world.wire)
        world.comes_in(world.server.outgoing.read())
        assert shaken.cancelled()

    within_a_loop(main)


def test_what_came_with_the_handshake_is_told_to_who_speaks_first() -> None:
    """A server may speak before it is asked: that is to be known before a request leaves."""

    async def main() -> None:
        world = World(Server(version=ssl.TLSVersion.TLSv1_2))  # where the last word of the handshake is the server's
        world.tls.handshake()
        world.server.hear(world.wire)
        world.comes_in(world.server.outgoing.read())
        world.server.hear(world.wire)
        world.comes_in(world.server.sends(b"unasked"))
        speaker = Speaker()
        world.tls.set_protocol(speaker)
        assert [b"unasked"] == speaker.told

    within_a_loop(main)


def test_the_server_asks_who_speaks_in_between() -> None:
    """What TLS itself has to say is said at once, and nobody hears of it."""

    async def main() -> None:
        world = World()
        speaker = await world.speaking(Speaker())
        world.server.object.verify_client_post_handshake()
        world.server.object.do_handshake()
        world.comes_in(world.server.outgoing.read())
        assert world.wire.written
        assert b"" == world.server.hear(world.wire)
        assert [] == speaker.told

    within_a_loop(main)


def test_the_server_says_that_no_more_comes() -> None:
    """Who speaks hears of it behind all else; the connection is closed in the orderly way."""

    async def main() -> None:
        world = World()
        speaker = await world.speaking(Speaker())
        last = world.server.sends(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            world.server.object.unwrap()
        world.comes_in(last + world.server.outgoing.read())
        assert [b"last", "eof"] == speaker.told
        world.server.take(world.wire)
        world.server.object.unwrap()  # it was told the same
        assert ["closed"] == [how for how, _ in world.wire.ends]
        world.tls.connection_lost(None)
        assert [b"last", "eof", None] == speaker.told
        assert [] == world.before.lost

    within_a_loop(main)


def test_the_connection_ends_without_a_word_of_tls() -> None:
    """Who speaks hears of it; the event loop closes the connection."""

    async def main() -> None:
        world = World()
        ends = cast("Callable[[], object]", world.tls.eof_received)
        assert not ends()
        speaker = await world.speaking(Speaker())
        assert not ends()
        world.ends(error := ConnectionResetError())
        assert ["eof", error] == speaker.told

    within_a_loop(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_that_was_tampered_with(version: ssl.TLSVersion) -> None:
    """Nothing of it is heard, nor of what is behind it; who speaks hears what was wrong."""

    async def main() -> None:
        world = World(Server(version=version))
        speaker = await world.speaking(Speaker())
        good, bad, behind = (world.server.sends(each) for each in (b"good", b"bad", b"behind"))
        world.comes_in(good + bad[:-1] + bytes([bad[-1] ^ 1]) + behind)
        assert [b"good"] == speaker.told
        assert ["aborted"] == [how for how, _ in world.wire.ends]
        with pytest.raises(ssl.SSLError, match="alert"):
            world.server.hear(world.wire)
        with pytest.raises(ssl.SSLError):
            world.tls.write(b"more")
        world.tls.connection_lost(None)
        assert isinstance(speaker.told[-1], ssl.SSLError)

    within_a_loop(main)


def test_an_aborted_one_gives_no_more() -> None:
    """Nothing is heard behind it, though it came in together; nothing more is written."""

    async def main() -> None:
        world = World()
        speaker = await world.speaking(Speaker(on_data=world.tls.abort))
        world.comes_in(world.server.sends(b"one", b"two"))
        assert [b"one"] == speaker.told
        assert world.tls.is_closing()
        world.tls.farewell()
        world.tls.set_protocol(other := Speaker())
        assert ([], []) == (other.told, world.wire.written)

    within_a_loop(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_farewell(version: ssl.TLSVersion) -> None:
    """The server hears by TLS that no more comes, once, and the connection stays for who closes it."""

    async def main() -> None:
        world = World(Server(version=version))
        await world.speaking(Speaker())
        world.tls.write(b"last")
        world.tls.farewell()
        assert b"last" == world.server.hear(world.wire)
        assert b"" == world.server.object.read(100)
        assert not world.wire.ends
        world.tls.close()
        assert [] == world.wire.written
        assert ["closed"] == [how for how, _ in world.wire.ends]

    within_a_loop(main)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_answers_a_farewell(version: ssl.TLSVersion) -> None:
    """That is the end in good order, too."""

    async def main() -> None:
        world = World(Server(version=version))
        speaker = await world.speaking(Speaker())
        world.tls.farewell()
        world.server.hear(world.wire)
        world.server.object.unwrap()
        world.comes_in(world.server.outgoing.read())
        assert ["eof"] == speaker.told
        assert ["closed"] == [how for how, _ in world.wire.ends]

    within_a_loop(main)


@pytest.mark.parametrize(("end", "released"), [(Dialogue.close, False), (Dialogue.release, True)])
def test_a_dialogue_says_farewell(end: Callable[[Dialogue], None], released: bool) -> None:  # noqa: FBT001  a case
    """Before aiohttp's connector has its connection back, which knows nothing of TLS."""

    async def main() -> None:
        wire = Wire()
        carrier = Carrier(held(wire), None)
        world = World(wire=wire)
        await world.agree()
        carrier.transport = world.tls
        end(Dialogue(carrier, world.buffer))
        assert b"" == world.server.hear(wire)
        assert b"" == world.server.object.read(100)
        assert (released, not released) == (wire.released, wire.is_closing())

    within_a_loop(main)


def test_it_is_a_transport() -> None:
    """Whatever else is asked of it is the connection's business; the certificate is the server's."""

    async def main() -> None:
        world = World()
        speaker = await world.speaking(Speaker())
        assert speaker is world.tls.get_protocol()
        reads = []
        for order in (world.tls.pause_reading, world.tls.resume_reading):
            order()
            reads.append(world.wire.reading)
        assert [False, True] == reads
        assert (("DNS", HOST),) == world.tls.get_extra_info("peercert")["subjectAltName"]
        assert 3 == world.tls.get_extra_info("socket").fileno()
        assert "else" == world.tls.get_extra_info("anything", "else")
        world.wire.unsent = 7
        assert 7 == world.tls.get_write_buffer_size()

    within_a_loop(main)


@pytest.mark.parametrize("amid", ["handshake", "record", "record with an end"])
def test_what_ended_is_kept_by_nothing(amid: str) -> None:
    """Nor by the error it ended in, which would know of its own frames: Python may not look for garbage for long."""

    async def main() -> None:
        world = World()
        shaken = world.tls.handshake()
        if amid == "handshake":
            shaken.cancel()
            world.comes_in(b"no TLS at all, this")
        else:
            world = World()
            await world.speaking(Speaker())
            world.comes_in(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        if amid == "record with an end":
            world.tls.connection_lost(None)
        gone = weakref.ref(world.tls)
        world.wire.set_protocol(world.before)
        del world, shaken
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        within_a_loop(main)
    finally:
        gc.enable()
