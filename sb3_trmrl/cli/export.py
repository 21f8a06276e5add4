"""``export``: a trained agent as a file that is safe to share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rl_zoo3 import get_saved_hyperparams

from sb3_trmrl.algorithms.exports import Exports
from sb3_trmrl.cli.options import argument_errors, load_agent_from
from sb3_trmrl.sharing.export import hyperparameters_of
from sb3_trmrl.sharing.plain_data import plain
from sb3_trmrl.zoo.runs import UNUSED_SCHEDULES, Run


def export(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Write an agent as a safetensors file."""
    with argument_errors(parser):
        agent = load_agent_from(options)
        if not isinstance(agent.model, Exports):
            raise ValueError(
                f"{options.model} must hold a TransformerPPO or TransformerSAC, got {type(agent.model).__name__}"
            )
        summary = {"hyperparameters": _hyperparameters(agent.model, options)}
        path = agent.model.export(
            options.output,
            agent.env_id,
            agent.env_kwargs,
            agent.vec_normalize,
            summary,
            options.dtype,
            options.critic,
        )
    print(f"Wrote {path}: {path.stat().st_size} bytes")


def _hyperparameters(model: Exports, options: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters of the model, updated by those that the run was started with."""
    found = {key: value for key, value in hyperparameters_of(model).items() if key not in UNUSED_SCHEDULES}
    path = Path(options.model)
    folder = path if path.is_dir() else path.parent
    if not any(folder.glob("*/config.yml")):
        return found
    given, _ = get_saved_hyperparams(str(Run(folder).stats_path))
    for key, value in given.items():
        try:
            found[key] = plain(value, key)
        except ValueError:  # a class, for example
            found[key] = str(value)
    return found
