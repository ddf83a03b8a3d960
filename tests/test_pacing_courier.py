"""The way to a real Redis server and back: what it answers, how it refuses, and what a kill of it comes to."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from moe_bulk.clock import Clock
from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.address import RedisPace
from moe_bulk.pacing.courier import Courier, Gone, RedisStore, Refused
from moe_bulk.pacing.remote import Mode, RemoteWindow
from moe_bulk.pacing.reservations import LEAVES, Call, Granted, Reply, Report, Terms
from tests.redis_server import PASSWORD, running_redis

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from moe_bulk.errors import PaceLost
    from tests.redis_server import RedisServer

redis = pytest.importorskip("redis")

KEY = "moe-bulk:pace:test"
TERMS = Terms("me", Rate(100, 1.0), 0.2)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Give a server that runs."""
    with running_redis() as found:
        yield found


def with_store(url: str, work: Callable[[RedisStore], Awaitable[Any]], **more: Any) -> Any:
    """Do something with a connection to that server."""

    async def main() -> Any:
        store = RedisStore(RedisPace(url), KEY, TERMS, **more)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def why(url: str, **more: Any) -> str:
    """Tell why a server is of no use, and hold everything that hangs on the error against the password."""

    async def ask(store: RedisStore) -> str:
        with pytest.raises((Gone, Refused)) as caught:
            await store.ask(Call())
        error: BaseException | None = caught.value
        while error is not None:
            shown = "".join(traceback.format_exception(error))
            assert PASSWORD not in shown
            error = error.__cause__ or error.__context__
        return f"{type(caught.value).__name__}: {caught.value}"

    found: str = with_store(url, ask, **more)
    return found


def test_it_grants_and_remembers(server: RedisServer) -> None:
    """The first question begins a life of the hash, the next ones know it; the key goes by itself in a month."""

    async def talk(store: RedisStore) -> tuple[Reply, Reply, int]:
        await store.knock()
        first = await store.ask(Call())
        assert isinstance(first, Granted)
        second = await store.ask(Call(first.generation, first.turn, want=5))
        with redis.Redis(port=server.port) as client:
            return first, second, client.ttl(KEY)

    first, second, seconds_left = with_store(server.url, talk)
    assert ("empty", 100, 1, 1) == (first.begun, first.limit, first.peers, first.turn)
    assert TERMS.whole == pytest.approx(first.blocked - first.now, abs=1e-5)
    assert ("", first.generation, 2, ()) == (second.begun, second.generation, second.turn, second.runs)
    assert 29 * 86400 < seconds_left <= 30 * 86400


def test_it_forgets_what_it_was_told_to(server: RedisServer) -> None:
    """The doctor leaves nothing behind."""

    async def talk(store: RedisStore) -> bool:
        await store.ask(Call())
        await store.forget()
        return await store.knows(KEY)

    assert with_store(server.url, talk) is False


@pytest.mark.parametrize("fields", [{"gen": "x"}, {"members": "["}, {"members": "5"}, {"held": "many"}, {"cut": ""}])
def test_a_hash_that_somebody_wrote_in_begins_anew(server: RedisServer, fields: dict[str, str]) -> None:
    """What makes no sense is taken for a lost memory."""

    async def talk(store: RedisStore) -> Reply:
        if "gen" not in fields:
            await store.ask(Call())
        with redis.Redis(port=server.port) as client:
            client.hset(KEY, mapping=fields)
        return await store.ask(Call())

    found = with_store(server.url, talk)
    assert ("empty", 1) == (found.begun, found.turn)


def test_a_full_memory_leaves_everything_as_it_was(server: RedisServer) -> None:
    """It is a trouble that passes; the numbers in the hash agree afterwards."""

    async def talk(store: RedisStore, client: Any) -> None:
        first = await store.ask(Call())
        assert isinstance(first, Granted)
        client.hset(KEY, "blocked", "0")
        granted = await store.ask(Call(first.generation, first.turn, want=5))
        assert isinstance(granted, Granted)
        before = client.hgetall(KEY)
        client.config_set("maxmemory", "1")
        with pytest.raises(Gone, match="its memory is full"):
            await store.ask(
                Call(granted.generation, granted.turn, want=5, reports=(Report(1, {granted.runs[0].bin: -1}),))
            )
        client.config_set("maxmemory", "0")
        assert before == client.hgetall(KEY)
        after = await store.ask(Call(granted.generation, granted.turn, want=5))
        assert isinstance(after, Granted)
        found = client.hgetall(KEY)
        assert 10 == int(found[b"held"]) == sum(int(count) for name, count in found.items() if name.isdigit())

    with redis.Redis(port=server.port) as client:
        with_store(server.url, lambda store: talk(store, client))


