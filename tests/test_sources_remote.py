"""Files behind URLs: from an object store and from the web, and what is told where they cannot be had."""

from __future__ import annotations

import gzip
import io
import sys
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import smart_open

from moe_bulk.errors import SourceError
from moe_bulk.intake import Files
from moe_bulk.naming import default_out
from moe_bulk.sources import open_source
from tests.fake_service import device, devices
from tests.runs import HEADER, Cut, deliver, written
from tests.s3 import local_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = b"".join(",".join(map(str, device(number).values())).encode() + b"\n" for number in range(30))


def read(url: str) -> list[dict[str, object] | None]:
    """Read what is behind a URL."""
    with closing(open_source(url)) as source:
        return [row.fields for batch in source.batches() for row in batch]


# -- S3, where a local one is installed --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """Give a client of a local S3 with a bucket; the environment leads there, as a user's does."""
    with local_s3("exports") as client:
        yield client


def test_s3_gives_every_format(store: Any) -> None:
    """Told by the ending, compressed or not."""
    store.put_object(Bucket="exports", Key="a.csv", Body=b"a\n1\n")
    store.put_object(Bucket="exports", Key="a.csv.gz", Body=gzip.compress(b"a\n2\n"))
    store.put_object(Bucket="exports", Key="deep/a.ndjson", Body=b'{"a":"3"}\n')
    found = [read(f"s3://exports/{key}") for key in ("a.csv", "a.csv.gz", "deep/a.ndjson")]
    assert [[{"a": "1"}], [{"a": "2"}], [{"a": "3"}]] == found


def test_s3_gives_parquet(store: Any) -> None:
    """It is copied first."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    into = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(devices(3)), into)
    store.put_object(Bucket="exports", Key="a.parquet", Body=into.getvalue())
    assert devices(3) == read("s3://exports/a.parquet")


def test_a_run_from_s3_goes_on(store: Any, tmp_path: Path) -> None:
    """It is a stream, which is compared; results name it without what lets somebody in."""
    store.put_object(Bucket="exports", Key="devices.csv", Body=HEADER + ROWS)
    url = "s3://key:secret@exports/devices.csv"
    deliver(url, tmp_path / "x.run", cut=Cut("signal", 11))
    ended = deliver(url, tmp_path / "x.run", clock=(1000.0, 1_700_000_000.0))

    found = written(tmp_path / "x.run")
    assert (None, 30) == (ended.error, found.summary["counts"]["accepted"])
    assert {"s3://***@exports/devices.csv"} == {each["source"] for each in found.results}
    assert not [path for path in (tmp_path / "x.run").iterdir() if b"secret" in path.read_bytes()]


@pytest.mark.parametrize("url", ["s3://exports/gone.csv", "s3://nowhere/a.csv"])
def test_s3_says_what_is_not_there(store: Any, url: str) -> None:
    """In its own words."""
    with pytest.raises(SourceError, match=r"cannot be read: .*NoSuch"):
        open_source(url)


# -- the web -----------------------------------------------------------------------------------------------------------


@contextmanager
def web(content: bytes, *, length: int | None = None, status: int = 200) -> Iterator[str]:
    """Serve this under every path, and say that it has so many bytes; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer."""
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_web_gives_rows() -> None:
    """The ending stands before the question mark."""
    pytest.importorskip("requests")
    with web(b"a;b\n1;2\n") as host:
        assert [{"a": "1", "b": "2"}] == read(f"http://{host}/a.csv?token=s3cr3t")


def test_what_is_cut_off_is_no_end() -> None:
    """A connection that breaks must not pass for the whole file."""
    pytest.importorskip("requests")
    with web(b"a\n1\n2\n", length=1000) as host, pytest.raises(SourceError, match=r"cannot be read"):
        read(f"http://{host}/a.csv")


def test_a_refusal_is_told_without_secrets() -> None:
    """Signatures stand in URLs, and URLs in messages."""
    pytest.importorskip("requests")
    with web(b"no", status=403) as host, pytest.raises(SourceError, match="403") as refused:
        read(f"http://me:s3cr3t@{host}/a.csv?X-Amz-Signature=s3cr3t&part=1")
    assert "s3cr3t" not in str(refused.value)
    assert "part=1" in str(refused.value)


# -- what is missing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://bucket/a.csv", "moe-bulk[s3]"),
        ("gs://bucket/a.csv", "moe-bulk[gs]"),
        ("https://me:s3cr3t@host/a.csv", "moe-bulk[http]"),
        ("az://container/a.csv", "moe-bulk[azure]"),
        ("ssh://me:s3cr3t@host/a.csv", "smart_open[ssh]"),
    ],
)
def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    """With what to type."""

    def refuse(*_: object, **__: object) -> None:
        raise ImportError("You are trying to use the functionality of smart_open")

    monkeypatch.setattr(smart_open, "open", refuse)
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    with pytest.raises(SourceError) as told:
        open_source(url)
    assert f"needs more packages: install them with pip install '{package}'" in str(told.value)
    assert "s3cr3t" not in str(told.value)


def test_azure_is_opened_with_what_its_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries' own: there is no other way to be known there without code."""
    blob: Any = ModuleType("azure.storage.blob")
    blob.BlobServiceClient = SimpleNamespace(from_connection_string=lambda said: f"client of {said}")
    monkeypatch.setitem(sys.modules, "azure", ModuleType("azure"))
    monkeypatch.setitem(sys.modules, "azure.storage", ModuleType("azure.storage"))
    monkeypatch.setitem(sys.modules, "azure.storage.blob", blob)
    asked: list[object] = []

    def opened(url: str, _: str, *, compression: str, transport_params: dict[str, object]) -> io.BytesIO:
        asked.append((url, compression, transport_params))
        return io.BytesIO(b"a\n1\n")

    monkeypatch.setattr(smart_open, "open", opened)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    with pytest.raises(SourceError, match="AZURE_STORAGE_CONNECTION_STRING says: set it"):
        read("az://box/a.csv")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "here")
    assert [{"a": "1"}] == read("az://box/a.csv")
    assert [("azure://box/a.csv", "disable", {"client": "client of here"})] == asked


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://key:secret@bucket", "bucket.run"),
        ("s3://key:secret@bucket/a.csv", "a.csv.run"),
        ("https://me:secret@host/a.csv?sig=secret", "a.csv.run"),
    ],
)
def test_a_run_folder_s_name_holds_no_secrets(url: str, expected: str) -> None:
    """It is made of the last part."""
    assert Path("/here") / expected == default_out([url], sandbox=False, cwd=Path("/here"))


def test_a_source_that_stands_twice_is_told_without_secrets() -> None:
    """As any other message."""
    with pytest.raises(Exception, match=r"the source s3://\*\*\*@bucket/a stands twice"):
        Files(("s3://key:secret@bucket/a",) * 2)
