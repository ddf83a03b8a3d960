"""The folder that driver and executors share: a path that all hosts see, or a prefix of S3."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import orjson

from moe_bulk.errors import ConfigError, JournalError
from moe_bulk.folders import make_parents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PIECE = 1 << 20
"""Bytes of a file that are in memory at a time."""

MARK = "moe-bulk-runs.json"
"""By this file a task sees that its folder is the driver's."""


class Shelf(Protocol):
    """Whole files by their names, which may hold slashes; each is there completely, or not at all.

    What may be of any size is put and fetched in pieces: a read and a write have all of it in memory.
    Raises JournalError where that cannot be.
    """

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place."""

    def put(self, name: str, path: Path) -> None:
        """Put a copy of a file of this host in place."""

    def fetch(self, name: str, into: BinaryIO) -> None:
        """Write what a file holds, if it is there, into an open one."""

    def names(self, folder: str) -> list[str]:
        """What stands in a folder, by its own name, in order; folders included, without what is in them."""

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def where(self, name: str) -> str:
        """What people call it."""


def open_shelf(place: str) -> Shelf:
    """The shelf at a path, or behind s3://; raises ConfigError where packages are missing."""
    return S3Shelf.open(place) if place.startswith("s3://") else LocalShelf(Path(place))


@contextmanager
def _telling(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(f"{where} cannot be used: {error.strerror or error}") from None


class LocalShelf:
    """A folder that only its user can read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes | None:
        """A file; None where there is none."""
        with _telling(self.where(name)):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place."""
        self._write(name, BytesIO(content))

    def put(self, name: str, path: Path) -> None:
        """Put a copy of a file of this host in place."""
        with _telling(str(path)):
            content = path.open("rb")
        with content:
            self._write(name, content)

    def fetch(self, name: str, into: BinaryIO) -> None:
        """Write what a file holds, if it is there, into an open one."""
        with _telling(self.where(name)), suppress(FileNotFoundError), (self.root / name).open("rb") as file:
            shutil.copyfileobj(file, into, PIECE)

    def _write(self, name: str, content: BinaryIO) -> None:
        path = self.root / name
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with _telling(self.where(name)):
            make_parents(path.parent)
            try:
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "wb") as file:
                    shutil.copyfileobj(content, file, PIECE)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise

    def names(self, folder: str) -> list[str]:
        """What stands in a folder."""
        with _telling(self.where(folder)):
            try:
                return sorted(entry.name for entry in os.scandir(self.root / folder) if not entry.name.startswith("."))
            except FileNotFoundError:
                return []

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        with _telling(self.where(name)):
            (self.root / name).unlink(missing_ok=True)

    def where(self, name: str) -> str:
        """What people call it."""
        return str(self.root / name) if name else str(self.root)


class S3Shelf:
    """A prefix of a bucket, through boto3, which finds its credentials as it does elsewhere."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @classmethod
    def open(cls, url: str) -> S3Shelf:
        """The shelf behind s3://bucket/prefix."""
        try:
            import boto3  # noqa: PLC0415  for those who have it
        except ImportError:
            raise ConfigError("out is on S3, which needs more packages: pip install 'moe-bulk[spark,s3]'") from None
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"{url} names no bucket: write it like s3://bucket/folder")
        return cls(boto3.client("s3"), bucket, prefix.strip("/"))

    def read(self, name: str) -> bytes | None:
        """An object; None where there is none."""

        def get() -> bytes | None:
            body = self._body(name)
            if body is None:
                return None
            content: bytes = body.read()
            return content

        return self._asking(name, get)

    def write(self, name: str, content: bytes) -> None:
        """Put an object in place."""
        self._asking(name, lambda: self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content))

    def put(self, name: str, path: Path) -> None:
        """Put a copy of a file of this host in place: from a file's name boto3 reads each part as it is sent."""
        with _telling(str(path)):
            self._asking(name, lambda: self._client.upload_file(str(path), self._bucket, self._prefix + name))

    def fetch(self, name: str, into: BinaryIO) -> None:
        """Write what an object holds, if it is there, into an open file."""

        def copy() -> None:
            body = self._body(name)
            if body is not None:
                shutil.copyfileobj(body, into, PIECE)

        self._asking(name, copy)

    def names(self, folder: str) -> list[str]:
        """What stands in a folder."""
        prefix = self._prefix + (f"{folder}/" if folder else "")

        def ask() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            found: list[str] = []
            for page in pages:
                found += [each["Key"] for each in page.get("Contents", ())]
                found += [each["Prefix"].rstrip("/") for each in page.get("CommonPrefixes", ())]
            return sorted(filter(None, (each.removeprefix(prefix) for each in found)))

        return self._asking(folder, ask)

    def remove(self, name: str) -> None:
        """Take an object away, if it is there."""
        self._asking(name, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name))

    def where(self, name: str) -> str:
        """What people call it."""
        return f"s3://{self._bucket}/{self._prefix}{name}".rstrip("/")

    def _body(self, name: str) -> Any:
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
        except self._client.exceptions.NoSuchKey:
            return None

    def _asking(self, name: str, ask: Callable[[], T]) -> T:
        from boto3.exceptions import Boto3Error  # noqa: PLC0415  for those who have it
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  there is boto3, so there is this

        try:
            return ask()
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise JournalError(f"{self.where(name)} cannot be used: {str(error)[:500]}") from None


def mark(shelf: Shelf) -> str:
    """What this folder is known by; it is made up when the folder is used for the first time."""
    if shelf.read(MARK) is None:
        shelf.write(MARK, orjson.dumps({"format": 1, "id": secrets.token_hex(8)}) + b"\n")
    return _id(shelf)  # read again: of two who made one up at the same time, the last one's counts


def refuse_other(shelf: Shelf, expected: str) -> None:
    """Raise ConfigError where this is not the folder that the driver sees."""
    if shelf.read(MARK) is None or _id(shelf) != expected:
        raise ConfigError(
            f"{shelf.where('')} is not the same folder for the driver and for this executor, so a task that is tried "
            "again elsewhere would not find what was settled. Nothing was sent. Name a folder that all hosts share, or "
            "s3://…"
        )


def _id(shelf: Shelf) -> str:
    try:
        said = orjson.loads(shelf.read(MARK) or b"")
        return str(said["id"])
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{shelf.where(MARK)} is damaged: remove it, and what it belongs to stays readable") from None
