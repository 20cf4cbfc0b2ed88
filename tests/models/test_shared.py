"""The store that several servers share: numbered turns, what each learns of the others, and leases on jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest

from service.errors import StorageUnavailable
from service.jobs.job import Job
from service.models import job_rows
from service.models.shared import SharedStore
from service.models.store import Claim, ClaimLost, Drop, News, Put
from service.training.plan import Plan
from service.training.sources import Random
from tests.running import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(database: str) -> str:
    """An empty database of its own on one server."""
    name = f"test_{threading.get_native_id()}_{next(NUMBERS)}"
    where = database.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return database.rpartition("/")[0] + f"/{name}"


NUMBERS = iter(range(1_000))


class Follower:
    """A server that writes down what it learns."""

    def __init__(self, url: str, seconds: float = 10.0) -> None:
        self.store = SharedStore(url, seconds)
        self.learnt: list[News] = []

    def __enter__(self) -> "Follower":
        self.store.follow(self.learnt.append)
        return self

    def __exit__(self, *exception: object) -> None:
        self.store.close()

    def knows(self, table: str) -> set[str]:
        return {key for news in self.learnt for key in news.of(table, ())}


def sweep(number: int, facts: str = "{}") -> Put:
    return Put("sweeps", {"id": f"swp_{number}", "facts": facts})


def job(number: int, model: str = "mdl_1") -> Job:
    return Job.queued(f"job_{number}", model, 1, Plan(data=Random()), NOW)


def test_each_learns_what_the_other_wrote_and_nothing_of_its_own(url):
    with Follower(url) as one, Follower(url) as other:
        one.store.write([sweep(1), sweep(2)])
        until(lambda: other.knows("sweeps") == {"swp_1", "swp_2"}, 5)
        other.store.write([Drop("sweeps", {"id": "swp_1"})])
        until(lambda: one.knows("sweeps") == {"swp_1"}, 5)
        assert [row["id"] for row in one.store.rows("sweeps", "id")] == ["swp_2"]


def test_a_turn_begins_with_all_that_was_written_before_it(url):
    with Follower(url) as one, Follower(url) as other:
        for number in range(20):
            one.store.write([sweep(number)])
            with other.store.turn():
                assert f"swp_{number}" in other.knows("sweeps")


def test_of_turns_at_two_servers_none_loses_what_another_wrote(url):
    with Follower(url) as one, Follower(url) as other:
        one.store.write([sweep(1, "0")])

        def count(store: SharedStore) -> None:
            for _ in range(25):
                with store.turn():
                    (row,) = store.rows("sweeps", "facts", id="swp_1")
                    store.write([sweep(1, str(int(row["facts"]) + 1))])

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(count, store) for store in (one.store, other.store) * 2]:
                done.result()
        assert [row["facts"] for row in one.store.rows("sweeps", "facts")] == ["100"]


def test_a_turn_in_which_a_check_fails_leaves_nothing_and_frees_the_next(url):
    with Follower(url) as one, Follower(url) as other:
        with pytest.raises(KeyError), one.store.turn():
            raise KeyError
        other.store.write([sweep(1)])
        with pytest.raises(StorageUnavailable):
            one.store.write([sweep(2), Put("versions", {"model_id": "none", "number": 0, "facts": "", "tensors": b""})])
        assert [row["id"] for row in other.store.rows("sweeps", "id")] == ["swp_1"]


def test_one_that_is_far_behind_looks_at_everything(url, monkeypatch):
    monkeypatch.setattr("service.models.shared.KEPT_CHANGES", 4)
    with Follower(url) as one, closing(SharedStore(url)) as sleeper:
        learnt: list[News] = []
        for number in range(10):
            one.store.write([sweep(number)])
        sleeper.follow(learnt.append)
        until(lambda: learnt, 5)
        assert learnt[0].everything
        assert learnt[0].of("sweeps", ["swp_gone"]) == sorted([*(f"swp_{number}" for number in range(10)), "swp_gone"])


def test_what_is_read_at_a_moment_stays_so_and_is_followed_by_what_came_after(url):
    with Follower(url) as one, closing(SharedStore(url)) as late:
        one.store.write([sweep(1)])
        with late.moment():
            before = [row["id"] for row in late.rows("sweeps", "id")]
            one.store.write([sweep(2)])
            assert [row["id"] for row in late.rows("sweeps", "id")] == before == ["swp_1"]
        learnt: list[News] = []
        late.follow(learnt.append)
        until(lambda: learnt, 5)
        assert learnt[0].of("sweeps", ()) == ["swp_2"]


def test_two_that_start_at_once_on_an_empty_database_make_its_tables_once(url):
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda _: SharedStore(url), range(3)))
    for number, store in enumerate(stores):
        store.write([sweep(number)])
    assert len(list(stores[0].rows("sweeps", "id"))) == 3
    for store in stores:
        store.close()


def test_a_job_has_one_server_and_those_of_one_model_follow_one_another(url):
    with Follower(url) as one, Follower(url) as other:
        one.store.write(job_rows.accepted([job(1), job(2), job(3, "mdl_2")], {}))
        ids = ["job_1", "job_2", "job_3"]
        assert one.store.leases.claim(ids) == {"job_1": 1, "job_3": 1}
        assert other.store.leases.claim(ids) == {}
        assert other.store.leases.free(ids) == ["job_2"]
        one.store.leases.release(["job_1"])
        assert other.store.leases.claim(ids) == {"job_1": 2}
        assert one.store.leases.renew({"job_3"}) == {"job_3"}
        assert other.store.leases.renew({"job_1"}) == {"job_1"}


def test_claims_at_once_never_give_one_job_to_two(url):
    with Follower(url) as one, Follower(url) as other:
        ids = [f"job_{number}" for number in range(40)]
        one.store.write(job_rows.accepted([job(number, f"mdl_{number}") for number in range(40)], {}))
        with ThreadPoolExecutor(8) as pool:
            claims = list(pool.map(lambda k: (one, other)[k % 2].store.leases.claim(ids[k % 5 :]), range(16)))
        taken = [job_id for claim in claims for job_id in claim]
        assert len(taken) == len(set(taken))
        again = [job_id for store in (one, other) for job_id in store.store.leases.claim(ids)]
        assert sorted([*taken, *again]) == sorted(ids)


def test_who_was_silent_too_long_writes_nothing_of_a_job_that_another_took(url):
    with Follower(url, 1.0) as slow, Follower(url, 1.0) as other:
        slow.store.write(job_rows.accepted([job(1)], {}))
        (fence,) = slow.store.leases.claim(["job_1"]).values()
        until(lambda: other.store.leases.claim(["job_1"]), 5)
        with pytest.raises(ClaimLost):
            slow.store.write([Claim("job_1", fence), sweep(1)])
        assert list(slow.store.rows("sweeps", "id")) == []
        assert "job_1" not in slow.store.leases.renew({"job_1"})
        other.store.write([Claim("job_1", fence + 1), sweep(2)])
        assert [row["id"] for row in slow.store.rows("sweeps", "id")] == ["swp_2"]


def test_a_job_that_has_ended_leaves_no_lease_and_no_epochs(url):
    with Follower(url) as one:
        one.store.write(job_rows.accepted([job(1)], {}))
        (fence,) = one.store.leases.claim(["job_1"]).values()
        one.store.write([Claim("job_1", fence), Put("epochs", {"job_id": "job_1", "first": 0, "curves": b""})])
        one.store.write([Put("jobs", {"id": "job_1", "model_id": "m", "ended": True, "facts": "{}", "curves": b""})])
        assert [*one.store.rows("leases", "job_id"), *one.store.rows("epochs", "job_id")] == []


def cut_in_turn(store: SharedStore, url: str) -> None:
    """Write in a turn whose connection is lost."""
    with store.turn():
        with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'")
        store.write([sweep(1)])


def test_a_connection_that_breaks_in_a_turn_writes_nothing_and_the_next_turn_does(url):
    with Follower(url) as one, Follower(url) as other:
        with pytest.raises(StorageUnavailable):
            cut_in_turn(one.store, url)
        assert list(other.store.rows("sweeps", "id")) == []
        one.store.write([sweep(2)])
        until(lambda: other.knows("sweeps") == {"swp_2"}, 5)
        assert one.store.trouble == ""


@pytest.mark.parametrize("known", [True, False])
def test_a_write_that_took_place_and_says_that_it_broke_is_known_or_learnt_in_the_next_turn(url, known, monkeypatch):
    with Follower(url) as one:
        dialect = one.store._engine.dialect
        commit, took = dialect.do_commit, one.store._took

        def broken(connection: object) -> None:
            monkeypatch.setattr(dialect, "do_commit", commit)
            commit(connection)
            raise psycopg.OperationalError("the connection was lost")

        def unknown(number: int) -> bool:
            monkeypatch.setattr(one.store, "_took", took)
            raise StorageUnavailable("the connection was lost")

        with one.store.turn():  # so that the listener's own commits are not met
            monkeypatch.setattr(dialect, "do_commit", broken)
            if known:
                one.store.write([sweep(1)])
            else:
                monkeypatch.setattr(one.store, "_took", unknown)
                with pytest.raises(StorageUnavailable):
                    one.store.write([sweep(1)])
        one.store.write([sweep(2)])
        assert one.knows("sweeps") == (set() if known else {"swp_1"})
        assert [row["id"] for row in one.store.rows("sweeps", "id")] == ["swp_1", "swp_2"]
