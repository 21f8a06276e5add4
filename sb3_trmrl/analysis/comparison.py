"""
Several agents side by side, with intervals over training seeds (rliable, Agarwal et al. 2021).

A run is one unit: its test tasks share its weights, so tasks are averaged before runs are resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rliable import library, metrics

from sb3_trmrl.analysis.colours import COLOURS
from sb3_trmrl.common.adaptation_result import AdaptationResult

#: Resamples of the bootstrap
_N_RESAMPLES = 5_000


@dataclass(frozen=True)
class Group:
    """
    Runs of one agent that differ in their seed only.

    :param timesteps: Steps of the evaluations during training, (K,)
    :param curves: Mean return per episode at each of them on validation tasks, (runs, K)
    :param results: Evaluations of each run by what they are of: ``"selected"`` and ``"last"`` model with the likeliest
        actions, ``"selected, sampled"`` and ``"last, sampled"``
    """

    timesteps: np.ndarray
    curves: np.ndarray
    results: dict[str, list[AdaptationResult]]

    def returns(self, which: str = "selected") -> np.ndarray:
        """
        :param which: One of the keys of ``results``
        :return: (runs, tasks, episodes)
        """
        return np.stack([result.returns for result in self.results[which]])

    def areas(self) -> np.ndarray:
        """
        :return: Area under each run's learning curve over its length, so a mean return, (runs,)
        """
        steps = self.timesteps
        if len(steps) < 2:
            return self.curves.mean(axis=1)
        widths = np.diff(steps)
        return ((self.curves[:, 1:] + self.curves[:, :-1]) / 2 * widths).sum(axis=1) / (steps[-1] - steps[0])


def interquartile_mean(scores: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    :param scores: One row for each run, (runs, ...)
    :param seed: Seed of the bootstrap
    :return: Interquartile mean over runs, (...), and its 95 % percentile bootstrap interval, (2, ...), NaN for a single
        run
    """
    flat = scores.reshape(len(scores), -1)

    def estimate(x: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(x[:, :, k]) for k in range(x.shape[2])])

    if len(scores) < 2:
        return scores[0], np.full((2, *scores.shape[1:]), np.nan)
    points, intervals = library.get_interval_estimates(
        {"": flat[:, None]}, estimate, reps=_N_RESAMPLES, random_state=np.random.RandomState(seed)
    )
    return points[""].reshape(scores.shape[1:]), intervals[""].reshape(2, *scores.shape[1:])


def share_of_gap(
    agent: np.ndarray, lower: np.ndarray, upper: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """
    How much of the way from a lower reference to an upper one an agent has come: (agent - lower) / (upper - lower).

    :param agent: Returns, (runs, tasks)
    :param lower: Likewise, of the lower reference on the same tasks
    :param upper: Likewise, of the upper reference
    :param seed: Seed of the bootstrap
    :return: The share, and the 95 % interval of the whole ratio: runs of each are resampled, and tasks of all together
    :raises ValueError: if the tasks are not the same number
    """
    groups = (agent, lower, upper)
    if len({group.shape[1] for group in groups}) != 1:
        raise ValueError(f"all agents need the same tasks, got {[group.shape[1] for group in groups]} of them")
    rng = np.random.default_rng(seed)
    n_tasks = agent.shape[1]
    tasks = rng.integers(n_tasks, size=(_N_RESAMPLES, n_tasks))
    means = []
    for group in groups:
        runs = rng.integers(len(group), size=(_N_RESAMPLES, len(group)))
        means.append(group[runs[:, :, None], tasks[:, None]].mean(axis=(1, 2)))
    with np.errstate(divide="ignore", invalid="ignore"):  # where a resample leaves no gap
        shares = (means[0] - means[1]) / (means[2] - means[1])
    point = (agent.mean() - lower.mean()) / (upper.mean() - lower.mean())
    low, high = np.percentile(shares[np.isfinite(shares)], (2.5, 97.5))
    return float(point), (float(low), float(high))


def plot_comparison(groups: Mapping[str, Group], path: str | Path, title: str) -> None:
    """
    Learning curves, adaptation curves and performance profiles, bands over seeds.

    :param groups: Runs by the agent's name
    :param path: Picture to write
    :param title: Its title
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    learning, adaptation, profile = figure.subplots(1, 3)
    all_returns = np.concatenate([group.returns()[:, :, -1].ravel() for group in groups.values()])
    thresholds = np.linspace(all_returns.min(), all_returns.max(), 101)
    for (name, group), colour in zip(groups.items(), COLOURS, strict=False):
        label = f"{name} ({len(group.curves)} seed{'s' if len(group.curves) > 1 else ''})"

        def draw(axes, x: np.ndarray, y: np.ndarray, style: str = "-", *, label=label, colour=colour) -> None:  # type: ignore[no-untyped-def]
            middle, interval = interquartile_mean(y)
            axes.plot(x, middle, style, color=colour, label=label, markersize=4)
            axes.fill_between(x, *interval, color=colour, alpha=0.2, linewidth=0)

        draw(learning, group.timesteps, group.curves)
        returns = group.returns()
        draw(adaptation, np.arange(1, returns.shape[2] + 1), returns.mean(axis=1), "o-")
        draw(profile, thresholds, (returns[:, :, -1, None] > thresholds).mean(axis=1))
    learning.set(xlabel="environment steps", ylabel="return per episode, validation tasks", title="learning")
    adaptation.set(xlabel="episode of the trial", ylabel="return, test tasks", title="adaptation")
    adaptation.xaxis.set_major_locator(MaxNLocator(integer=True))
    profile.set(xlabel="return of the last episode", ylabel="share of test tasks above", title="performance profile")
    for axes in (learning, adaptation, profile):
        axes.grid(alpha=0.3)
    learning.legend(fontsize="small")
    figure.suptitle(f"{title}: interquartile mean and 95 % bootstrap interval over seeds", fontsize="medium")
    figure.savefig(path, dpi=150)


#: What the comparison's table holds: heading, and the numbers of each run
COLUMNS: dict[str, Callable[[Group], np.ndarray]] = {
    "first episode": lambda group: group.returns()[:, :, 0].mean(axis=1),
    "last episode": lambda group: group.returns()[:, :, -1].mean(axis=1),
    "last episode, sampled": lambda group: group.returns("selected, sampled")[:, :, -1].mean(axis=1),
    "last episode, last model": lambda group: group.returns("last")[:, :, -1].mean(axis=1),
    "last episode, last model, sampled": lambda group: group.returns("last, sampled")[:, :, -1].mean(axis=1),
    "area under learning curve": Group.areas,
}
