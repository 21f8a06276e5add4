"""Learning curves of the paper's ablations (appendix E, figures 10 to 13)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import check_picture, count_steps, draw_band, finish, line_styles
from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval

_TITLES = {
    "initialization": "initialization (fig. 10)",
    "context_length": "context length (fig. 11)",
    "n_layers": "layers (fig. 12)",
    "n_heads": "heads (fig. 13)",
}


@dataclass(frozen=True)
class Ablations:
    """Learning curves for each value of each setting."""

    env_id: str
    timesteps: np.ndarray  # environment steps of the evaluations, (K,)
    curves: dict[str, dict[Any, np.ndarray]]  # return per episode on validation tasks, by setting and value, (seeds, K)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each setting, value and evaluation, with the mean and its 95 % interval over seeds."""
        frames = []
        for setting, values in self.curves.items():
            for value, curves in values.items():
                low, high = bootstrap_interval(curves, 0.95, 0).T
                rows: dict[str, Any] = {"setting": setting, "value": str(value), "timesteps": self.timesteps}
                rows |= {"mean": curves.mean(axis=0), "low": low, "high": high, "seeds": len(curves)}
                frames.append(pd.DataFrame(rows))
        return pd.concat(frames, ignore_index=True)


def plot_ablations(result: Ablations, path: str | Path) -> None:
    """Draw a panel for each setting. Bands are 95 % bootstrap intervals over seeds."""
    check_instance("result", result, Ablations, "an Ablations")
    check_picture(path)
    figure = Figure(figsize=(9, 3 * ((len(result.curves) + 1) // 2) + 0.6), layout="constrained")
    n_columns = min(2, len(result.curves))
    panels = figure.subplots(-(-len(result.curves) // n_columns), n_columns, sharex=True, sharey=True, squeeze=False)
    n_seeds = [len(curves) for values in result.curves.values() for curves in values.values()]
    fewest, most = min(n_seeds), max(n_seeds)
    for axes, (setting, values) in zip(panels.ravel(), result.curves.items(), strict=False):
        styles = line_styles(values)
        for value, curves in values.items():
            interval = bootstrap_interval(curves, 0.95, 0).T
            draw_band(axes, result.timesteps, curves.mean(axis=0), interval, **styles[value], label=str(value))
        axes.set_title(_TITLES.get(setting, setting), fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in panels[-1]:
        count_steps(axes)
    for axes in panels[:, 0]:
        axes.set_ylabel("return per episode, validation tasks")
    band, plural = (" and 95 % bootstrap interval", "s") if most > 1 else ("", "")
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    finish(figure, path, f"Ablations on {result.env_id}: mean{band} over {number} seed{plural}")
