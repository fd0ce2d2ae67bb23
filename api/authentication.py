"""The API key, which a request brings as `Authorization: Bearer KEY` (RFC 6750)."""

from __future__ import annotations

import hmac
from hashlib import sha256

from api.problems import Problem


def check_key(authorization: str | None, key: str) -> None:
    """Raise the problem of a request without the key; how long that takes tells nothing of the key.

    authorization : the header, if there is one.
    """
    scheme, _, given = (authorization or "").partition(" ")
    # Digests, so that not even the key's length shows.
    same = hmac.compare_digest(sha256(given.strip().encode()).digest(), sha256(key.encode()).digest())
    if scheme.lower() != "bearer" or not same:
        why = "The request has no API key" if authorization is None else "The API key of the request is not the server's"
        raise Problem(
            "unauthorized",
            f"{why}: send the header `Authorization: Bearer KEY`.",
            headers={"WWW-Authenticate": 'Bearer realm="skinlesion"'},
        )
