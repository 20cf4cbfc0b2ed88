"""API keys: who calls, what they may do, and how much at a time."""

import hashlib
import hmac
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum

from service.api.share import Share
from service.errors import Unauthorized
from service.settings import Settings, key_texts

BEARER = b"bearer "
REMEMBERED = 256


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
        self._let_in: dict[bytes, Caller] = {}  # by the whole header

    def caller(self, authorization: bytes) -> Caller:
        """Whoever sends this `Authorization` header (RFC 6750).

        Hashes are compared, all of them and each in constant time, so that how long it takes tells nothing. Nor does it
        where a header that was let in comes again: that is found by Python's own hash, whose secret is this process's.

        Raises:
            Unauthorized: where it has none of the keys.
        """
        if not self._callers:
            return ANYBODY
        known = self._let_in.get(authorization)
        if known is None:
            known = self._caller(authorization)
            if len(self._let_in) < REMEMBERED:
                self._let_in[authorization] = known
        return known

    def _caller(self, authorization: bytes) -> Caller:
        scheme, given = authorization[: len(BEARER)], authorization[len(BEARER) :].strip(b" ")
        if scheme.lower() != BEARER or not given:
            raise Unauthorized("this service asks for a key; send it as `Authorization: Bearer KEY`")
        digest, found = hashlib.sha256(given).digest(), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthorized("the key that was sent is none of this service's")
        return found


def _holder(key: str, scope: Scope, share: Share) -> tuple[bytes, Caller]:
    """The hash of a key, and who holds it."""
    digest = hashlib.sha256(key.encode()).digest()
    return digest, Caller(f"key-{digest.hex()[:8]}", scope, share)
