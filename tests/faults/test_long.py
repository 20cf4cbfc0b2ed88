"""What runs for long by hand runs here for less: chaos (F28) and the soak (F26)."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.faults import chaos, soak
from tests.running import Service
from tests.story.kills import Known


@pytest.mark.timeout(300)
def test_one_fault_after_another_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """F28."""
    assert chaos.run(chaos.FAULTS, 28, tmp_path).known.jobs


def test_the_oracle_of_the_chaos_finds_what_is_lost(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = nullcontext((SimpleNamespace(poll=lambda: None), service.url))
    monkeypatch.setattr(chaos, "as_process", lambda **settings: there)
    world = chaos.World(tmp_path, 0)
    world.quiet()
    world.known.names["mdl_00000000000000000000000000"] = "never made"
    with pytest.raises(KeyError):
        world.quiet()


def test_a_refusal_that_nobody_expects_is_no_answer() -> None:
    known = Known(refusals=chaos.REFUSED)
    assert known.done(httpx.Response(503, text="nothing was stored"), 201) is False
    assert known.done(httpx.Response(503, text="it is not known whether this was stored"), 201) is None
    with pytest.raises(AssertionError):
        known.done(httpx.Response(500, text="a bug"), 201)


def test_the_soak_uses_a_server_in_all_ways_and_measures_it() -> None:
    """F26."""
    held, done = soak.run(0.08, lambda told: None)
    assert {verb.__name__ for verb in soak.VERBS} >= set(done)
    assert len(done) > 3
    assert len(held) == 60
    assert max(each.threads for each in held[30:]) <= held[30].threads + 4
    assert soak.slope([soak.Held(s, 100 * soak.MIB + s * soak.MIB, 1, 1) for s in range(60)]) == pytest.approx(600)
