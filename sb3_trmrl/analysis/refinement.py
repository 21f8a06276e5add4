"""Refinement of the episodic memory from layer to layer (paper, section 5.2, figure 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression

from sb3_trmrl.analysis.figures import COLOURS, check_picture, draw_means, finish
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.analysis.vectors import unit_vectors
from sb3_trmrl.common.checks import check_instance, check_positive_int
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval


@dataclass(frozen=True)
class Refinement:
    """
    Distance of each layer's memories to those of the last layer and to the actions. Layer 0 holds the working memories,
    layer L the input of the policy head.

    :param dissimilarity: 1 - cosine similarity between the memories of each layer and of the last layer, mean over the
        steps of each task, (tasks, L + 1)
    :param action_error: Mean squared error of a linear regression from the memory of each layer to the agent's actions,
        on each test task, (test tasks, L + 1)
    :param constant_error: Mean squared error of a constant prediction, the mean action of the training tasks,
        (test tasks,)
    :param n_train_steps: Number of steps that the regression was fitted on
    :param n_features: Number of entries of a memory
    """

    dissimilarity: np.ndarray
    action_error: np.ndarray
    constant_error: np.ndarray
    n_train_steps: int
    n_features: int

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
    Measure how each layer refines the episodic memory.

    :param steps: Traced steps; in the paper, of 3 episodes of each of 30 tasks
    :param n_train_tasks: Number of tasks to fit the regression on, the first ones; it is tested on the others
    :return: Distance of each layer to the last layer and to the actions
    :raises TypeError: if ``steps`` has the wrong type
    :raises ValueError: if there are no steps, or no tasks to test on
    """
    check_positive_int("n_train_tasks", n_train_tasks)
    parts = [(step.memories(), step.actions, step.tasks) for step in checked_steps(steps)]
    memories, actions, tasks = (np.concatenate(part) for part in zip(*parts, strict=True))
    return measure_refinement(memories, actions, tasks, n_train_tasks)


def measure_refinement(
    memories: np.ndarray, actions: np.ndarray, tasks: np.ndarray, n_train_tasks: int = 20
) -> Refinement:
    """Measure the refinement of memories, (M, L + 1, D), given actions, (M, A), and indices of tasks, (M,)."""
    names = np.unique(tasks)
    if check_positive_int("n_train_tasks", n_train_tasks) >= len(names):
        raise ValueError(f"`n_train_tasks` must leave some of the {len(names)} tasks to test on, got {n_train_tasks}")
    memories = memories.astype(np.float64)
    unit = unit_vectors(memories)
    dissimilarity = np.maximum(1 - np.einsum("mld,md->ml", unit, unit[:, -1]), 0)  # rounding may make it negative
    train = np.isin(tasks, names[:n_train_tasks])
    errors = np.empty_like(dissimilarity)
    for layer in range(memories.shape[1]):
        model = LinearRegression().fit(memories[train, layer], actions[train])
        errors[:, layer] = ((model.predict(memories[:, layer]) - actions) ** 2).mean(axis=1)
    constant = ((actions[train].mean(axis=0) - actions) ** 2).mean(axis=1)

    def by_task(values: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.stack([values[tasks == name].mean(axis=0) for name in which])

    test = names[n_train_tasks:]
    return Refinement(
        dissimilarity=by_task(dissimilarity, names),
        action_error=by_task(errors, test),
        constant_error=by_task(constant, test),
        n_train_steps=int(train.sum()),
        n_features=memories.shape[2],
    )


def plot_refinement(
    result: Refinement,
    path: str | Path,
    title: str = "Refinement of the episodic memory through the layers",
    unit: str = "tasks",
) -> None:
    """
    Draw both distances for each layer.

    :param result: Result of :func:`refinement`
    :param path: Image file to write
    :param title: Its title
    :param unit: What was averaged over, ``"episodes"`` in an environment without tasks
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, Refinement, "a Refinement")
    check_picture(path)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    frame = result.to_frame()
    for axes, (name, rows) in zip(figure.subplots(1, 2), frame.groupby("measure", sort=False), strict=True):
        numbers = (rows[column] for column in ("layer", "mean", "low", "high"))
        label = f"mean of {len(getattr(result, str(name)))} {unit}, 95 % interval"
        draw_means(axes, *numbers, fmt="o-", color=COLOURS[0], capsize=4, label=label)
        axes.set_xlabel("layer (0: working memories)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    left, right = figure.axes
    left.set(title="representation error", ylabel="1 - cosine similarity to the last layer", ylim=(0, None))
    constant = result.constant_error.mean()
    # The error is 0 for an agent with constant actions
    scale = "log" if constant > 0 and result.action_error.mean(axis=0).min() > 0 else "linear"
    right.set(title="linear regression on the actions", ylabel=f"mean squared error, test {unit}", yscale=scale)
    right.axhline(constant, color=COLOURS[1], linestyle="--", label=f"mean action, training {unit}, {constant:.3g}")
    right.margins(y=0.35)  # room for the legend
    for axes in figure.axes:
        axes.legend(fontsize="small", loc="upper right")
    finish(figure, path, title)
