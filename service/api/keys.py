"""API keys: who calls, what they may do, and how much at a time. Only hashes of keys are kept."""

import hashlib
import hmac
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum

from service.api.share import Share
from service.errors import Unauthorized
from service.settings import Settings, key_texts

BEARER = b"bearer "


class Scope(IntEnum):
    """What a key may do; the greater may do what the lesser may."""

    READ = 1  # look at things, and run models
    WRITE = 2  # make, change and delete them


@dataclass(frozen=True)
class Caller:
    """Whoever holds a key; `name` is the beginning of its hash, which says nothing about the key.

    Each request enters the `share`; where there are no keys there are no shares.
    """

    name: str
    scope: Scope
    share: AbstractContextManager[None] = field(default_factory=nullcontext, compare=False)


# Where no keys are set, everybody is the same caller and may do everything.
ANYBODY = Caller("", Scope.WRITE)


class Keys:
    """The keys of a service; where there are none, nobody is asked for one."""

    def __init__(self, settings: Settings) -> None:
        self._callers = [
            _holder(key, Scope.READ if reads else Scope.WRITE, Share(settings.key_requests))
            for key, reads in key_texts(settings.api_keys)
        ]

    def caller(self, authorization: bytes) -> Caller:
        """Whoever sends this `Authorization` header (RFC 6750).

        Every key is compared, each in constant time, so that how long it takes tells nothing.

        Raises:
            Unauthorized: where it has none of the keys.
        """
        if not self._callers:
            return ANYBODY
        scheme, given = authorization[: len(BEARER)], authorization[len(BEARER) :].strip(b" ")
        if scheme.lower() != BEARER or not given:
            raise Unauthorized("this service asks for a key; send it as `Authorization: Bearer KEY`")
        digest, found = _digest(given), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthorized("the key that was sent is none of this service's")
        return found


def _holder(key: str, scope: Scope, share: Share) -> tuple[bytes, Caller]:
    """The hash of a key, and who holds it."""
    digest = _digest(key.encode())
    return digest, Caller(f"key-{digest.hex()[:8]}", scope, share)


def _digest(key: bytes) -> bytes:
    """BLAKE2b (RFC 7693), which takes half the time that SHA-256 takes by way of OpenSSL."""
    return hashlib.blake2b(key, digest_size=32).digest()
