"""Online adaptation: performance at each step of the first episode of new tasks (paper, appendix D, figure 9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import COLOURS, check_picture, draw_band, finish, task_label
from sb3_trmrl.common.checks import check_instance, check_keywords, check_option, check_positive_int
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult, bootstrap_interval

#: Labels and units of numbers in ``info``
_NAMES = {"x_velocity": "x velocity", "y_velocity": "y velocity"}
_UNITS = {"x_velocity": "m/s", "y_velocity": "m/s"}


@dataclass(frozen=True)
class OnlineAdaptation:
    """
    Means over tasks at each of H steps of the first episode. Tasks whose episode has ended are left out.

    :param means: Mean reward at each step, and means of numbers in ``info``, by name, (H,) each
    :param intervals: Their 95 % bootstrap intervals over tasks, (2, H) each
    :param n_tasks: Number of tasks
    :param n_running: Number of tasks whose episode is still running at each step, (H,)
    :param smoothed: Moving average of the mean reward, (H,)
    :param window: Number of steps of the moving average
    :param first_level: Mean reward at the first step
    :param final_level: Mean reward over the last quarter of the steps
    :param adapted_at: First step, counted from 1, from which the smoothed reward never again falls below the final
        level by more than 5 % of the difference between first and final level; None if the reward did not increase, or
        if it is below this level at the last step
    :param unit: ``"tasks"``, or ``"episodes"`` of an environment without tasks
    """

    means: dict[str, np.ndarray]
    intervals: dict[str, np.ndarray]
    n_tasks: int
    n_running: np.ndarray
    smoothed: np.ndarray
    window: int
    first_level: float
    final_level: float
    adapted_at: int | None
    unit: str = "tasks"

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each step and name: step (from 1), name, mean, low, high, and n, the number of running
            episodes. A single one has no interval: low and high are NaN
        """
        steps = np.arange(1, len(self.smoothed) + 1)
        frames = [
            pd.DataFrame({"step": steps, "name": name, "mean": mean, "low": low, "high": high, "n": self.n_running})
            for (name, mean), (low, high) in zip(self.means.items(), self.intervals.values(), strict=True)
        ]
        return pd.concat(frames, ignore_index=True)


