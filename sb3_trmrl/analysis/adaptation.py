"""Return in each episode of a trial: the paper's figures 5 and 6 at meta-test time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import check_named, check_picture, count_episodes, draw_means, finish, line_styles
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult

#: With more tasks, the lines of single tasks would hide the means
_MOST_LINES = 60


def plot_adaptation(results: Mapping[str, AdaptationResult], path: str | Path) -> None:
    """Draw each episode's mean return with its 95 % bootstrap interval over tasks, and a few tasks as thin lines."""
    check_named("results", results, AdaptationResult)
    check_picture(path)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    has_lines = sum(len(result.tasks) for result in results.values()) <= _MOST_LINES
    shifts = 0.04 * (np.arange(len(results)) - (len(results) - 1) / 2)  # intervals of several agents stand side by side
    for (name, result), shift, style in zip(results.items(), shifts, line_styles(results).values(), strict=True):
        episodes = np.arange(1, result.returns.shape[1] + 1) + shift
        if has_lines:
            axes.plot(episodes, result.returns.T, **style, alpha=0.2, linewidth=0.8)
        interval = result.interval().T
        draw_means(axes, episodes, result.mean_returns, *interval, **style, marker="o", capsize=4, label=name)
    axes.axhline(0, color="0.5", linewidth=0.8)  # small differences must look small
    axes.set_ylabel("return of the episode")
    count_episodes(axes)
    axes.grid(alpha=0.3)
    if any(name != result.env_id for name, result in results.items()):
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    finish(figure, path, _title(list(results.values()), has_lines), fontsize="medium")


def _title(results: Sequence[AdaptationResult], has_lines: bool) -> str:
    """Return what is drawn."""
    env_ids, splits, counts = (
        "/".join(dict.fromkeys(map(str, values)))
        for values in zip(*((result.env_id, result.split, len(result.tasks)) for result in results), strict=True)
    )
    title = f"{env_ids}: adaptation from episode to episode\nmean of {counts} {splits} tasks, 95 % interval over tasks"
    return f"{title}; thin lines: single tasks" if has_lines else title
