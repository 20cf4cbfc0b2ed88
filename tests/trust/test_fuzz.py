"""Bytes with something wrong in them are refused: nothing breaks, hangs or grows."""

from random import Random

import pytest

from tests.running import in_thread
from tests.trust.decoders import DECODERS
from tests.trust.fuzz import of_decoder, of_port, sent
from tests.trust.schema import BOUNDS
from tests.trust.valid import valid

SEED = 1


def test_spoilt_requests_break_nothing() -> None:
    *_, told = of_port(8, SEED)
    assert int(told.split()[0].replace(",", "")) > 10, told


def test_what_is_spoilt_for_the_port_is_a_request_before() -> None:
    with in_thread(**{name.removeprefix("LORA_").lower(): value for name, value in BOUNDS.items()}) as service:
        requests = valid(service.url)
        assert len(requests) > 80
        for request in requests:
            if b" /events " in request or b"DELETE " in request:  # one never ends, the other leaves less to ask for
                continue
            status = sent(service.url, request, silence_seconds=60)[9:12].decode()
            assert status not in {"400", "401", "405", "406", "411", "415"}, request
            assert status[:1] in {"2", "4"}, (status, request)


@pytest.mark.parametrize("name", DECODERS)
def test_spoilt_bodies_are_decoded_or_refused_and_nothing_else(name: str) -> None:
    of_decoder(name, Random(SEED), 1_000)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_spoilt_for_a_decoder_is_decoded_before(name: str) -> None:
    for body in DECODERS[name].bodies:
        DECODERS[name].decode(body)
