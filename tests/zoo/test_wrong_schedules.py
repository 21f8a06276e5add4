"""Wrong uses of schedules."""

from collections.abc import Callable
from typing import Any

from sb3_trmrl.zoo.schedules import ExponentialSchedule, schedule_from_string
from tests.helpers import wrong_use as w

SCHEDULE = [
    *w.wrong_number("initial_value", (0, -1, w.NAN, w.INF), "positive"),
    *w.wrong_number("final_factor", (0, -1, w.NAN, w.INF), "positive"),
    *w.wrong_number("start", (-0.1, 1.0, 2), "0 <= start < end <= 1"),
    *w.wrong_number("end", (0.0, -0.1, 1.1), "0 <= start < end <= 1"),
]
STRINGS = [
    *w.rows("text", (5, None, 3e-4, ["lin_3e-4"]), TypeError, "a schedule in a string"),
    *w.rows(
        "text",
        [
            *("", "fast", "lin", "lin_", "lin_x", "lin_1_2", "exp_1", "exp_1_", "exp_1_2_3_4_5", "cos_1", "exp_3e-4_x"),
            *("-1", "nan", "inf", "lin_-1", "lin_nan", "exp_0_0.1", "exp_1_0", "exp_1_-1", "exp_1_0.1_0.5_0.2"),
        ],
        ValueError,
        "'lin_<from>'",
    ),
]


TABLES = [
    w.Table(ExponentialSchedule, {"initial_value": 3e-4, "final_factor": 0.1}, SCHEDULE),
    w.Table(schedule_from_string, {}, STRINGS),
]


@w.each_row(TABLES)
def test_schedules(function: Callable[..., Any], right: dict[str, Any], row: w.Wrong) -> None:
    row.check(function, right)


def test_every_argument_of_the_schedules_is_in_the_table() -> None:
    w.assert_all_covered(TABLES)
