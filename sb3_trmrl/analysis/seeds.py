"""Pictures of agents with several seeds: the paper's figures 4 (training), 5 and 6 (adaptation) and 9 (steps)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_trmrl.analysis.comparison import Group, interquartile_mean
from sb3_trmrl.analysis.figures import (
    COLOURS,
    check_named,
    check_picture,
    count_episodes,
    count_steps,
    draw_band,
    finish,
)
from sb3_trmrl.analysis.online import smooth

#: Number of steps to smooth rewards over, odd
_WINDOW = 11
_ABOUT = "interquartile mean and 95 % bootstrap interval over seeds"


def plot_training(groups: Mapping[str, Group], timed: Mapping[str, Group], path: str | Path, title: str) -> None:
    """
    Draw learning curves at equal steps and at equal time, and success if it is known.

    :param groups: Runs by the name of the agent
    :param timed: The same with minutes of training in place of environment steps; agents without times are left out
    :param path: Image file to write
    :param title: Its title
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if ``groups`` is empty, or no image can be written to ``path``
    """
    check_named("groups", groups, Group)
    check_picture(path)
    panels = [("return per episode", groups, False), ("return per episode", timed, False)]
    if any(group.success_curves is not None for group in groups.values()):
        panels += [("success rate", groups, True), ("success rate", timed, True)]
    figure = Figure(figsize=(9, 4 * len(panels) // 2), layout="constrained")
    grid = figure.subplots(len(panels) // 2, 2, squeeze=False, sharey="row")
    for axes, (label, shown, is_success) in zip(grid.ravel(), panels, strict=True):
        for (name, group), colour in zip(shown.items(), cycle(COLOURS), strict=False):
            curves = group.success_curves if is_success else group.curves
            if curves is not None and len(group.timesteps):
                draw_band(axes, group.timesteps, *interquartile_mean(curves), colour, label=_label(name, group))
        axes.set(ylabel=f"{label}, validation tasks")
        if shown is timed:
            axes.set_xlabel("minutes of training, without evaluations")
        else:
            count_steps(axes)
    _finish(figure, grid[0, 0], path, f"{title}: training")


def plot_testing(groups: Mapping[str, Group], path: str | Path, title: str, which: str = "selected") -> None:
    """
    Draw the return of each episode of the test trials, and the reward of their steps.

    :param groups: Runs by the name of the agent
    :param path: Image file to write
    :param title: Its title
    :param which: Evaluation to draw, one of the keys of ``results``
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if ``groups`` is empty, or no image can be written to ``path``
    """
    check_named("groups", groups, Group)
    check_picture(path)
    figure = Figure(figsize=(9, 4), layout="constrained")
    by_episode, by_step = figure.subplots(1, 2)
    for (name, group), colour in zip(groups.items(), cycle(COLOURS), strict=False):
        returns = group.returns(which)
        episodes = np.arange(1, returns.shape[2] + 1)
        label = _label(name, group)
        estimates = interquartile_mean(returns.mean(axis=1))
        draw_band(by_episode, episodes, *estimates, colour, label=label, marker="o", markersize=4)
        rewards = np.stack([_reward_by_step(result.rewards) for result in group.results[which]])
        draw_band(by_step, np.arange(1, rewards.shape[1] + 1), *interquartile_mean(rewards), colour)
    split = next(iter(groups.values())).results[which][0].split
    by_episode.set(ylabel=f"return of the episode, {split} tasks")
    count_episodes(by_episode)
    by_step.set(ylabel=f"reward of the step, {split} tasks", xlabel="step of the trial")
    _finish(figure, by_episode, path, f"{title}: adaptation")


def _reward_by_step(rewards: np.ndarray) -> np.ndarray:
    """Return the mean reward of each step of a trial, given (T, E, H). Steps after the end of an episode count as 0."""
    return smooth(np.nan_to_num(rewards).mean(axis=0).ravel(), _WINDOW)


def _label(name: str, group: Group) -> str:
    return f"{name} ({len(group.curves)} seed{'s' if len(group.curves) > 1 else ''})"


def _finish(figure: Figure, first: Axes, path: str | Path, title: str) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    finish(figure, path, f"{title}\n{_ABOUT}", fontsize="medium")
