"""Learning curves: returns and success rates during training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import COLOURS, check_picture, count_steps, draw_band, finish
from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval


@dataclass(frozen=True)
class LearningCurve:
    """Returns of a run during training."""

    #: environment steps at the end of each training trial, and its mean return per episode, (2, trials)
    training: np.ndarray
    timesteps: np.ndarray  # environment steps of the evaluations, (K,)
    returns: np.ndarray  # mean return per episode of each of their trials, (K, n)
    successes: np.ndarray | None = None  # (K, n, episodes), None if unknown
    episodes: int = 1  # number of episodes in a trial
    held_out: bool = False  # whether evaluations use held-out tasks


def plot_learning_curve(curve: LearningCurve, levels: Mapping[str, float], path: str | Path, title: str) -> None:
    """Draw returns, horizontal levels by label, and success rates in a second panel if they are known."""
    # Bands are 95 % bootstrap intervals over evaluation tasks
    check_instance("curve", curve, LearningCurve, "a LearningCurve")
    check_picture(path)
    n_panels = 1 if curve.successes is None else 2
    figure = Figure(figsize=(8 if n_panels == 1 else 12, 5), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    _draw_returns(panels[0], curve, levels)
    if curve.successes is not None:
        _draw_successes(panels[1], curve.timesteps, curve.successes)
    for axes in panels:
        count_steps(axes)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    finish(figure, path, title)


def _draw_returns(axes: Axes, curve: LearningCurve, levels: Mapping[str, float]) -> None:
    in_trials = curve.episodes > 1
    if curve.training.shape[1]:
        window = max(1, min(100, curve.training.shape[1] // 5))
        smooth = np.convolve(curve.training[1], np.full(window, 1 / window), mode="valid")
        label = f"training, stochastic actions (mean of {window} {'trials' if in_trials else 'episodes'})"
        axes.plot(curve.training[0, window - 1 :], smooth, color="0.65", label=label)
    if len(curve.timesteps):
        n_tasks = curve.returns.shape[1]
        subject = f"{n_tasks} validation tasks" if curve.held_out else f"evaluation, {n_tasks} episodes"
        _draw_with_interval(axes, curve.timesteps, curve.returns, f"{subject}, deterministic actions", COLOURS[0])
    for (label, level), colour in zip(levels.items(), COLOURS[1:], strict=False):
        axes.axhline(level, linestyle="--", color=colour, label=label)
    axes.set_ylabel(
        "return per episode" + (f" (mean over the {curve.episodes} episodes of a trial)" if in_trials else "")
    )


def _draw_successes(axes: Axes, timesteps: np.ndarray, successes: np.ndarray) -> None:
    n_episodes = successes.shape[2]
    for index, colour, style in zip(sorted({0, n_episodes - 1}), COLOURS, ("-", "--"), strict=False):
        label = f"episode {index + 1} of the trial"
        _draw_with_interval(axes, timesteps, successes[:, :, index], label, colour, linestyle=style)
    axes.set(ylabel=f"share of {successes.shape[1]} validation tasks with success", ylim=(-0.02, 1.02))


def _draw_with_interval(
    axes: Axes, timesteps: np.ndarray, values: np.ndarray, label: str, colour: str, **line: Any
) -> None:
    interval = bootstrap_interval(values.T.astype(np.float64)).T
    label = f"{label} (95 % interval)"
    draw_band(axes, timesteps, values.mean(axis=1), interval, colour, label=label, marker="o", markersize=3, **line)
