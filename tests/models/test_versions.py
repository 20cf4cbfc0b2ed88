"""Of the versions of a model the newest are kept, and the best."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from service.models.versions import Mark, Version, best, one_fewer, pruned
from service.training.digests import digest_of
from service.training.plan import Plan
from service.training.sources import Digits
from tests.models.layers import NOW

LOSSES = st.none() | st.sampled_from([0.1, 0.2, 0.3])
HISTORIES = st.lists(LOSSES, min_size=1, max_size=12)


def kept_of(losses: list[float | None], most: int) -> list[int]:
    """The numbers that are left when versions of these losses have followed one another."""
    kept: tuple[Mark, ...] = (Mark(0, losses[0]),)
    for number, loss in enumerate(losses[1:], 1):
        new = Mark(number, loss)
        after, dropped = pruned(kept, new, most)
        assert sorted((*after, *dropped), key=lambda mark: mark.number) == [*kept, new]
        assert after[-1] == new
        kept = after
    return [mark.number for mark in kept]


@given(HISTORIES, st.integers(0, 13))
def test_kept_are_the_newest_and_the_best_of_all_there_were(losses: list[float | None], most: int) -> None:
    last = len(losses) - 1
    known = [(loss, -number) for number, loss in enumerate(losses) if loss is not None]
    lowest = [-min(known)[1]] if known else []
    assert kept_of(losses, most) == sorted({*range(max(0, last - most), last + 1), *lowest})


@given(HISTORIES, st.integers(0, 13), st.integers(0, 13))
def test_when_fewer_are_to_be_kept_the_rest_goes_with_the_next_version(
    losses: list[float | None], most: int, later: int
) -> None:
    marks = tuple(Mark(number, loss) for number, loss in enumerate(losses) if number in kept_of(losses, most))
    after, _ = pruned(marks, Mark(len(losses)), later)
    assert len(after) <= later + 2
    assert best(after) == best(marks)


@given(HISTORIES)
def test_where_there_is_no_room_the_oldest_goes_first_and_the_best_last(losses: list[float | None]) -> None:
    kept = (Mark(0), *(Mark(number, loss) for number, loss in enumerate(losses, 1)))
    left, (gone,) = one_fewer(kept)
    assert sorted((*left, gone), key=lambda mark: mark.number) == [*kept]
    assert left[-1] == kept[-1]
    others = [mark for mark in kept[:-1] if mark != best(kept)]
    assert gone == (others or kept)[0]


def test_of_two_with_one_loss_the_newer_is_the_best_and_without_a_training_none_is() -> None:
    assert best([Mark(1, 0.5), Mark(2, 0.5), Mark(3, 0.7), Mark(4)]) == Mark(2, 0.5)
    assert best([Mark(0), Mark(1)]) is None


def test_only_losses_that_were_measured_like_the_newest_are_compared() -> None:
    marks = [Mark(1, 0.1, "huber on one row"), Mark(2, 0.5, "mse"), Mark(3, 0.7, "mse")]
    assert best(marks) == marks[1]
    assert best(marks[:1]) == marks[0]
    assert pruned(tuple(marks), Mark(4, 0.9, "mse"), 0) == ((marks[1], Mark(4, 0.9, "mse")), (marks[0], marks[2]))


def test_a_training_is_judged_by_the_rows_that_were_held_out_where_some_were() -> None:
    plan = Plan(data=Digits(), loss="cross_entropy")
    trained = Version(number=1, created_at=NOW, origin="training", plan=plan, loss=0.1)
    on_others = replace(plan, validation=Digits(split="test"))
    held_out = [replace(trained, plan=each, validation_loss=0.3) for each in (on_others, replace(plan, validation=0.2))]
    assert [version.mark.loss for version in (trained, *held_out)] == [0.1, 0.3, 0.3]
    assert len({version.mark.measure for version in (trained, *held_out)}) == 3
    assert replace(trained, plan=replace(plan, epochs=7, lr=0.5, seed=3)).mark == trained.mark


def test_a_version_counts_as_trained_only_where_a_training_published_it() -> None:
    trained = Version(number=3, created_at=NOW, origin="training", loss=0.5)
    assert trained.mark == Mark(3, 0.5)
    assert replace(trained, origin="rollback").mark == Mark(3)


def test_a_version_names_the_data_of_its_plan() -> None:
    version = Version(number=1, created_at=NOW, origin="training", plan=Plan(data=Digits(), loss="cross_entropy"))
    assert version.data_digest == digest_of(Digits())
    assert Version.first(NOW).data_digest is None
