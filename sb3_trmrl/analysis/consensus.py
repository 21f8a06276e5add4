"""
Self-attention as a consensus (paper, theorem 4.1, section 4.3 and appendix F): is the Bayes risk of the attention
output at most that of each memory?

For one query, the memories e_1, ..., e_n of a layer, projected to the value space of a head, are the candidates
v_t = W_V e_t (+ bias), and the attention weights alpha_t are the posterior. The risk of x is E_alpha[L(v, x)] (eq. 7),
the attention output is the mean m = E_alpha[v] (eq. 9), and the claim (eq. 10) is risk(m) <= min_t risk(v_t).

With L = -<v, x>, as in the proof, risk(m) = -<m, m> = E_alpha[risk(v)] is an average of the candidates' risks, which is
never below their minimum. With L = -cos(v, x), as in the theorem, and candidates of unit length, ``risk(m) = -|m|`` and
risk(v_t) = -<m, v_t>, and the claim follows from the Cauchy-Schwarz inequality.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sb3_trmrl.analysis.figures import COLOURS, check_picture, draw_means, finish
from sb3_trmrl.analysis.traces import TracedSteps, checked_steps
from sb3_trmrl.analysis.vectors import unit_vectors
from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.adaptation_result import bootstrap_interval

#: Loss, and whether candidates are scaled to unit length before they are averaged. The theorem names the cosine, its
#: proof uses the inner product. The claim follows only for the last of the four
FORMS = (
    ("inner product", "raw memories"),
    ("inner product", "unit memories"),
    ("cosine", "raw memories"),
    ("cosine", "unit memories"),
)
#: Rounding error relative to the risks
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Consensus:
    """
    Means over steps and heads for each task, form (see ``FORMS``) and layer, (tasks, forms, L) each. Steps with a
    single visible memory, which is its own consensus, are left out.

    :param output_risk: Bayes risk of the attention output
    :param minimum_risk: Minimum of the Bayes risk over the candidates
    :param holds: Share of steps and heads where the first is at most the second
    """

    output_risk: np.ndarray
    minimum_risk: np.ndarray
    holds: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """
        :return: One row for each form and layer (from 1): loss, memories, layer, and for output_risk, minimum_risk and
            holds the mean over tasks and the ends of its 95 % bootstrap interval, ..._low and ..._high
        """
        n_layers = self.holds.shape[2]
        columns: dict[str, list[Any]] = {
            "loss": [loss for loss, _ in FORMS for _ in range(n_layers)],
            "memories": [memories for _, memories in FORMS for _ in range(n_layers)],
            "layer": [layer + 1 for _ in FORMS for layer in range(n_layers)],
        }
        for name in ("output_risk", "minimum_risk", "holds"):
            values = getattr(self, name)
            interval = bootstrap_interval(values, 0.95, 0)
            columns[name] = values.mean(axis=0).ravel().tolist()
            columns[f"{name}_low"] = interval[..., 0].ravel().tolist()
            columns[f"{name}_high"] = interval[..., 1].ravel().tolist()
        return pd.DataFrame(columns)


def bayes_risks(weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the Bayes risks of the attention output and of the best candidate.

    :param weights: Attention weights of each query, (..., Q, N). Rows sum to 1; weights of 0 exclude a candidate
    :param values: Candidates, (..., N, d)
    :return: Bayes risk of the attention output, and its minimum over candidates, both in each of ``FORMS``,
        (4, ..., Q)
    """
    weights, values = weights.astype(np.float64), values.astype(np.float64)
    unit = unit_vectors(values)
    mean, unit_mean = weights @ values, weights @ unit  # (..., Q, d)

    def minimum(mean: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        # E[-<v, x>] = -<E[v], x>
        risks = -(mean @ np.swapaxes(candidates, -1, -2))  # (..., Q, N)
        least: np.ndarray = np.where(weights > 0, risks, np.inf).min(axis=-1)
        return least

    output = np.stack(
        [
            -(mean * mean).sum(axis=-1),
            -(unit_mean * unit_mean).sum(axis=-1),
            -(unit_mean * unit_vectors(mean)).sum(axis=-1),  # E[cos(v, m)] = <E[v / |v|], m / |m|>
            -np.linalg.norm(unit_mean, axis=-1),
        ]
    )
    unit_minimum = minimum(unit_mean, unit)
    return output, np.stack([minimum(mean, values), unit_minimum, unit_minimum, unit_minimum])


def consensus(steps: Iterable[TracedSteps]) -> Consensus:
    """
    Compute the Bayes risks of an agent's attention outputs.

    :param steps: Traced steps
    :return: Bayes risks in each layer
    :raises TypeError: if ``steps`` has the wrong type
    :raises ValueError: if there are no steps, or no step has more than one visible memory
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for step in checked_steps(steps):
        risks = [_newest_risks(step, layer) for layer in range(len(step.trace.values))]
        numbers = np.stack(risks, axis=2)  # (M, 3, L, 4)
        numbers[_n_visible(step) == 1] = np.nan
        parts.append((step.tasks, numbers))
    tasks, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    known = ~np.isnan(numbers[:, 0, 0, 0])
    if not known.any():
        raise ValueError("`steps` must include some with at least two memories: is context_length 1?")
    tasks, numbers = tasks[known], numbers[known]
    by_task = np.stack([numbers[tasks == task].mean(axis=0) for task in np.unique(tasks)])  # (tasks, 3, L, 4)
    output_risk, minimum_risk, holds = np.moveaxis(by_task, (1, 3), (0, 2))
    return Consensus(output_risk, minimum_risk, holds)


def _n_visible(step: TracedSteps) -> np.ndarray:
    """Return the number of memories that have a weight in any layer and head, (M,)."""
    n_read: np.ndarray = (step.attention() > 0).any(axis=(1, 2)).sum(axis=-1)
    return n_read


def _newest_risks(step: TracedSteps, layer: int) -> np.ndarray:
    """Return the means over heads of output risk, minimum risk and whether the claim holds, (M, 3, forms)."""
    weights = step.trace.attention[layer].cpu().numpy()  # (B, H, N, N)
    output, minimum = bayes_risks(weights, step.trace.values[layer].cpu().numpy())  # (4, B, H, N)
    holds = output <= minimum + _TOLERANCE * np.maximum(np.abs(output), np.abs(minimum))
    means: np.ndarray = np.stack([output, minimum, holds])[:, :, step.rows, :, step.slots].mean(axis=-1)
    return means  # (M, 3, 4)


def plot_consensus(
    result: Consensus, path: str | Path, title: str = "Bayes risk of the attention output (theorem 4.1)"
) -> None:
    """
    Draw a panel for each form. The numbers above each layer are the shares of steps and heads where the claim holds.

    :param result: Result of :func:`consensus`
    :param path: Image file to write
    :param title: Its title
    :raises TypeError: if ``result`` or ``path`` has the wrong type
    :raises ValueError: if no image can be written to ``path``
    """
    check_instance("result", result, Consensus, "a Consensus")
    check_picture(path)
    figure = Figure(figsize=(8, 6), layout="constrained")
    frame = result.to_frame()
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, (form, rows) in zip(panels, frame.groupby(["loss", "memories"], sort=False), strict=True):
        styles = {"output_risk": ("o", "attention output"), "minimum_risk": ("^", "best candidate")}
        for colour, shift, (name, (marker, label)) in zip(COLOURS, (-0.1, 0.1), styles.items(), strict=False):
            numbers = (rows[f"{name}{end}"] for end in ("", "_low", "_high"))
            draw_means(axes, rows["layer"] + shift, *numbers, fmt=marker, color=colour, capsize=3, label=label)
        for layer, holds in zip(rows["layer"], rows["holds"], strict=True):
            place = (layer, 1.0)
            text = f"{100 * holds:.1f} %"
            offset = {"xytext": (0, -11), "textcoords": "offset points"}
            axes.annotate(text, place, xycoords=("data", "axes fraction"), ha="center", fontsize="small", **offset)
        axes.margins(x=0.15, y=0.2)
        axes.set(title=f"{form[0]}, {form[1]}", ylabel=f"risk: minus {form[0]}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in panels[2:]:
        axes.set_xlabel("layer")
    panels[0].legend(fontsize="small")
    about = f"means of {len(result.holds)} tasks, 95 % intervals\n"
    about += "%: share of steps and heads where the risk of the output is at most that of the best candidate"
    finish(figure, path, f"{title}: {about}", fontsize="medium")
