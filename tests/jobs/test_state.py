"""The table of moves says it all: where a job may go, and where it stays."""

from service.jobs.state import MOVES, State


def test_the_words_are_those_of_the_contract():
    assert [str(state) for state in State] == ["queued", "running", "succeeded", "failed", "cancelled"]


def test_every_state_is_in_the_table_and_moves_only_to_states():
    assert set(MOVES) == set(State)
    assert all(to in State for moves in MOVES.values() for to in moves)


def test_a_job_that_has_ended_moves_nowhere():
    assert {state for state in State if state.terminal} == {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    assert {state for state in State if not MOVES[state]} == {state for state in State if state.terminal}


def test_every_state_can_be_reached_and_none_twice():
    reached, seen = {State.QUEUED}, [State.QUEUED]
    while seen:
        state = seen.pop()
        assert state not in MOVES[state]
        assert State.QUEUED not in MOVES[state]
        fresh = MOVES[state] - reached
        reached |= fresh
        seen += fresh
    assert reached == set(State)


def test_a_job_succeeds_only_after_it_has_run():
    assert [state for state in State if State.SUCCEEDED in MOVES[state]] == [State.RUNNING]
