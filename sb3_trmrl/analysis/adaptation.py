"""Return by episode of a trial: the paper's figures 5 and 6 at meta-test time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sb3_trmrl.analysis.colours import COLOURS
from sb3_trmrl.analysis.figures import check_named, check_picture
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult


def plot_adaptation(results: Mapping[str, AdaptationResult], path: str | Path) -> None:
    """
    Mean return of each episode with its 95 % bootstrap interval over tasks, and each task as a thin line.

    :param results: Evaluations by the name to show
    :param path: Picture to write
    :raises TypeError: if ``results`` or ``path`` is something else
    :raises ValueError: if there is nothing to draw, or no picture can be written there
    """
    check_named("results", results, AdaptationResult)
    check_picture(path)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, result), colour in zip(results.items(), cycle(COLOURS), strict=False):
        episodes = np.arange(1, result.returns.shape[1] + 1)
        alpha = min(0.15, 4 / len(result.tasks))  # the lines of many tasks must not hide the means
        axes.plot(episodes, result.returns.T, color=colour, alpha=alpha, linewidth=0.8)
        low, high = result.interval().T
        errors = (result.mean_returns - low, high - result.mean_returns)
        label = f"{name}: mean of {len(result.tasks)} tasks, 95 % interval over tasks"
        axes.errorbar(episodes, result.mean_returns, errors, fmt="o-", color=colour, capsize=4, label=label)
    axes.set(xlabel="episode of the trial", ylabel="return of the episode")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=150)
