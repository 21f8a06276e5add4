"""Pictures of agents with several seeds: the paper's figures 4 (training), 5 and 6 (adaptation) and 9 (steps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_trmrl.analysis.comparison import Group, interquartile_mean
from sb3_trmrl.analysis.figures import (
    check_named,
    check_picture,
    count_episodes,
    count_steps,
    draw_band,
    finish,
    line_styles,
    scale_budgets,
)
from sb3_trmrl.analysis.online import smooth

#: Number of steps to smooth rewards over, odd, in episodes of at least _LONG steps
_WINDOW, _LONG = 11, 100
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
    shows_success = any(group.success_curves is not None for group in groups.values())
    figure = Figure(figsize=(9, 8 if shows_success else 4), layout="constrained")
    grid = figure.subplots(2 if shows_success else 1, 2, squeeze=False, sharey="row")
    styles = line_styles(groups)
    for name, group in groups.items():
        by_time = timed.get(name)
        drawn = [
            (axes, shown.timesteps, curves)
            for column, shown in zip(grid.T, (group, by_time), strict=True)
            if shown is not None and len(shown.timesteps)
            for axes, curves in zip(column, (shown.curves, shown.success_curves), strict=False)
            if curves is not None
        ]
        estimates = _estimates([curves for *_, curves in drawn])
        for (axes, x, _), (middle, interval) in zip(drawn, estimates, strict=True):
            draw_band(axes, x, middle, interval, **styles[name], label=_label(name, group))
    for axes, label in zip(grid[:, 0], ("return per episode", "success rate"), strict=False):
        axes.set_ylabel(f"{label}{_of_tasks(groups, 'validation')}")
    for column, shown in zip(grid.T, (groups, timed), strict=True):
        ends = [group.timesteps[-1] for name, group in shown.items() if name in groups and len(group.timesteps)]
        for axes in column:
            scale_budgets(axes, ends)
    for axes in grid[:, 0]:
        count_steps(axes)
    for axes in grid[:, 1]:
        axes.set_xlabel("core-minutes of training, without evaluations")
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
    styles = line_styles(groups)
    results = [result for group in groups.values() for result in group.results[which]]
    # Each result is as long as its own longest episode, but a step of the trial is the same one for all agents
    horizon = max(result.rewards.shape[2] for result in results)
    for name, group in groups.items():
        returns = group.returns(which)
        episodes = np.arange(1, returns.shape[2] + 1)
        rewards = np.stack([_reward_by_step(result.rewards, horizon) for result in group.results[which]])
        of_episodes, of_steps = _estimates([returns.mean(axis=1), rewards])
        look = {**styles[name], "label": _label(name, group), "marker": "o", "markersize": 4}
        draw_band(by_episode, episodes, *of_episodes, **look)
        draw_band(by_step, np.arange(1, rewards.shape[1] + 1), *of_steps, **styles[name])
    of_tasks = _of_tasks(groups, results[0].split)
    by_episode.set(ylabel=f"return of the episode{of_tasks}")
    count_episodes(by_episode)
    smoothed = f"\nmean over {_WINDOW} steps" if horizon >= _LONG else ""
    ended = "\n(0 after an early end)" if any((each.lengths < horizon).any() for each in results) else ""
    by_step.set(ylabel=f"reward of the step{of_tasks}{smoothed}{ended}", xlabel="step of the trial")
    _finish(figure, by_episode, path, f"{title}: adaptation")


def _estimates(scores: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return interquartile means, (K,), and intervals, (2, K), for several scores of the same runs, (runs, K)."""
    # All at once, because a bootstrap takes half a second
    middle, interval = interquartile_mean(np.concatenate(scores, axis=1))
    ends = np.cumsum([each.shape[1] for each in scores])[:-1]
    return list(zip(np.split(middle, ends), np.split(interval, ends, axis=1), strict=True))


def _of_tasks(groups: Mapping[str, Group], split: str) -> str:
    """Return the end of a label that says which tasks were played, nothing for an environment without tasks."""
    results = (result for group in groups.values() for own in group.results.values() for result in own)
    return "" if any(result.unit == "episodes" for result in results) else f", {split} tasks"


def _reward_by_step(rewards: np.ndarray, horizon: int) -> np.ndarray:
    """
    Return the mean reward of each step of a trial, given (T, E, H), with ``horizon`` steps in each episode. Steps after
    the end of an episode count as 0.
    """
    means = np.pad(np.nan_to_num(rewards), ((0, 0), (0, 0), (0, horizon - rewards.shape[2]))).mean(axis=0)
    return np.concatenate([smooth(each, _WINDOW if len(each) >= _LONG else 1) for each in means])


def _label(name: str, group: Group) -> str:
    return f"{name} ({len(group.curves)} seed{'s' if len(group.curves) > 1 else ''})"


def _finish(figure: Figure, first: Axes, path: str | Path, title: str) -> None:
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    finish(figure, path, f"{title}\n{_ABOUT}", fontsize="medium")