def test_a_server_that_is_not_there() -> None:
    """Nobody listens; a name that leads nowhere."""
    with running_redis() as server:
        url = server.url
    assert "Gone: connection refused" == why(url)
    assert "Gone: its name leads nowhere" == why("redis://no-such-host.invalid:1")


def test_passwords_and_rights() -> None:
    """The right one is taken from a URL that spells it with %XX; a wrong one and none are told, and never shown."""
    with running_redis("--requirepass", PASSWORD) as server:
        place = server.url.removeprefix("redis://")
        spelt = "p%40ss%2Fw0rd%3Aof%3Fthe%23tests%25"

        async def knock(store: RedisStore) -> None:
            await store.knock()

        with_store(f"redis://:{spelt}@{place}", knock)
        refused = "Refused: the user name or the password is wrong, or missing"
        assert refused == why(f"redis://:{spelt}x@{place}")
        assert refused == why(f"redis://somebody:{spelt}@{place}")
        assert refused == why(f"redis://{place}")


def test_a_user_that_may_too_little() -> None:
    """A user without scripts is told what it lacks."""
    with running_redis("--user", "poor", "on", ">pw", "~moe-bulk:*", "+ping") as server:
        place = server.url.removeprefix("redis://")
        said = "Refused: this user may not run scripts there, not choose a database, or not use the key"
        assert why(f"redis://poor:pw@{place}").startswith(said)


@pytest.mark.parametrize("database", [0, 3])
def test_a_user_with_just_enough(database: int) -> None:
    """The rights that stand in the README suffice, for any database, and for all that is asked."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (rights,) = re.findall(r"`(~moe-bulk:pace:\* [^`]+)`", readme)
    with running_redis(*f"--user poor on >pw {rights}".split()) as server:

        async def talk(store: RedisStore) -> Reply:
            await store.knock()
            first = await store.ask(Call())
            assert isinstance(first, Granted)
            found = await store.ask(Call(first.generation, first.turn, want=LEAVES))
            assert await store.knows(KEY)
            assert await store.info("server")
            await store.forget()
            return found

        found = with_store(f"redis://poor:pw@{server.url.removeprefix('redis://')}/{database}", talk)
        assert "" == found.begun


def test_a_database_that_there_is_not(server: RedisServer) -> None:
    """There are sixteen of them, where nobody asked for more."""
    assert why(f"{server.url}/99").startswith("Refused: it has no database of that number")


def answered(reply: bytes) -> str:
    """Tell why a server that answers that to everything is of no use."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(10_000):
                writer.write(reply)
        writer.close()

    async def main() -> str:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        store = RedisStore(RedisPace(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"), KEY, TERMS)
        try:
            await store.ask(Call())
        except (Gone, Refused) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await store.close()
            listening.close()
            await asyncio.sleep(0.01)
        return ""

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("READONLY", "Gone: it is a replica, which takes no changes"),
        ("OOM", "Gone: its memory is full"),
        ("LOADING", "Gone: it is loading its data"),
        ("MISCONF", "Gone: it takes no changes while it cannot save its data"),
        ("MOVED 1 a:1", "Refused: it belongs to a cluster, which is not supported: name a server of its own"),
        ("ERR", "Refused: it does not take the script that keeps the pace: is it Redis 6, or newer, or Valkey?"),
    ],
)
def test_refusals_that_pass_and_those_that_do_not(word: str, said: str) -> None:
    """A server that loads or is full may be well soon; a cluster will not. What it says itself is not told."""
    assert said == answered(f"-{word} {PASSWORD} \x1b[31m\r\n".encode() if ":" not in word else f"-{word}\r\n".encode())


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-MOVED \r\n",
        b":5\r\n",
        b"*2\r\n$2\r\nok\r\n:-1\r\n",
        b"*-1\r\n",
        b"\xff\xfe",
    ],
)
def test_a_server_that_is_none(reply: bytes) -> None:
    """Whatever listens there: it is told, and nothing that it said."""
    said = answered(reply)
    assert said.startswith(("Gone", "Refused"))
    assert "HTTP" not in said


