"""A Redis (or Valkey) server for tests, where one is installed: on a port of its own, killed and started at will."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "p@ss/w0rd:of?the#tests%"
"""What nobody may see; in a URL it is spelt with %XX."""


@dataclass
class RedisServer:
    """A server in a folder of its own; `options` are its settings."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self, listens_at: int | None = None) -> None:
        """Start it, and wait until it listens: at its port, or another one where it speaks TLS."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            pytest.skip("no Redis or Valkey server is installed")
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        settings += ["--daemonize", "no", "--loglevel", "warning", *self.options]
        self.process = subprocess.Popen(
            [program, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", listens_at or self.port), 1) as talk,
            ):
                if listens_at is not None:
                    return
                talk.settimeout(5)
                talk.sendall(b"PING\r\n")
                if talk.recv(100)[:1] in (b"+", b"-"):
                    return
            time.sleep(0.02)
        pytest.skip("the Redis server does not start")

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """Give a server that runs, empty and keeping nothing."""
    with tempfile.TemporaryDirectory(prefix="moe-bulk-redis-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = RedisServer(Path(folder), port, options)
        try:
            server.start()
            yield server
        finally:
            server.kill()
