"""Attention weights of each layer and head during one trial (paper, eq. 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sb3_trmrl.analysis.figures import COLOURS, check_picture, finish
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.common.checks import check_instance


@dataclass(frozen=True)
class AttentionMap:
    """
    Attention weights of the newest memory at each of T steps of a trial.

    :param weights: Weight of the memory that is 0, 1, ..., W - 1 steps old in each of L layers and H heads,
        (L, H, T, W); NaN for memories that do not exist because the memory was emptied
    :param episodes: Episode of the trial, from 0, (T,)
    """

    weights: np.ndarray
    episodes: np.ndarray

    @property
    def borders(self) -> np.ndarray:
        """First step, from 0, of each episode except the first"""
        return np.flatnonzero(np.diff(self.episodes)) + 1

    @property
    def look_back(self) -> np.ndarray:
        """Mean age of the attended memories, weighted by attention and averaged over steps, (L, H), in steps"""
        ages: np.ndarray = np.nansum(self.weights * np.arange(self.weights.shape[-1]), axis=-1).mean(axis=-1)
        return ages

    @property
    def uniform_look_back(self) -> float:
        """Value of :attr:`look_back` for equal weights"""
        n_seen = (~np.isnan(self.weights[0, 0])).sum(axis=-1)
        return float(((n_seen - 1) / 2).mean())

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each layer, head (both from 1) and age: layer, head, steps_ago, mean_weight over the
            n_steps steps that have a memory of this age
        """
        n_layers, n_heads, _, n_ages = self.weights.shape
        layers, heads, ages = np.meshgrid(range(n_layers), range(n_heads), range(n_ages), indexing="ij")
        n_steps = (~np.isnan(self.weights)).sum(axis=2)
        return pd.DataFrame(
            {
                "layer": layers.ravel() + 1,
                "head": heads.ravel() + 1,
                "steps_ago": ages.ravel(),
                "mean_weight": (np.nansum(self.weights, axis=2) / n_steps).ravel(),
                "n_steps": n_steps.ravel(),
            }
        )

    def save(self, path: str | Path) -> None:
        """
        :param path: File to write, ``.npz``, with the arrays ``weights`` and ``episodes``
        """
        with open(path, "wb") as file:  # NumPy would add a suffix to a path
            np.savez_compressed(file, weights=self.weights.astype(np.float32), episodes=self.episodes)


def attention_map(steps: Iterable[TracedSteps]) -> AttentionMap:
    """
    Sort the attention weights of one trial by the age of the memory.

    :param steps: Traced steps of one trial
    :return: Attention weights at each step
    :raises TypeError: if ``steps`` has the wrong type
    :raises ValueError: if there are no steps, or steps of several tasks
    """
    rows: list[np.ndarray] = []
    episodes: list[int] = []
    for step in checked_steps(steps):
        if step.tasks.any():
            raise ValueError(f"`steps` must belong to one trial, got steps of task {step.tasks.max()} too")
        weights = step.attention()  # (M, L, H, N)
        # Reversed: the newest memory first
        rows += [weights[i, ..., slot::-1] for i, slot in enumerate(step.slots)]
        episodes += step.episodes.tolist()
    n_ages = max(row.shape[-1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, 0), (0, n_ages - row.shape[-1])), constant_values=np.nan) for row in rows]
    stacked = np.stack(padded, axis=2)
    # The full memory has weights of 0 beyond `context_length`
    n_seen = 1 + int(np.flatnonzero((np.nan_to_num(stacked) > 0).any(axis=(0, 1, 2)))[-1])
    return AttentionMap(stacked[..., :n_seen], np.array(episodes))


def plot_attention(result: AttentionMap, path: str | Path, title: str = "Attention during one trial") -> None:
    """
    Draw a panel for each layer (columns) and head (rows), with time to the right and older memories higher up.

    :param result: Result of :func:`attention_map`
    :param path: Image file to write
    :param title: Its title
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, AttentionMap, "an AttentionMap")
    check_picture(path)
    n_layers, n_heads, n_steps, n_ages = result.weights.shape
    panel = 0.45 if n_heads > 4 else 1.3
    figure = Figure(figsize=(8, panel * n_heads + 1.2), layout="constrained")
    grid = figure.subplots(n_heads, n_layers, sharex=True, sharey=True, squeeze=False)
    is_long = n_ages > 10  # most weights are about 1 / n_ages
    norm = LogNorm(0.1 / n_ages, 1, clip=True) if is_long else Normalize(0, 1)
    image = None
    for layer in range(n_layers):
        for head in range(n_heads):
            axes: Axes = grid[head, layer]
            axes.set_facecolor("0.85")
            image = axes.imshow(
                result.weights[layer, head].T,
                norm=norm,
                cmap="viridis",
                aspect="auto",
                origin="lower",
                interpolation="nearest",
                extent=(0.5, n_steps + 0.5, -0.5, n_ages - 0.5),
            )
            for border in result.borders:
                axes.axvline(border + 0.5, color=COLOURS[1], linewidth=1.2)
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.tick_params(labelsize="x-small")
        grid[0, layer].set_title(f"layer {layer + 1}", fontsize="small")
    for head in range(n_heads):
        grid[head, 0].set_ylabel(f"head {head + 1}", fontsize="x-small")
    assert image is not None
    figure.colorbar(
        image,
        ax=grid,
        label=f"attention weight{', logarithmic' if is_long else ''}",
        shrink=min(1.0, 4 / (panel * n_heads)),
    )
    figure.supxlabel("step of the trial", fontsize="small")
    figure.supylabel("age of the memory (steps ago)", fontsize="small")
    borders = "; vertical lines: start of an episode" if len(result.borders) else ""
    finish(figure, path, f"{title}\ngrey: no memory of this age{borders}", fontsize="medium")
