"""Agents from files: a model's zip, or the folder of a run of rl-zoo3."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any, NamedTuple

from rl_zoo3 import ALGOS
from rl_zoo3.utils import StoreDict
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.zoo.registration import ALGO, register
from sb3_trmrl.zoo.runs import STATISTICS, Run


class LoadedAgent(NamedTuple):
    """
    An agent and what it was trained with.

    :param model: SB3 model
    :param env_id: Registered id of its environment
    :param env_kwargs: Arguments of the environment
    :param vec_normalize: Statistics of its observations, if they were normalised
    :param folder: Folder of its run, or the zip's
    """

    model: BaseAlgorithm
    env_id: str
    env_kwargs: dict[str, Any]
    vec_normalize: VecNormalize | None
    folder: Path


def load_agent(
    path: str | Path,
    env: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    algo: str | None = None,
    last: bool = False,
) -> LoadedAgent:
    """
    Loading unpickles: only load files that you trust.

    :param path: Folder of a run, or a zip. What is known of a run is also found for a zip that lies in its folder
    :param env: Registered id, if not that of the run
    :param env_kwargs: Arguments of the environment, on top of those of the run
    :param algo: Name of the algorithm in rl-zoo3, if not that of the run; ``"trmrl"`` for a zip without a run
    :param last: Of a run, take the model of the end instead of the best one on validation tasks
    :return: The agent
    :raises FileNotFoundError: if there is no model
    :raises ValueError: if it cannot be known which environment or algorithm it is
    """
    register()
    path = Path(path)
    if not path.exists() and path.with_name(f"{path.name}.zip").is_file():
        path = path.with_name(f"{path.name}.zip")
    run = _run_of(path)
    if path.is_dir():
        assert run is not None
        candidates = (run.last_model, run.best_model) if last else (run.best_model, run.last_model)
        model_path = next((candidate for candidate in candidates if candidate), None)
        if model_path is None:
            raise FileNotFoundError(f"{path} holds no model")
    else:
        model_path = path
    env = env or (run.env_id if run else None)
    if env is None:
        raise ValueError(f"`env` must be given: {path} does not lie in the folder of a run")
    algo = algo or (run.algo if run else ALGO)
    if algo not in ALGOS:
        raise ValueError(f"`algo` must be one of {', '.join(ALGOS)}, got {algo!r}")
    statistics = run.statistics_of(model_path) if run else model_path.with_name(STATISTICS)
    vec_normalize = None
    if statistics is not None and statistics.is_file():
        with open(statistics, "rb") as file:
            vec_normalize = pickle.load(file)  # VecNormalize.load does the same, and wants an environment
        vec_normalize.training = False
    # Schedules may be of a class that is gone, and are not needed
    custom_objects = {"learning_rate": 0.0, "clip_range": 0.0}
    model = ALGOS[algo].load(model_path, device="cpu", custom_objects=custom_objects)
    kwargs = {**(run.env_kwargs if run and env == run.env_id else {}), **(env_kwargs or {})}
    return LoadedAgent(model, env, kwargs, vec_normalize, run.folder if run else model_path.parent)


def _run_of(path: Path) -> Run | None:
    """
    :param path: Folder of a run, or a zip
    :return: The run; for a zip that lies in none, None
    :raises FileNotFoundError: if there is nothing, or a folder is not that of a run
    """
    if path.is_dir():
        return Run(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is neither a folder nor a zip")
    return Run(path.parent) if any(path.parent.glob("*/args.yml")) else None


def agent_parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """
    :param command: Name of the command
    :param description: What it does
    :param example: Its arguments in an example that runs
    :return: A parser with the arguments that all commands about one agent have
    """
    parser = argparse.ArgumentParser(
        prog=f"trmrl {command}",
        description=description,
        epilog=f"example:\n  python -m sb3_trmrl {command} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="folder of a run, for example logs/trmrl/HalfCheetahVel-v0_1, or a zip")
    parser.add_argument("--env", help="environment id, by default that of the run")
    parser.add_argument("--algo", help="algorithm of the zip, by default that of the run, or trmrl")
    parser.add_argument(
        "--env-kwargs", nargs="+", action=StoreDict, default={}, metavar="NAME:VALUE", help="environment arguments"
    )
    parser.add_argument("--last", action="store_true", help="the model of the end of training, not the best one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the evaluation (default: 0)")
    return parser


def agent_of(options: argparse.Namespace) -> LoadedAgent:
    """
    :param options: What :func:`agent_parser` parsed
    :return: The agent
    """
    return load_agent(options.model, options.env, options.env_kwargs, options.algo, options.last)