def test_tls(tmp_path: Path) -> None:
    """`rediss://` trusts whom it is told to, and nobody else; a server without TLS is told apart."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = ("--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem")
    with running_redis() as plain:
        assert why(f"rediss://127.0.0.1:{plain.port}", ca_bundle=f"{tmp_path}/ca.pem").startswith(("Refused", "Gone"))
        port = plain.port
        plain.kill()
        plain.port, plain.options = 0, ("--tls-port", str(port), *files, "--tls-ca-cert-file", f"{tmp_path}/ca.pem")
        plain.options += ("--tls-auth-clients", "no")
        plain.start(listens_at=port)

        async def knock(store: RedisStore) -> None:
            await store.knock()

        with_store(f"rediss://127.0.0.1:{port}", knock, ca_bundle=f"{tmp_path}/ca.pem")
        assert why(f"rediss://127.0.0.1:{port}").startswith("Refused: its certificate is not trusted")
        elsewhere = why(f"rediss://localhost:{port}", ca_bundle=f"{tmp_path}/ca.pem")
        assert elsewhere.startswith("Refused: its certificate is not trusted: Hostname mismatch")


def test_a_certificate_is_held_against_the_host_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for: the library's own answer was no for long."""
    made: list[dict[str, Any]] = []
    client = redis.asyncio.Redis

    def make(**said: Any) -> Any:
        made.append(said)
        return client(**said)

    monkeypatch.setattr(redis.asyncio, "Redis", make)
    for url in ("rediss://h", "redis://h"):
        RedisStore(RedisPace(url), KEY, TERMS)
    assert [True, None] == [said.get("ssl_check_hostname") for said in made]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named with the command to type."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"pip install 'moe-bulk\[redis\]'"):
        RedisStore(RedisPace("redis://h"), KEY, TERMS)


# --- a courier and a server that is killed ----------------------------------------------------------------------------


class Sender:
    """Takes whatever slots there are, and is answered at once."""

    def __init__(self, url: str, patience: float = 30.0) -> None:
        clock = Clock.system()
        self.window = RemoteWindow(TERMS, RedisPace(url).place, patience, clock.now())
        self.courier = Courier(self.window, RedisStore(RedisPace(url), KEY, TERMS), clock)
        self.sent: list[float] = []
        self.stopped: list[PaceLost] = []
        self._now = clock.now

    async def send(self, until: Callable[[], bool]) -> None:
        """Send until then."""
        carrying = asyncio.create_task(self.courier.run(self.stopped.append))
        while not until():
            now = self._now()
            if (slot := self.window.take(now)) is not None:
                self.sent.append(now)
                self.window.answered(slot, now)
            else:
                await asyncio.sleep(0.005)
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)


def test_a_server_is_killed_and_comes_back_empty(server: RedisServer) -> None:
    """What it granted before is sent, then nothing for a whole window, then it goes on."""

    async def main() -> tuple[list[float], list[str]]:
        sender = Sender(server.url)
        await sender.courier.join()
        with redis.Redis(port=server.port) as client:
            client.hset(KEY, "blocked", "0")
        await sender.send(lambda: len(sender.sent) >= 60)
        server.kill()
        server.start()
        begun = sender.sent[-1]
        await sender.send(lambda: bool(sender.sent) and sender.sent[-1] > begun + 3)
        await sender.courier.leave()
        return sender.sent, sender.window.notes

    sent, notes = asyncio.run(main())
    gap = max(later - before for before, later in pairwise(sent))
    assert TERMS.whole - 2.5 < gap < TERMS.whole + 4
    assert max(sum(at - 1 <= each <= at for each in sent) for at in sent) <= TERMS.rate.limit
    assert any("knows nothing of this workspace" in note for note in notes)


def test_a_server_that_stays_away_is_given_up(server: RedisServer) -> None:
    """After its patience it says why it stops."""

    async def main() -> Sender:
        sender = Sender(server.url, patience=0.6)
        await sender.courier.join()
        server.kill()
        await sender.send(lambda: bool(sender.stopped))
        await sender.courier.leave()
        return sender

    sender = asyncio.run(main())
    assert Mode.OVER is sender.window.mode
    assert "was away for 0.6 s (--outage-limit): when it is back, run the same command again" in str(sender.stopped[0])
