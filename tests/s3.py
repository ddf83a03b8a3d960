"""A local S3 for tests, where one is installed."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def local_s3(bucket: str) -> Iterator[Any]:
    """Give a client of a local S3 with a bucket; the environment leads there, as a user's does."""
    pytest.importorskip("boto3")
    server_of = pytest.importorskip("moto.server")
    import boto3  # noqa: PLC0415  it is there

    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        environ.setenv("AWS_ACCESS_KEY_ID", "key")
        environ.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environ.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with closing(boto3.client("s3")) as client:
            client.create_bucket(Bucket=bucket)
            yield client
    server.stop()
