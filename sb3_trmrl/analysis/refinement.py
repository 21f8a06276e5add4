"""Refinement of the episodic memory from layer to layer (paper, section 5.2, figure 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression

from sb3_trmrl.analysis.colours import COLOURS
from sb3_trmrl.analysis.figures import check_picture
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.common.checks import check_instance, check_positive_int
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval

#: Smallest length by which a memory is divided
_EPSILON = 1e-12


@dataclass(frozen=True)
class Refinement:
    """
    Layer 0 are the working memories, layer L what the policy head reads.

    :param dissimilarity: 1 - cosine similarity between each layer's memory and the last layer's, mean over the steps of
        each task, (tasks, L + 1)
    :param action_error: Mean squared error of a linear regression from each layer's memory to the agent's own actions,
        on each test task, (test tasks, L + 1)
    :param constant_error: The same for the mean action of the train tasks, which looks at no memory, (test tasks,)
    """

    dissimilarity: np.ndarray
    action_error: np.ndarray
    constant_error: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each measure and layer: measure, layer, mean, and its 95 % bootstrap interval over tasks,
            low and high
        """
        frames = []
        for name in ("dissimilarity", "action_error"):
            values = getattr(self, name)
            low, high = bootstrap_interval(values, 0.95, 0).T
            rows = {"measure": name, "layer": np.arange(values.shape[1]), "mean": values.mean(axis=0)}
            frames.append(pd.DataFrame({**rows, "low": low, "high": high}))
        return pd.concat(frames, ignore_index=True)


def refinement(steps: Iterable[TracedSteps], n_train_tasks: int = 20) -> Refinement:
    """
    :param steps: What the agent did and held in memory; the paper has 30 tasks, 3 episodes of each
    :param n_train_tasks: How many of the tasks, the first ones, the regression is fitted on; it is tested on the others
    :return: How far each layer is from the last one, and from the actions
    :raises TypeError: if ``steps`` are something else
    :raises ValueError: if there are no steps, or if there is no task to test on
    """
    check_positive_int("n_train_tasks", n_train_tasks)
    parts = [(step.memories(), step.actions, step.tasks) for step in checked_steps(steps)]
    memories, actions, tasks = (np.concatenate(part) for part in zip(*parts, strict=True))
    return refinement_of(memories, actions, tasks, n_train_tasks)


def refinement_of(memories: np.ndarray, actions: np.ndarray, tasks: np.ndarray, n_train_tasks: int = 20) -> Refinement:
    """
    :param memories: Memory of each layer at each step, (M, L + 1, D)
    :param actions: (M, A)
    :param tasks: Index of the task of each step, (M,)
    :param n_train_tasks: See :func:`refinement`
    :return: Likewise
    """
    names = np.unique(tasks)
    if check_positive_int("n_train_tasks", n_train_tasks) >= len(names):
        raise ValueError(f"`n_train_tasks` must leave some of the {len(names)} tasks to test on, got {n_train_tasks}")
    memories = memories.astype(np.float64)
    unit = memories / np.maximum(np.linalg.norm(memories, axis=-1, keepdims=True), _EPSILON)
    dissimilarity = np.maximum(1 - np.einsum("mld,md->ml", unit, unit[:, -1]), 0)  # which rounding may miss
    train = np.isin(tasks, names[:n_train_tasks])
    errors = np.empty_like(dissimilarity)
    for layer in range(memories.shape[1]):
        model = LinearRegression().fit(memories[train, layer], actions[train])
        errors[:, layer] = ((model.predict(memories[:, layer]) - actions) ** 2).mean(axis=1)
    constant = ((actions[train].mean(axis=0) - actions) ** 2).mean(axis=1)

    def by_task(values: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.stack([values[tasks == name].mean(axis=0) for name in which])

    test = names[n_train_tasks:]
    return Refinement(by_task(dissimilarity, names), by_task(errors, test), by_task(constant, test))


def plot_refinement(
    result: Refinement, path: str | Path, title: str = "Refinement of the episodic memory through the layers"
) -> None:
    """
    :param result: What :func:`refinement` returned
    :param path: Picture to write
    :param title: Its title
    :raises TypeError: if ``result`` or ``path`` is something else
    :raises ValueError: if no picture can be written there
    """
    check_instance("result", result, Refinement, "a Refinement")
    check_picture(path)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    frame = result.to_frame()
    for axes, (name, rows) in zip(figure.subplots(1, 2), frame.groupby("measure", sort=False), strict=True):
        # Where all tasks agree, rounding may leave the mean outside
        errors = np.maximum((rows["mean"] - rows["low"], rows["high"] - rows["mean"]), 0)
        n_tasks = len(getattr(result, str(name)))
        label = f"mean of {n_tasks} tasks, 95 % interval"
        axes.errorbar(rows["layer"], rows["mean"], errors, fmt="o-", color=COLOURS[0], capsize=4, label=label)
        axes.set_xlabel("layer (0: working memories)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    left, right = figure.axes
    left.set(title="representation error", ylabel="1 - cosine similarity to the last layer", ylim=(0, None))
    constant = result.constant_error.mean()
    # An agent that always acts alike leaves no error, which has no logarithm
    scale = "log" if constant > 0 and result.action_error.mean(axis=0).min() > 0 else "linear"
    right.set(title="linear regression on the actions", ylabel="mean squared error, test tasks", yscale=scale)
    right.axhline(constant, color=COLOURS[1], linestyle="--", label=f"mean action of the train tasks, {constant:.3g}")
    right.margins(y=0.35)  # room for the key
    for axes in figure.axes:
        axes.legend(fontsize="small", loc="upper right")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
