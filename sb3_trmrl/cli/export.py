"""``export``: a trained agent as a file that is safe to share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_zoo3 import get_saved_hyperparams

from sb3_trmrl.cli.agents import LoadedAgent, agent_of, agent_parser, argument_errors
from sb3_trmrl.sharing.export import hyperparameters_of
from sb3_trmrl.sharing.plain_data import plain
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.zoo.runs import Run

#: What :func:`~sb3_trmrl.cli.agents.open_agent` replaces in the model
_REPLACED = ("learning_rate", "clip_range")


def export(arguments: Sequence[str]) -> None:
    """
    Write an agent as a safetensors file.

    :param arguments: See ``--help``
    """
    parser = agent_parser(
        "export",
        "A trained agent as a file that strangers can load without running anything. Loading the run or the zip "
        "unpickles: export only what you trust.",
        "logs/trmrl/HalfCheetahVel-v0_1 HalfCheetahVel-v0.safetensors",
        plays=False,
    )
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    options = parser.parse_args(arguments)
    with argument_errors(parser):
        agent = agent_of(options)
        if not isinstance(agent.model, TransformerPPO):
            raise ValueError(f"{options.model} must hold a TransformerPPO, got {type(agent.model).__name__}")
        summary = {"hyperparameters": _hyperparameters(agent, options)}
        path = agent.model.export(options.output, agent.env_id, agent.env_kwargs, agent.vec_normalize, summary)
    print(f"Wrote {path}: {path.stat().st_size} bytes")


def _hyperparameters(agent: LoadedAgent, options: argparse.Namespace) -> dict[str, Any]:
    """
    :param agent: Agent
    :param options: What was asked for
    :return: What the model says, and over it what the run was started with
    """
    assert isinstance(agent.model, TransformerPPO)
    found = {key: value for key, value in hyperparameters_of(agent.model).items() if key not in _REPLACED}
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
