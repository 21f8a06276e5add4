"""The learning curves of runs, from the evaluations on validation tasks that they have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sb3_trmrl.analysis.comparison import Group, common_steps
from sb3_trmrl.zoo.runs import Run


def learning_curves(runs: Sequence[Run], by_minutes: bool = False) -> Group:
    """
    Return the learning curves of one agent, cut to the part that all its runs have.

    :param runs: Runs that differ in their seed
    :param by_minutes: Whether ``timesteps`` of the result are minutes of training instead of environment steps
    :return: Curves without evaluations after training; no curves if minutes are not known, or if the runs have none in
        common, as happens where one of two short runs had a slow start
    """
    curves = [_learning_curve(run, by_minutes) for run in runs]
    none = Group(np.zeros(0), np.zeros((len(runs), 0)), {})
    if any(not len(curve.timesteps) for curve in curves):
        return none
    try:
        steps = curves[0].between(*common_steps(curves)).timesteps
    except ValueError as error:
        if by_minutes:
            return none
        raise ValueError(f"{', '.join(str(run.folder) for run in runs)}: {error}") from None
    curves = [curve.at(steps) for curve in curves]
    successes = [curve.success_curves for curve in curves if curve.success_curves is not None]
    success_curves = np.concatenate(successes) if len(successes) == len(curves) else None
    return Group(steps, np.concatenate([curve.curves for curve in curves]), {}, success_curves)


def environment_note(env_kwargs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """
    Return a note about arguments of the environment that differ among the runs of agents, empty if there are none.

    :param env_kwargs: Arguments of each run by the name of the agent. Arguments that only change the information of the
        agent may differ
    """
    every = [kwargs for own in env_kwargs.values() for kwargs in own]
    parts = []
    for key in sorted({key for kwargs in every for key in kwargs} - {"previous_transition", "reveal_task"}):
        agents: dict[str, list[str]] = {}
        for name, own in env_kwargs.items():
            for kwargs in own:
                value = repr(kwargs[key]) if key in kwargs else "default"
                if name not in agents.setdefault(value, []):
                    agents[value].append(name)
        if len(agents) > 1:
            parts.append("; ".join(f"{key}={value} ({', '.join(names)})" for value, names in agents.items()))
    return f"Note: the runs have different arguments of the environment: {'. '.join(parts)}." if parts else ""


def _learning_curve(run: Run, by_minutes: bool) -> Group:
    evaluations = run.returns_per_episode()
    if evaluations is None:
        raise FileNotFoundError(f"{run.folder} has no evaluations.npz: train with evaluation on")
    timesteps, returns = evaluations
    if by_minutes:
        seconds = run.history().get("seconds", ())
        timesteps = np.asarray(seconds) / 60 if len(seconds) == len(returns) else np.zeros(0)
    curve = returns.mean(axis=1)
    successes = run.successes()
    if successes is None or len(successes) != len(timesteps):
        return Group(timesteps, curve[None], {})
    return Group(timesteps, curve[None], {}, successes.mean(axis=(1, 2))[None])
