"""Return in each episode of a trial: the paper's figures 5 and 6 at meta-test time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import COLOURS, check_named, check_picture, count_episodes, draw_means, finish
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult


def plot_adaptation(results: Mapping[str, AdaptationResult], path: str | Path) -> None:
    """Draw each episode's mean return with its 95 % bootstrap interval over tasks, and each task as a thin line."""
    check_named("results", results, AdaptationResult)
    check_picture(path)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, result), colour in zip(results.items(), cycle(COLOURS), strict=False):
        episodes = np.arange(1, result.returns.shape[1] + 1)
        alpha = min(0.15, 4 / len(result.tasks))  # the lines of many tasks must not hide the means
        axes.plot(episodes, result.returns.T, color=colour, alpha=alpha, linewidth=0.8)
        label = f"{name}: mean of {len(result.tasks)} tasks, 95 % interval over tasks"
        interval = result.interval().T
        draw_means(axes, episodes, result.mean_returns, *interval, fmt="o-", color=colour, capsize=4, label=label)
    axes.set_ylabel("return of the episode")
    count_episodes(axes)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    finish(figure, path)
