"""Wrong uses of schedules."""

import pytest

from sb3_trmrl.zoo.schedules import ExponentialSchedule, schedule_from_string
from tests.helpers.wrong_use import INF, NAN, Wrong, assert_covered, name_of, rows, wrong_number

SCHEDULE = [
    *wrong_number("initial_value", (0, -1, NAN, INF), "positive"),
    *wrong_number("final_factor", (0, -1, NAN, INF), "positive"),
    *wrong_number("start", (-0.1, 1.0, 2), "0 <= start < end <= 1"),
    *wrong_number("end", (0.0, -0.1, 1.1), "0 <= start < end <= 1"),
]
STRINGS = [
    *rows("text", (5, None, 3e-4, ["lin_3e-4"]), TypeError, "a schedule in a string"),
    *rows(
        "text",
        [
            *("", "fast", "lin", "lin_", "lin_x", "lin_1_2", "exp_1", "exp_1_", "exp_1_2_3_4_5", "cos_1", "exp_3e-4_x"),
            *("-1", "nan", "inf", "lin_-1", "lin_nan", "exp_0_0.1", "exp_1_0", "exp_1_-1", "exp_1_0.1_0.5_0.2"),
        ],
        ValueError,
        "'lin_<from>'",
    ),
]


@pytest.mark.parametrize("row", SCHEDULE, ids=name_of)
def test_exponential_schedule(row: Wrong) -> None:
    row.check(ExponentialSchedule, {"initial_value": 3e-4, "final_factor": 0.1})


@pytest.mark.parametrize("row", STRINGS, ids=name_of)
def test_schedule_from_string(row: Wrong) -> None:
    row.check(schedule_from_string)


def test_every_argument_of_the_schedules_is_in_the_table() -> None:
    assert_covered(ExponentialSchedule, SCHEDULE)
    assert_covered(schedule_from_string, STRINGS)