def online_adaptation(result: AdaptationResult, window: int = 11) -> OnlineAdaptation:
    """
    Measure how fast an agent adapts in the first episode.

    :param result: Evaluation of any agent, with the numbers of ``info`` to include, for example ``"x_velocity"``
    :param window: Number of steps of the moving average (fewer at the ends), odd; 11 steps are about one stride of a
        running HalfCheetah
    :return: Mean reward and numbers at each step of the first episode, and the step at which the agent has adapted
    :raises ValueError: if ``window`` is even or below 1
    :raises TypeError: if ``result`` has the wrong type
    """
    check_instance("result", result, AdaptationResult, "an AdaptationResult")
    if check_positive_int("window", window) % 2 == 0:
        raise ValueError(f"`window` must be odd, got {window}")
    series = {name: values[:, 0] for name, values in {"reward": result.rewards, **result.infos}.items()}
    horizon = int(result.lengths[:, 0].max())
    means, intervals = {}, {}
    for name, values in series.items():
        steps = [column[~np.isnan(column)] for column in values[:, :horizon].T]
        means[name] = np.array([step.mean() for step in steps])
        intervals[name] = np.transpose([bootstrap_interval(step, 0.95, result.seed) for step in steps])
    smoothed = smooth(means["reward"], window)
    first_level = float(means["reward"][0])
    final_level = float(means["reward"][-max(1, horizon // 4) :].mean())
    return OnlineAdaptation(
        means=means,
        intervals=intervals,
        n_tasks=len(result.tasks),
        n_running=(~np.isnan(result.rewards[:, 0, :horizon])).sum(axis=0),
        smoothed=smoothed,
        window=window,
        first_level=first_level,
        final_level=final_level,
        adapted_at=adaptation_step(smoothed, first_level, final_level),
        unit=result.unit,
    )


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean over the ``window`` (odd) steps around each step, (H,), over fewer steps at both ends."""
    half = window // 2
    return np.array([values[max(0, step - half) : step + half + 1].mean() for step in range(len(values))])


def adaptation_step(smoothed: np.ndarray, first_level: float, final_level: float) -> int | None:
    """Return :attr:`OnlineAdaptation.adapted_at`, given the smoothed reward at each step, (H,)."""
    if final_level <= first_level:
        return None
    below = np.flatnonzero(smoothed < final_level - 0.05 * (final_level - first_level))
    if len(below) == 0:
        return 1
    last = int(below[-1])
    return None if last == len(smoothed) - 1 else last + 2  # the next step, counted from 1


def plot_online_adaptation(
    result: OnlineAdaptation,
    path: str | Path,
    title: str = "Online adaptation",
    targets: dict[str, float] | None = None,
) -> None:
    """
    Draw reward and numbers of ``info`` at each step of the first episode.

    :param result: Result of :func:`online_adaptation`
    :param path: Image file to write
    :param title: Its title
    :param targets: Levels to draw as dotted lines, by name, for example the mean target velocity of the tasks
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, OnlineAdaptation, "an OnlineAdaptation")
    check_picture(path)
    check_keywords("targets", targets)
    figure = Figure(figsize=(7, 2.6 * len(result.means) + 0.6), layout="constrained")
    rows = figure.subplots(len(result.means), 1, sharex=True, squeeze=False)[:, 0]
    steps = np.arange(1, len(result.smoothed) + 1)
    for axes, (name, mean) in zip(rows, result.means.items(), strict=True):
        label, band = f"mean of {result.n_tasks} {result.unit}", f"95 % interval over {result.unit}"
        if result.n_running[-1] < result.n_tasks:
            label = f"mean of the running episodes ({result.n_tasks} at step 1, {result.n_running[-1]} at the end)"
        draw_band(axes, steps, mean, result.intervals[name], COLOURS[0], band, label=label)
        if targets is not None and name in targets:
            label = f"mean target, {task_label(targets[name], _UNITS.get(name, ''))}"
            axes.axhline(targets[name], color="black", linestyle=":", label=label)
        axes.set_ylabel("reward per step" if name == "reward" else _label(name))
        axes.grid(alpha=0.3)
    _draw_adaptation(rows[0], result)
    for axes in rows:
        axes.legend(fontsize="small", loc="lower right")
    rows[-1].set_xlabel("step of the first episode")
    rows[-1].xaxis.get_major_locator().set_params(integer=True)
    finish(figure, path, title)


def _label(name: str) -> str:
    """Return the label of an axis."""
    return _NAMES.get(name, name) + (f" ({_UNITS[name]})" if name in _UNITS else "")


def _draw_adaptation(axes: Axes, result: OnlineAdaptation) -> None:
    """Draw the final level and the step of adaptation."""
    label = f"final level {result.final_level:.2f}, mean of the last quarter"
    axes.axhline(result.final_level, color=COLOURS[2], linestyle="--", label=label)
    if result.adapted_at is not None:
        label = f"within 5 % of it from step {result.adapted_at} on, smoothed over {result.window} steps"
        axes.axvline(result.adapted_at, color=COLOURS[1], label=label)


def plot_targets(
    result: AdaptationResult, name: str, path: str | Path, title: str = "Online adaptation", n_shown: int = 5
) -> None:
    """Draw how a number of ``info`` approaches the target, the task, in the first episode of some tasks."""
    check_instance("result", result, AdaptationResult, "an AdaptationResult")
    check_picture(path)
    check_option("name", name, result.infos)
    check_positive_int("n_shown", n_shown)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    values = result.infos[name][:, 0]
    order = np.argsort(result.tasks)
    shown = np.unique(order[np.linspace(0, len(order) - 1, n_shown).round().astype(int)])  # lowest to highest target
    from_highest = sorted(shown, key=lambda task: -float(result.tasks[task]))  # the order of the lines in the plot
    for index, colour in zip(from_highest, COLOURS, strict=False):
        steps = values[index][~np.isnan(values[index])]
        target = float(result.tasks[index])
        label = f"target {task_label(target, _UNITS.get(name, ''))}"
        axes.plot(np.arange(1, len(steps) + 1), smooth(steps, 11), color=colour, label=label)
        axes.axhline(target, color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="step of the first episode", ylabel=f"{_label(name)}, mean of 11 steps")
    axes.autoscale_view()  # with a margin below the lowest target too
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    finish(figure, path, title)
