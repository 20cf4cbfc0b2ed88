"""Whatever is sent to any address is answered, and never with the status of a bug."""

import json
import re
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.openapi import document
from tests.running import Service
from tests.trust.asking import Ask, Names, answer_to
from tests.trust.invariant import INSIDE

ADDRESSES = [(method.upper(), path) for path, methods in document()["paths"].items() for method in methods]
FIELDS = sorted(
    {name for schema in document()["components"]["schemas"].values() for name in schema.get("properties", {})}
)
TYPES = ["application/json", "application/x-npy", "application/x-safetensors", "application/octet-stream", "text/plain"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
BODIES = st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode())
# No more than what a line of HTTP may hold; what may not is the sheet's row 37.
PARTS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), min_size=1, max_size=40)


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(address=st.sampled_from(ADDRESSES), part=PARTS, known=st.booleans(), type_=st.sampled_from(TYPES), body=BODIES)
def test_every_address_answers_whatever_it_is_sent(
    held: tuple[Service, Names], address: tuple[str, str], part: str, known: bool, type_: str, body: bytes
) -> None:
    service, names = held
    method, path = address
    there = {"model_id": names["model"], "job_id": names["job"], "base_id": names["base"]}
    named = there if known and method != "DELETE" else {}
    path = re.sub(r"\{(\w+)[^}]*\}", lambda match: named.get(match[1], part), path)
    # An Accept without text/event-stream, for such a stream has no end.
    request = Ask(method, path, body, {"Content-Type": type_, "Accept": "application/json"})
    answer = answer_to(service.url, request.parts({}))
    assert answer.status < 500, answer.text
    assert answer.status < 400 or not INSIDE.search(answer.text.replace(part, ""))
    assert service.http.get("/livez").status_code == 200
