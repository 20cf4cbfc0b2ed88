"""Who is let in: by the name that a request is addressed to, the page that it comes from, and its key."""

import re
from collections.abc import Mapping
from ipaddress import ip_address

from service.api.keys import ANYBODY, Caller, Keys, Scope
from service.errors import BadHost, CrossOrigin, Forbidden
from service.settings import Settings, listed

PROBES = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
# What is answered without a key: how the service is, the page, and what tells about the service and its errors.
OPEN = re.compile(
    r"/(livez|readyz|v2/health/(live|ready)|favicon\.ico|docs(/oauth2-redirect)?|openapi\.json"
    r"|(static|static-offline-docs|problems)/.*)?",
    re.DOTALL,  # a name may hold a newline, and is no other address for that
)
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}  # RFC 9110, 9.2.1
# Posts that change nothing.
READING = re.compile(r"(/models/[^/]+)?/forward|/models/[^/]+/rank-profile|/v2/.+/infer")
KNOWN_HOSTS = 256


class Guard:
    """Says of each request who sends it, or that it is not let in."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings)
        allowed = listed(settings.allowed_hosts.lower())
        self._hosts = {settings.host.lower(), *allowed}
        # .example.org, in which names below it end
        self._above = tuple(name[1:] for name in allowed if name.startswith("*."))
        self._origins = {origin.encode() for origin in listed(settings.allowed_origins)}
        self._known: set[bytes] = set()  # Host headers that were let in lately

    def caller(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Caller:
        """Whoever sends a request with this head.

        Raises:
            BadHost, CrossOrigin, Unauthorized, Forbidden
        """
        host = headers.get(b"host")  # which browsers always send
        if host is not None and host not in self._known and path not in PROBES:
            self._learn(host)
        if method not in SAFE and b"origin" in headers:
            self._must_be_ours(headers[b"origin"], host)
        if method in SAFE and OPEN.fullmatch(path):
            return ANYBODY
        caller = self._keys.caller(headers.get(b"authorization", b""))
        if caller.scope < Scope.WRITE and method not in SAFE and not READING.fullmatch(path):
            raise Forbidden(f"the key that was sent has the scope read, and {method} {path[:80]} changes something")
        return caller

    def _learn(self, host: bytes) -> None:
        text = host.decode("latin-1")
        name = re.sub(r":[0-9]*$", "", text).lower().strip("[]").rstrip(".")
        if not (name in self._hosts or "*" in self._hosts or name.endswith(self._above) or _is_nobodys(name)):
            raise BadHost(f"Host is {text[:100]!r}; LORA_ALLOWED_HOSTS lists the names that this service goes by")
        if len(self._known) < KNOWN_HOSTS:
            self._known.add(host)

    def _must_be_ours(self, origin: bytes, host: bytes | None) -> None:
        own = origin.partition(b"://")[2]
        if own != host and origin not in self._origins:
            shown = origin.decode("latin-1")[:100]
            raise CrossOrigin(f"the page that sends this is from {shown!r}; LORA_ALLOWED_ORIGINS lists those let in")


def _is_nobodys(name: str) -> bool:
    """Whether no page can go by this name: it is an address, or has no dot, and such names nobody can buy."""
    try:
        ip_address(name)
    except ValueError:
        return re.fullmatch("[a-z0-9_-]+", name) is not None
    return True
