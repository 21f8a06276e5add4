"""
Comparison of several agents with intervals over training seeds (rliable, Agarwal et al. 2021).

The unit of the bootstrap is a run. All test tasks of a run share its weights, so tasks are averaged before runs are
resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rliable import library
from scipy.integrate import trapezoid

from sb3_trmrl.analysis.figures import (
    check_named,
    check_picture,
    count_episodes,
    count_steps,
    draw_band,
    finish,
    line_styles,
)
from sb3_trmrl.common.checks import check_instance, check_int
from sb3_trmrl.evaluation.adaptation_result import AdaptationResult

#: Number of bootstrap resamples
_N_RESAMPLES = 2_000


@dataclass(frozen=True)
class Group:
    """
    Runs of one agent that differ only in their seed.

    :param timesteps: Environment steps of the evaluations during training, (K,); none if the learning curves are
        unknown, as for exported agents
    :param curves: Mean return per episode on validation tasks at each of ``timesteps``, (runs, K)
    :param results: Evaluations of the runs after training, by model: ``"selected"`` and ``"last"`` with deterministic
        actions, ``"selected, sampled"`` and ``"last, sampled"`` with stochastic ones. Runs without such a model are
        left out
    :param success_curves: Success rate at each of ``timesteps``, (runs, K); None if the environment does not report
        success
    """

    timesteps: np.ndarray
    curves: np.ndarray
    results: dict[str, list[AdaptationResult]]
    success_curves: np.ndarray | None = None

    def returns(self, which: str = "selected") -> np.ndarray:
        """
        :param which: One of the keys of ``results``
        :return: (runs, tasks, episodes)
        """
        return np.stack([result.returns for result in self.results[which]])

    def mean_returns(self, episode: int, which: str = "selected") -> np.ndarray | None:
        """
        :param episode: Index of the episode
        :param which: One of the keys of ``results``
        :return: Mean of each run over tasks, (runs,); None if some runs do not have this evaluation
        """
        known = len(self.results.get(which, ())) == len(self.curves)
        return self.returns(which)[:, :, episode].mean(axis=1) if known else None

    def success_rates(self, episode: int) -> np.ndarray | None:
        """
        :param episode: Index of the episode
        :return: Success rate of each run's selected model, (runs,); None if the environment does not report success.
            Some environments report it only in a success: a run without any has rate 0 if others have one
        """
        rates = [result.success_rates for result in self.results["selected"]]
        known = any(rate is not None for rate in rates)
        return np.array([0.0 if rate is None else rate[episode] for rate in rates]) if known else None

    def between(self, first: float, last: float) -> Group:
        """
        Cut the learning curves.

        :param first: First environment step, within those of the group
        :param last: Last environment step, within those of the group
        :return: The same runs with learning curves from ``first`` to ``last``, interpolated at both
        """
        inner = self.timesteps[(self.timesteps > first) & (self.timesteps < last)]
        return self.at(np.unique([first, *inner, last]))

    def at(self, steps: np.ndarray) -> Group:
        """
        :param steps: Environment steps within those of the group, (K',)
        :return: The same runs with learning curves interpolated at ``steps``
        """

        def interpolated(curves: np.ndarray) -> np.ndarray:
            return np.stack([np.interp(steps, self.timesteps, curve) for curve in curves])

        success = None if self.success_curves is None else interpolated(self.success_curves)
        return replace(self, timesteps=steps, curves=interpolated(self.curves), success_curves=success)

    def areas(self) -> np.ndarray | None:
        """
        :return: Area under each run's learning curve divided by its length, which is a mean return, (runs,); None if
            the learning curves are unknown
        """
        steps = self.timesteps
        if not len(steps):
            return None
        if len(steps) < 2:
            means: np.ndarray = self.curves.mean(axis=1)
            return means
        areas: np.ndarray = trapezoid(self.curves, steps) / (steps[-1] - steps[0])
        return areas


def common_steps(groups: Iterable[Group]) -> tuple[float, float]:
    """Return the first and last environment step of the part of training that all learning curves cover."""
    steps = [check_instance("groups", group, Group, "Groups").timesteps for group in groups]
    if not steps:
        raise ValueError("`groups` must hold at least one Group, got none")
    first, last = max(each[0] for each in steps), min(each[-1] for each in steps)
    if first > last:
        raise ValueError(
            f"no part of training is common to all learning curves: one starts at {first}, one ends at {last}"
        )
    return first, last


def interquartile_mean(scores: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the interquartile mean over runs with a bootstrap interval.

    :param scores: One row for each run, (runs, ...)
    :param seed: Seed of the bootstrap
    :return: Interquartile mean over runs, (...), and its 95 % percentile bootstrap interval, (2, ...), NaN for a single
        run
    """
    return _over_runs(scores, _middle_half, seed)


def _middle_half(scores: np.ndarray, axis: int) -> np.ndarray:
    """Return ``scipy.stats.trim_mean(scores, 0.25)``, whose checks take most of the time of a bootstrap."""
    cut = len(scores) // 4
    inner = np.partition(scores, (cut, len(scores) - cut - 1), axis)[cut : len(scores) - cut]
    return np.where(np.isnan(scores).any(axis), np.nan, inner.mean(axis))


def share_above(returns: np.ndarray, thresholds: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the performance profile. Unlike an interquartile mean, it includes runs that fail.

    :param returns: (runs, tasks)
    :param thresholds: (K,)
    :param seed: Seed of the bootstrap
    :return: Share of all runs and tasks with a return above each threshold, (K,), and its 95 % percentile bootstrap
        interval over runs, (2, K), NaN for a single run
    """
    return _over_runs((returns[:, :, None] > thresholds).mean(axis=1), np.mean, seed)


def _over_runs(scores: np.ndarray, statistic: Callable[..., Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a statistic over the first axis, (...), and its bootstrap interval, (2, ...)."""
    check_int("seed", seed)
    shape = scores.shape[1:]
    if len(scores) < 2:
        return np.asarray(statistic(scores, axis=0)), np.full((2, *shape), np.nan)
    with _numpy_seeded(seed):
        values, intervals = library.get_interval_estimates(
            {"": scores.reshape(len(scores), 1, -1)}, lambda x: statistic(x[:, 0], axis=0), reps=_N_RESAMPLES
        )
    return values[""].reshape(shape), intervals[""].reshape(2, *shape)


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    # rliable 1.2 draws from NumPy's global generator and ignores random_state
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def share_of_gap(
    agent: np.ndarray, lower: np.ndarray, upper: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """
    Compute the share of the gap between two reference agents that an agent closes:
    (agent - lower) / (upper - lower).

    :param agent: Returns, (runs, tasks)
    :param lower: Returns of the lower reference on the same tasks, for example of an agent without task information
    :param upper: Returns of the upper reference on the same tasks, for example of a task-conditioned oracle
    :param seed: Seed of the bootstrap
    :return: The share, from means over runs and tasks, and the 95 % interval of the whole ratio; NaN if there is no
        gap. The bootstrap resamples the runs of each agent, and tasks for all agents together
    :raises ValueError: if the numbers of tasks differ
    """
    groups = (agent, lower, upper)
    if len({group.shape[1] for group in groups}) != 1:
        raise ValueError(f"all agents need the same tasks, got {[group.shape[1] for group in groups]} tasks")
    rng = np.random.default_rng(check_int("seed", seed))
    n_tasks = agent.shape[1]
    tasks = rng.integers(n_tasks, size=(_N_RESAMPLES, n_tasks))
    means = []
    for group in groups:
        runs = rng.integers(len(group), size=(_N_RESAMPLES, len(group)))
        means.append(group[runs[:, :, None], tasks[:, None]].mean(axis=(1, 2)))
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples without a gap
        shares = (means[0] - means[1]) / (means[2] - means[1])
        point = (agent.mean() - lower.mean()) / (upper.mean() - lower.mean())
    finite = shares[np.isfinite(shares)]
    low, high = np.percentile(finite, (2.5, 97.5)) if len(finite) else (np.nan, np.nan)
    return float(point) + 0.0, (float(low), float(high))  # no -0.0


def plot_comparison(groups: Mapping[str, Group], path: str | Path, title: str, split: str = "test") -> None:
    """
    Draw learning curves, adaptation curves and performance profiles, and success during training if it is known. Bands
    are 95 % bootstrap intervals over seeds. Axes of returns include 0, and learning and adaptation share one, so that
    small differences look small.

    :param groups: Runs by the name of the agent
    :param path: Image file to write
    :param title: Its title
    :param split: Split of the tasks after training
    :raises TypeError: if ``groups`` or ``path`` has the wrong type
    :raises ValueError: if ``groups`` is empty, or no image can be written to ``path``
    """
    check_named("groups", groups, Group)
    check_picture(path)
    shows_success = any(group.success_curves is not None for group in groups.values())
    n_panels = 4 if shows_success else 3
    figure = Figure(figsize=(3.4 * n_panels, 4), layout="constrained")
    learning, adaptation, profile, *further = figure.subplots(1, n_panels)
    all_returns = np.concatenate([group.returns()[:, :, -1].ravel() for group in groups.values()])
    thresholds = np.linspace(min(0, all_returns.min()), max(0, all_returns.max()), 101)
    styles = line_styles(groups)
    for name, group in groups.items():
        style, returns = styles[name], group.returns()
        episodes = np.arange(1, returns.shape[2] + 1)
        label = f"{name} ({len(group.curves)} seed{'s' if len(group.curves) > 1 else ''})"
        has_curve = len(group.timesteps) > 0
        middle, interval = interquartile_mean(group.curves) if has_curve else (np.zeros(0), np.zeros((2, 0)))
        draw_band(learning, group.timesteps, middle, interval, **style, label=label)
        adapted = interquartile_mean(returns.mean(axis=1))
        draw_band(adaptation, episodes, *adapted, **style, marker="o", markersize=4)
        draw_band(profile, thresholds, *share_above(returns[:, :, -1], thresholds), **style)
        if group.success_curves is not None:
            draw_band(further[0], group.timesteps, *interquartile_mean(group.success_curves), **style)
    adaptation.sharey(learning)
    unit = next(iter(groups.values())).results["selected"][0].unit
    subject, validation = (f"{split} tasks", "validation tasks") if unit == "tasks" else (unit, unit)
    learning.set(ylabel="return per episode", title=f"learning, {validation}")
    adaptation.set(ylabel="return of the episode", title=f"adaptation, {subject}")
    count_episodes(adaptation)
    profile.set(xlabel="return of the last episode", ylabel=f"share of seeds and {unit} above")
    profile.set(title=f"profile, {subject}", ylim=(-0.02, 1.02))
    for axes in further:
        axes.set(ylabel="success rate", title=f"success, {validation}", ylim=(-0.02, 1.02))
    for axes in (learning, *further):
        count_steps(axes)
    for axes in (learning, adaptation):
        axes.axhline(0, color="0.5", linewidth=0.8)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.legend(*learning.get_legend_handles_labels(), loc="outside lower center", ncols=min(5, len(groups)))
    about = "interquartile mean over seeds (profile: share of all), 95 % bootstrap interval over seeds"
    finish(figure, path, f"{title}\n{about}", fontsize="medium")


#: Numbers of runs: the heading, and a function that returns one for each run, None if unknown
Columns = Mapping[str, Callable[[Group], np.ndarray | None]]
#: Heading for the share of the gap between both references
SHARE = "share of gap"


def _is_success(heading: str) -> bool:
    """Return whether a column has success rates. Tasks of an experiment may have names such as "success zone"."""
    return heading.partition(",")[0] == "success"


def headings(estimate: str) -> tuple[str, str, str]:
    """Return the names of an estimate and of the ends of its interval."""
    return estimate, f"{estimate}, low", f"{estimate}, high"


def table_of(
    groups: Mapping[str, Group], columns: Columns, lower: str | None = None, oracle: str | None = None
) -> pd.DataFrame:
    """
    Estimate numbers of several agents.

    :param groups: Runs by the name of the agent
    :param columns: What to estimate; success rates are left out if no agent has any
    :param lower: Name of the agent without task information
    :param oracle: Name of the task-conditioned oracle. With both, the table has the share of the gap
    :return: A row for each agent: number of seeds, interquartile means and their intervals over seeds; NaN where
        unknown
    """
    reports_success = any(group.success_rates(0) is not None for group in groups.values())
    rows = {}
    for name, group in groups.items():
        row: dict[str, float] = {"seeds": len(group.curves)}
        shown = [heading for heading in columns if reports_success or not _is_success(heading)]
        scores = [columns[heading](group) for heading in shown]
        # As between the runs of an agent, one without any success failed
        unknown = [np.full(len(group.curves), 0.0 if _is_success(heading) else np.nan) for heading in shown]
        known = [missing if each is None else each for each, missing in zip(scores, unknown, strict=True)]
        # All at once, because a bootstrap takes half a second
        middle, ends = interquartile_mean(np.stack(known, axis=1))
        for heading, values in zip(shown, np.vstack([middle, ends]).T.tolist(), strict=True):
            row |= dict(zip(headings(heading), values, strict=True))
        if lower is not None and oracle is not None:
            agent, worst, best = (groups[each].returns()[:, :, -1] for each in (name, lower, oracle))
            share, interval = share_of_gap(agent, worst, best)
            if name in (lower, oracle):  # 0 or 1 in every resample
                interval = (np.nan, np.nan)
            row |= dict(zip(headings(SHARE), (share, *interval), strict=True))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def cell_text(estimate: str, row: pd.Series, between: str = " ") -> str:
    """Return an estimate of one agent and, after this text, its interval; "-" if it is unknown."""
    is_small = estimate == SHARE or abs(row[estimate]) < 10
    factor, digits = (100, 0) if _is_success(estimate) else (1, 2 if is_small else 1)
    middle, low, high = (f"{factor * row[name]:.{digits}f}" for name in headings(estimate))
    if middle == "nan":
        return "-"
    unit = " %" if factor == 100 else ""
    return f"{middle}{unit}" if low == "nan" else f"{middle}{unit}{between}({low} to {high})"


#: Rows of the table of ``compare``
COLUMNS: Columns = {
    "first episode": lambda group: group.mean_returns(0),
    "last episode": lambda group: group.mean_returns(-1),
    "last episode, sampled": lambda group: group.mean_returns(-1, "selected, sampled"),
    "last episode, last model": lambda group: group.mean_returns(-1, "last"),
    "last episode, last model, sampled": lambda group: group.mean_returns(-1, "last, sampled"),
    "success, first episode": lambda group: group.success_rates(0),
    "success, last episode": lambda group: group.success_rates(-1),
    "area under learning curve": Group.areas,
}
