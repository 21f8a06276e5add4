"""Working memories on their principal components, coloured by task (paper, appendix C, figure 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from sb3_trmrl.analysis.figures import COLOURS, check_picture, finish, task_label
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.common.checks import check_instance, check_positive_int

N_COMPONENTS = 3


@dataclass(frozen=True)
class WorkingMemories:
    """
    Working memories phi of M steps on their principal components.

    :param coordinates: Working memory of each step on the components, (M, 3)
    :param explained: Share of the variance that each component explains, (3,)
    :param tasks: Index of the task of each step, (M,)
    :param numbers: Number of each step in its trial, from 0, (M,)
    :param labels: The tasks
    """

    coordinates: np.ndarray
    explained: np.ndarray
    tasks: np.ndarray
    numbers: np.ndarray
    labels: list[Any]

    @property
    def share_between_tasks(self) -> float:
        """
        Share of the variance in the three components that lies between the means of the tasks. Even if it is 0, clouds
        with the same centre, such as rings of different sizes, may be separable
        """
        centred = self.coordinates - self.coordinates.mean(axis=0)
        total = (centred**2).sum()
        between = sum(
            (self.tasks == task).sum() * (centred[self.tasks == task].mean(axis=0) ** 2).sum()
            for task in np.unique(self.tasks)
        )
        return float(between / total) if total > 0 else 0.0

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each step: task, step (of the trial, from 1), pc_1, pc_2, pc_3
        """
        components = {f"pc_{i + 1}": self.coordinates[:, i] for i in range(N_COMPONENTS)}
        tasks = [str(self.labels[task]) for task in self.tasks]
        return pd.DataFrame({"task": tasks, "step": self.numbers + 1, **components})


def working_memories(steps: Iterable[TracedSteps], labels: Sequence[Any]) -> WorkingMemories:
    """
    Project the working memories of an agent onto three principal components.

    :param steps: Traced steps
    :param labels: The tasks, ``trials.tasks``
    :return: Working memories, without the encoding of their positions, on three principal components
    :raises TypeError: if ``steps`` or ``labels`` has the wrong type
    :raises ValueError: if there are no steps, or too few labels
    """
    parts = [(step.memories()[:, 0], step.tasks, step.numbers) for step in checked_steps(steps)]
    memories, tasks, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(check_instance("labels", labels, (list, tuple), "a list of tasks")) <= tasks.max():
        raise ValueError(f"`labels` must have an entry for each of {tasks.max() + 1} tasks, got {labels!r}")
    return project_memories(memories, tasks, numbers, labels)


def project_memories(
    memories: np.ndarray, tasks: np.ndarray, numbers: np.ndarray, labels: Sequence[Any]
) -> WorkingMemories:
    """Project working memories, (M, D), given the index of the task and the number of each step, (M,) both."""
    if min(memories.shape) < N_COMPONENTS:
        raise ValueError(f"`memories` must have at least {N_COMPONENTS} steps and dimensions, got {memories.shape}")
    pca = PCA(N_COMPONENTS, svd_solver="full")
    coordinates = pca.fit_transform(memories.astype(np.float64))
    return WorkingMemories(coordinates, pca.explained_variance_ratio_, tasks, numbers, list(labels))


def plot_working_memories(
    result: WorkingMemories,
    path: str | Path,
    title: str = "Working memories",
    max_points: int = 4_000,
    task_unit: str = "",
) -> None:
    """
    Draw the working memories in three and in two dimensions.

    :param result: Result of :func:`working_memories`
    :param path: Image file to write
    :param title: Its title
    :param max_points: Number of steps to draw, evenly spaced if there are more
    :param task_unit: Unit of the tasks, ``trials.task_unit``
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, WorkingMemories, "the result of working_memories")
    check_picture(path)
    check_positive_int("max_points", max_points)
    figure = Figure(figsize=(9, 4.2))
    # Explicit positions: the layouts of Matplotlib leave no room for the labels of three-dimensional axes
    solid = figure.add_axes((0.0, 0.1, 0.42, 0.78), projection="3d")
    flat = figure.add_axes((0.54, 0.13, 0.33, 0.74))
    shown = np.unique(np.linspace(0, len(result.tasks) - 1, max_points).astype(int))
    # In random order, so that no task covers the others
    shown = np.random.default_rng(0).permutation(shown)
    points = result.coordinates[shown].T
    colours = np.array(_colours(result.labels, flat, task_unit))[result.tasks[shown]]
    solid.scatter(points[0], points[1], zs=points[2], s=5, c=colours, linewidths=0)
    flat.scatter(points[0], points[1], s=5, c=colours, linewidths=0)
    names = [f"component {i + 1} ({100 * share:.0f} %)" for i, share in enumerate(result.explained)]
    solid.set(**dict(zip(("xlabel", "ylabel", "zlabel"), names, strict=True)))
    flat.set(xlabel=names[0], ylabel=names[1])
    flat.grid(alpha=0.3)
    finish(figure, path, f"{title} of {len(result.labels)} tasks")


def _colours(labels: Sequence[Any], axes: Axes, unit: str) -> list[Any]:
    """Return a colour for each task, and draw their legend or colour bar to the right of the axes."""
    name = f"task ({unit})" if unit else "task"
    are_numbers = len(labels) > 2 and all(isinstance(label, (int, float)) for label in labels)
    if are_numbers or len(labels) > len(COLOURS):
        values = np.array(labels if are_numbers else np.arange(len(labels)), dtype=float)
        scale = ScalarMappable(Normalize(values.min(), values.max()), cmap="viridis")
        place = axes.inset_axes((1.05, 0.0, 0.05, 1.0))
        axes.figure.colorbar(scale, cax=place, label=name if are_numbers else "index of the task")
        return list(scale.to_rgba(values))
    for label, colour in zip(labels, COLOURS, strict=False):
        axes.scatter([], [], color=colour, label=task_label(label))
    axes.legend(title=name, fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)
    return [to_rgba(colour) for colour in COLOURS[: len(labels)]]
