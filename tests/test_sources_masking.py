"""URLs as people and files may see them: nothing in them lets anybody in."""

from __future__ import annotations

import pytest

from moe_bulk.intake import Files
from moe_bulk.sources import masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/a.csv", "https://host/a.csv"),
        ("https://me:pass@host/a@b.csv", "https://***@host/a@b.csv"),
        ("https://ghp_token@host/a.csv", "https://***@host/a.csv"),
        ("https://host/a.csv?sig=x%2F&sv=1&access_token=y#z", "https://host/a.csv?sig=***&sv=1&access_token=***#z"),
        ("https://b.s3.amazonaws.com/a?X-Amz-Credential=A&X-Amz-Signature=b&part=1",
         "https://b.s3.amazonaws.com/a?X-Amz-Credential=***&X-Amz-Signature=***&part=1"),
        ("s3://AKIA:se/cr+et@bucket/key", "s3://***@bucket/key"),
        ("s3://bucket/a@b:c.csv", "s3://bucket/a@b:c.csv"),
        ("postgresql+psycopg://me:pass@host/db", "postgresql+psycopg://***@host/db"),
        ("403 for url: https://h/a?token=x , and /b?Signature=y (again)",
         "403 for url: https://h/a?token=*** , and /b?Signature=*** (again)"),
        ("me@example.org?", "me@example.org?"),
        ("redis://:p@ss/w#rd?x@host:1/0", "redis://***@host:1/0"),
        ("redis:/:pw@host", "redis:/:***@host"),
        ("rediss//me:pw@host", "rediss//***@host"),
    ],
)  # fmt: skip
def test_what_lets_somebody_in_is_masked(text: str, expected: str) -> None:
    """And nothing else: sources have to be told from each other."""
    assert expected == masked(text)
    assert expected == masked(expected)


def test_results_name_a_url_without_its_secrets() -> None:
    """Files keep their names, whatever they look like."""
    files = Files(("https://me:pass@host/a.csv?token=x", "a?token=x", "me@home"))
    assert ("https://***@host/a.csv?token=***", "a?token=x", "me@home") == files.labels
