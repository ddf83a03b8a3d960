"""URLs as people and files may see them: without passwords, keys and signatures."""

from __future__ import annotations

import re

# A web address has no slash in its user's part; elsewhere (s3://KEY:SECRET@bucket/…) a secret may have one.
_WEB_USER = re.compile(r"\b(https?://)[^/?#@\s]*@", re.IGNORECASE)
_USER = re.compile(r"\b((?!https?:)[a-z][a-z0-9+.-]*://)(?:[^/?#@:\s]*:[^?#@\s]*|[^/?#@\s]*)@", re.IGNORECASE)
# Nothing of what stands before the host is of use to anybody there, and all of it may be spelt wrongly.
_REDIS_USER = re.compile(r"\b(rediss?[:/]+)\S*@", re.IGNORECASE)
_VALUE = re.compile(r"([?&;][^=&\s]*(?:sig|token|cred|secret|pass|pwd|key|auth)[^=&\s]*=)[^&#\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with what lets somebody in replaced in all URLs, and pieces of them, that stand there.

    >>> masked("https://me:secret@example.org/devices.csv?page=2&X-Amz-Signature=a1b2")
    'https://***@example.org/devices.csv?page=2&X-Amz-Signature=***'
    """
    if not any(sign in text for sign in "@?&;"):
        return text
    return _VALUE.sub(r"\1***", _USER.sub(r"\1***@", _WEB_USER.sub(r"\1***@", _REDIS_USER.sub(r"\1***@", text))))
