"""Learning rate schedules for yml files."""

from dataclasses import dataclass

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule

from sb3_trmrl.common.checks import check_instance, check_non_negative, check_number, check_positive

_SYNTAX = "expected a number, 'lin_<from>' or 'exp_<from>_<factor>[_<start>[_<end>]]'"


@dataclass(frozen=True)
class ExponentialSchedule:
    """
    Constant value, exponential decay, constant value: the schedule of TrMRL's released commands (there from update 100
    to 750, by a factor of 0.1). Instances can be pickled, so they are saved with the model.

    :param initial_value: Value before ``start``
    :param final_factor: ``initial_value * final_factor`` is the value after ``end``
    :param start: Beginning of the decay as a fraction of training, in [0, 1)
    :param end: End of the decay as a fraction of training, in (start, 1]
    :raises TypeError: if an argument is not a number
    :raises ValueError: if a value or factor is not positive or the fractions are not ordered within [0, 1]
    """

    initial_value: float
    final_factor: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_positive("initial_value", self.initial_value)
        check_positive("final_factor", self.final_factor)
        if not 0 <= check_number("start", self.start) < check_number("end", self.end) <= 1:
            raise ValueError(f"`start` and `end` must satisfy 0 <= start < end <= 1, got {self.start} and {self.end}")

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at a remaining progress from 1 (beginning of training) to 0 (end), as in SB3."""
        fraction = (1.0 - progress_remaining - self.start) / (self.end - self.start)
        return float(self.initial_value * self.final_factor ** min(max(fraction, 0.0), 1.0))


def schedule_from_string(text: str) -> Schedule:
    """
    Parse a schedule of a hyperparameter file:

    * ``"3e-4"``: constant
    * ``"lin_3e-4"``: linear from 3e-4 to zero (also in rl-zoo3)
    * ``"exp_3e-5_0.1"``: exponential from 3e-5 to 3e-6 over all of training
    * ``"exp_3e-5_0.1_0.04_0.3"``: the same decay between 4 % and 30 % of training, constant before and after

    :param text: A schedule in this syntax
    :return: Function of the remaining progress
    :raises TypeError: if ``text`` is not a string
    :raises ValueError: if the syntax is wrong, or a number is negative or not finite
    """
    check_instance("text", text, str, "a schedule in a string")
    kind, _, rest = text.partition("_")
    try:
        if not rest:
            return ConstantSchedule(check_non_negative("value", float(kind)))
        numbers = [float(number) for number in rest.split("_")]
        if kind == "lin" and len(numbers) == 1:
            return LinearSchedule(check_non_negative("from", numbers[0]), 0.0, 1.0)
        if kind == "exp" and len(numbers) in (2, 3, 4):
            return ExponentialSchedule(*numbers)
    except ValueError as error:
        raise ValueError(f"invalid schedule `text`={text!r}: {error}; {_SYNTAX}") from error
    raise ValueError(f"invalid schedule `text`={text!r}: {_SYNTAX}")
