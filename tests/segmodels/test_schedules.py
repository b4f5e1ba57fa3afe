"""The learning rate step by step, and which epoch is the best."""

from __future__ import annotations

import itertools
import math

import pytest

from segmodels.schedules import (
    PLATEAU_EPOCHS,
    WARM_UP_STEPS,
    Best,
    best,
    epochs_without_better,
    learning_rate,
)

NAN = math.nan


def rows(*values: float, name: str = "val_mean_iou") -> list[dict[str, float]]:
    return [{"epoch": number, name: value} for number, value in enumerate(values, 1)]


# ---- the learning rate


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_every_schedule_warms_up_from_a_tenth(schedule: str) -> None:
    rates = [learning_rate(schedule, 0.2, step, 10_000) for step in range(WARM_UP_STEPS + 1)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[WARM_UP_STEPS // 2] == pytest.approx(0.11)
    assert rates[WARM_UP_STEPS] == pytest.approx(0.2)
    steps = [after - before for before, after in itertools.pairwise(rates)]
    assert steps == pytest.approx([0.18 / WARM_UP_STEPS] * WARM_UP_STEPS), "a straight line"
    assert max(rates) == rates[-1]


@pytest.mark.parametrize(("steps", "warm"), [(1, 0), (9, 0), (10, 1), (100, 10), (499, 49), (5000, 50)])
def test_the_warm_up_is_at_most_a_tenth_of_the_run(steps: int, warm: int) -> None:
    rates = [learning_rate("constant", 1.0, step, steps) for step in range(steps)]
    assert sum(rate < 1 for rate in rates) == warm
    assert rates[warm:] == [1.0] * (steps - warm)


def test_cosine_falls_from_the_highest_to_nearly_nothing() -> None:
    rates = [learning_rate("cosine", 0.1, step, 1000) for step in range(1000)]
    after = rates[WARM_UP_STEPS:]
    assert after[0] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(after))
    middle = WARM_UP_STEPS + (1000 - WARM_UP_STEPS) // 2
    assert rates[middle] == pytest.approx(0.05)
    assert 0 < rates[-1] < 0.1 * 1e-5
    assert learning_rate("cosine", 0.1, 1000, 1000) == pytest.approx(0, abs=1e-12)


def test_a_run_of_one_step_has_a_rate() -> None:
    for schedule in ("constant", "cosine", "plateau"):
        assert learning_rate(schedule, 0.1, 0, 1) == 0.1


def plateau(*values: float, name: str = "val_mean_iou") -> float:
    """The rate after those epochs, of a highest of 1."""
    return learning_rate("plateau", 1.0, 900, 1000, rows(*values, name=name), name)


def test_plateau_halves_after_five_epochs_without_better_and_after_the_next_five() -> None:
    assert PLATEAU_EPOCHS == 5
    by_epochs = [plateau(*([0.5] * epochs)) for epochs in range(18)]
    #  none, the best, four without better, the fifth, ...
    assert by_epochs == [1.0] * 6 + [0.5] * 5 + [0.25] * 5 + [0.125] * 2


def test_something_better_starts_the_count_again() -> None:
    assert plateau(0.5, *[0.4] * 4, 0.6, *[0.4] * 4) == 1
    assert plateau(0.5, *[0.4] * 4, 0.6, *[0.4] * 5) == 0.5
    assert plateau(0.5, *[0.4] * 5, 0.6, *[0.4] * 4) == 0.5, "what was halved stays halved"
    assert plateau(0.5, *[0.4] * 5, 0.6, *[0.4] * 5) == 0.25
    assert plateau(*[0.1 * i for i in range(1, 20)]) == 1


def test_a_plateau_of_a_loss_is_where_it_does_not_fall() -> None:
    assert plateau(*[1 - 0.01 * i for i in range(12)], name="loss") == 1
    assert plateau(*[1 + 0.01 * i for i in range(12)], name="loss") == 0.25
    assert plateau(0.3, *[0.3] * 5, name="val_mae") == 0.5


def test_epochs_without_a_number_are_epochs_without_better() -> None:
    assert plateau(*[NAN] * 5) == 0.5
    assert plateau(0.5, *[NAN] * 5) == 0.5
    assert plateau(*[NAN] * 4, 0.5, *[NAN] * 4) == 1


def test_rows_do_not_change_the_other_schedules_and_warm_up_comes_first() -> None:
    flat = rows(*[0.5] * 30)
    assert learning_rate("constant", 1.0, 900, 1000, flat, "val_mean_iou") == 1
    assert learning_rate("cosine", 1.0, 500, 1000, flat, "val_mean_iou") == learning_rate("cosine", 1.0, 500, 1000)
    assert learning_rate("plateau", 1.0, 0, 1000, flat, "val_mean_iou") == pytest.approx(0.1)


# ---- the best epoch


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ((0.2, 0.5, 0.4), 2),
        ((0.5, 0.5, 0.5), 1),
        ((NAN, 0.1, NAN), 2),
        ((0.3, NAN, 0.3, 0.4, NAN), 4),
        ((0.0,), 1),
        ((-math.inf, -1.0), 2),
    ],
)
def test_the_best_is_the_first_of_the_highest(values: tuple[float, ...], epoch: int) -> None:
    assert best(rows(*values), "val_mean_iou") == Best("val_mean_iou", epoch, values[epoch - 1])
    assert epochs_without_better(rows(*values), "val_mean_iou") == len(values) - epoch


@pytest.mark.parametrize("name", ["loss", "val_loss", "val_mae"])
@pytest.mark.parametrize(
    ("values", "epoch"),
    [((0.2, 0.1, 0.4), 2), ((0.1, 0.1), 1), ((NAN, 9.0, NAN, 8.0), 4), ((0.0, -0.5), 2), ((math.inf, 5.0), 2)],
)
def test_of_losses_and_errors_the_lowest_is_best(name: str, values: tuple[float, ...], epoch: int) -> None:
    assert best(rows(*values, name=name), name) == Best(name, epoch, values[epoch - 1])


@pytest.mark.parametrize("values", [(), (NAN,), (NAN, NAN, NAN)])
def test_without_a_number_nothing_is_best(values: tuple[float, ...]) -> None:
    found = best(rows(*values), "loss") if not values else best(rows(*values, name="loss"), "loss")
    assert (found.name, found.epoch) == ("loss", 0)
    assert math.isnan(found.value)
    assert epochs_without_better(rows(*values, name="loss"), "loss") == len(values)
