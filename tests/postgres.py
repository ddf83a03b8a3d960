"""A PostgreSQL server for tests, where its programs are installed: on a port of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

psycopg = pytest.importorskip("psycopg")

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "p/w@s3cr3t"
"""What nobody may see; in a URL it is spelt with %XX."""


def _programs() -> Path:
    """Where `initdb` and `postgres` are; the test is skipped where they are not."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    found = shutil.which("initdb")
    places = [*newest[-1:], *([Path(found).resolve().parent] if found else [])]
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.skip("no PostgreSQL server is installed")


@contextmanager
def running_postgres() -> Iterator[str]:
    """Give the URL of a server, with its password."""
    programs = _programs()
    # It refuses to run as root.
    other: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if other:
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody", "nogroup")
        told = ["-D", f"{folder}/data", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([programs / "initdb", *told, "-E", "UTF8", "--no-locale", "-N"], check=True, **quiet, **other)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with subprocess.Popen([programs / "postgres", "-D", folder / "data", *options], **quiet, **other) as server:
            try:
                url = f"postgresql://tester:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
                _wait_for(url, server)
                yield url
            finally:
                server.send_signal(signal.SIGINT)  # a SIGTERM would wait for those who are connected


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:  # it is starting up
            time.sleep(0.05)
        else:
            return
    pytest.skip("the PostgreSQL server does not start")
