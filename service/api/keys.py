"""API keys: who calls, and what they may do. Only hashes of keys are kept."""

import hashlib
import hmac
from dataclasses import dataclass
from enum import IntEnum

from service.errors import Unauthorized
from service.settings import Settings, key_texts

BEARER = b"bearer "


class Scope(IntEnum):
    """What a key may do; the greater may do what the lesser may."""

    READ = 1  # look at things, and run models
    WRITE = 2  # make, change and delete them


@dataclass(frozen=True)
class Caller:
    """Whoever holds a key; `name` is the beginning of its hash, which says nothing about the key."""

    name: str
    scope: Scope


# Where no keys are set, everybody is the same caller and may do everything.
ANYBODY = Caller("", Scope.WRITE)


class Keys:
    """The keys of a service; where there are none, nobody is asked for one."""

    def __init__(self, settings: Settings) -> None:
        self._callers = {digest: _caller(digest, scope) for digest, scope in _digests(settings)}

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
        digest = hashlib.sha256(given).digest()
        matching = [caller for known, caller in self._callers.items() if hmac.compare_digest(known, digest)]
        if not matching:
            raise Unauthorized("the key that was sent is none of this service's")
        return matching[0]


def _digests(settings: Settings) -> list[tuple[bytes, Scope]]:
    return [
        (hashlib.sha256(text.encode()).digest(), Scope.READ if reads else Scope.WRITE)
        for text, reads in key_texts(settings)
    ]


def _caller(digest: bytes, scope: Scope) -> Caller:
    return Caller(f"key-{digest.hex()[:8]}", scope)
