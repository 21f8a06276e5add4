"""Returns, and successes where there are any, while a run trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_trmrl.analysis.colours import COLOURS
from sb3_trmrl.analysis.figures import check_picture
from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval


@dataclass(frozen=True)
class LearningCurve:
    """
    What is known of a run.

    :param training: Steps at the end of each training trial and its mean return per episode, (2, trials)
    :param timesteps: Steps of the evaluations during training, (K,)
    :param returns: Mean return per episode of each of their trials, (K, n)
    :param successes: Whether there was success in each episode of these trials, (K, n, episodes), if the environment
        tells
    :param episodes: Episodes of a trial
    :param held_out: Whether evaluations are on held-out tasks
    """

    training: np.ndarray
    timesteps: np.ndarray
    returns: np.ndarray
    successes: np.ndarray | None = None
    episodes: int = 1
    held_out: bool = False


def plot_learning_curve(curve: LearningCurve, levels: Mapping[str, float], path: str | Path, title: str) -> None:
    """
    Training and evaluation returns, and a second panel with success rates where there are any. Bands are 95 %
    bootstrap intervals over evaluation tasks.

    :param curve: What is to be drawn
    :param levels: Horizontal lines by their label
    :param path: Picture to write
    :param title: Its title
    :raises TypeError: if ``curve`` or ``path`` is something else
    :raises ValueError: if no picture can be written there
    """
    check_instance("curve", curve, LearningCurve, "a LearningCurve")
    check_picture(path)
    n_panels = 1 if curve.successes is None else 2
    figure = Figure(figsize=(8 if n_panels == 1 else 12, 5), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    _draw_returns(panels[0], curve, levels)
    if curve.successes is not None:
        _draw_successes(panels[1], curve.timesteps, curve.successes)
    for axes in panels:
        axes.set_xlabel("environment steps")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def _draw_returns(axes: Axes, curve: LearningCurve, levels: Mapping[str, float]) -> None:
    in_trials = curve.episodes > 1
    if curve.training.shape[1]:
        window = max(1, min(100, curve.training.shape[1] // 5))
        smooth = np.convolve(curve.training[1], np.full(window, 1 / window), mode="valid")
        label = f"training, sampled actions (mean of {window} {'trials' if in_trials else 'episodes'})"
        axes.plot(curve.training[0, window - 1 :], smooth, color="0.65", label=label)
    if len(curve.timesteps):
        n_tasks = curve.returns.shape[1]
        subject = f"{n_tasks} validation tasks" if curve.held_out else f"evaluation, {n_tasks} episodes"
        _draw_with_interval(axes, curve.timesteps, curve.returns, f"{subject}, likeliest actions", COLOURS[0])
    for (label, level), colour in zip(levels.items(), COLOURS[1:], strict=False):
        axes.axhline(level, linestyle="--", color=colour, label=label)
    axes.set_ylabel("return per episode" + (f" (mean over the {curve.episodes} of a trial)" if in_trials else ""))


def _draw_successes(axes: Axes, timesteps: np.ndarray, successes: np.ndarray) -> None:
    n_episodes = successes.shape[2]
    for index, colour in zip(sorted({0, n_episodes - 1}), COLOURS, strict=False):
        _draw_with_interval(axes, timesteps, successes[:, :, index], f"episode {index + 1} of the trial", colour)
    axes.set(ylabel=f"share of {successes.shape[1]} validation tasks with success", ylim=(-0.02, 1.02))


def _draw_with_interval(axes: Axes, timesteps: np.ndarray, values: np.ndarray, label: str, colour: str) -> None:
    axes.plot(timesteps, values.mean(axis=1), "o-", markersize=3, color=colour, label=f"{label} (95 % interval)")
    low, high = bootstrap_interval(values.T.astype(np.float64)).T
    axes.fill_between(timesteps, low, high, color=colour, alpha=0.2, linewidth=0)
