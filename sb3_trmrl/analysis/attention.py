"""Attention weights of each layer and head during one trial (paper, eq. 4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sb3_trmrl.analysis.figures import COLOURS, check_picture, finish
from sb3_trmrl.analysis.online import smooth
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.common.atomic_file import atomic_file
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
        with atomic_file(Path(path).resolve()) as file:  # NumPy would add a suffix to a path
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


def plot_attention(result: AttentionMap, path: str | Path, title: str = "How far back each head looks") -> None:
    """
    Draw how far each head looks back, with a column for each layer: on average over the trial, and at each step.

    :param result: Result of :func:`attention_map`
    :param path: Image file to write
    :param title: Its title
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, AttentionMap, "an AttentionMap")
    check_picture(path)
    n_layers, n_heads, n_steps, n_ages = result.weights.shape
    figure = Figure(figsize=(max(6.0, 4.2 * n_layers), 6), layout="constrained")
    (by_age, by_step) = figure.subplots(2, n_layers, sharey="row", squeeze=False)
    n_seen = (~np.isnan(result.weights[0, 0])).sum(axis=1)
    mean_ages = np.nansum(result.weights * np.arange(n_ages), axis=-1)  # (L, H, T)
    window = 1 + 2 * (n_steps // 20)
    for layer in range(n_layers):
        upper, lower = by_age[layer], by_step[layer]
        for head, colour in zip(range(n_heads), cycle(COLOURS), strict=False):
            style = ("-", "--", ":")[head // len(COLOURS) % 3]
            mean = np.nanmean(result.weights[layer, head], axis=0)
            upper.plot(mean, style, color=colour, marker="o" if n_ages <= 20 else "", ms=4, label=f"head {head + 1}")
            lower.plot(np.arange(1, n_steps + 1), smooth(mean_ages[layer, head], window), style, color=colour)
        equal = [np.mean(1 / n_seen[n_seen > age]) for age in range(n_ages)]
        upper.plot(equal, color="0.75", linewidth=3, zorder=1, label="equal weights")
        lower.plot(np.arange(1, n_steps + 1), smooth((n_seen - 1) / 2, window), color="0.75", linewidth=3, zorder=1)
        for border in result.borders:
            lower.axvline(border + 0.5, color="black", linestyle=":", linewidth=1)
        upper.set(title=f"layer {layer + 1}", xlabel="steps ago (0: the newest memory)")
        lower.set_xlabel("step of the trial" + ("; dotted: new episode" if len(result.borders) else ""))
        upper.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
    by_age[0].set(ylabel="attention weight,\nmean over the trial", ylim=(0, None))
    by_step[0].set(
        ylabel=f"mean age of the attended\nmemories, in steps\n(smoothed over {window} steps)", ylim=(0, None)
    )
    figure.legend(*by_age[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    finish(figure, path, title)
