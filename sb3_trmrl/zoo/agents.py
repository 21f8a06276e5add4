"""Trained agents from files: an exported agent, the zip of a model, or the folder of a run."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from rl_zoo3 import ALGOS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_trmrl.common.checks import check_instance, check_keywords
from sb3_trmrl.sharing.agent import SUFFIX, ExportedAgent, load_agent
from sb3_trmrl.trials.held_out import has_environment
from sb3_trmrl.zoo.defaults import ALGO
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.runs import BEST_MODEL, STATISTICS, Run, file_errors, load_model


class LoadedAgent(NamedTuple):
    """An agent and what it was trained with."""

    model: BaseAlgorithm | ExportedAgent  # an exported agent normalises observations itself
    env_id: str  # registered id
    env_kwargs: dict[str, Any]
    vec_normalize: VecNormalize | None  # None if observations were not normalised
    folder: Path  # of the run, or of the file


def open_agent(
    path: str | Path,  # exported agent, folder of a run, or zip of a model, which may be in the folder of a run
    env: str | None = None,  # by default that of the run
    env_kwargs: dict[str, Any] | None = None,  # added to those of the run
    algo: str | None = None,  # by default that of the run, or "trmrl" for a zip without a run
    last: bool = False,  # the model at the end of a run instead of the best one, which an unevaluated run lacks
) -> LoadedAgent:
    """Load a trained agent. Runs and zips are unpickled: only load those that you trust; exported agents are safe."""
    check_keywords("env_kwargs", env_kwargs)
    path = Path(path)
    if path.suffix == SUFFIX and not path.is_dir():
        return _open_exported(path, env, env_kwargs, algo, last)
    register()
    if not path.exists() and path.with_name(f"{path.name}.zip").is_file():
        path = path.with_name(f"{path.name}.zip")
    run = _find_run(path)
    if path.is_dir():
        assert run is not None
        model_path = _find_model(run, last)
    elif last:
        raise ValueError(f"`last` is for runs, and {path} is a zip")
    else:
        model_path = path
    env = env or (run.env_id if run else None)
    if env is None:
        raise ValueError(f"`env` must be given: {path} is not in the folder of a run")
    algo = algo or (run.algo if run else ALGO)
    if algo not in ALGOS:
        raise ValueError(f"`algo` must be one of {', '.join(ALGOS)}, got {algo!r}")
    if not has_environment(env):
        raise ValueError(f"`env` must be the id of a registered environment, got {env!r}")
    statistics = run.statistics_file(model_path) if run else model_path.with_name(STATISTICS)
    if run is not None and statistics is None and run.hyperparams.get("normalize"):
        missing = run.stats_path / STATISTICS
        raise FileNotFoundError(f"the run was trained with `normalize`, but {missing}, its statistics, is missing")
    vec_normalize = _load_statistics(statistics)
    model = load_model(algo, model_path)
    kwargs = {**(run.env_kwargs if run and _same_id(env, run.env_id) else {}), **(env_kwargs or {})}
    if run is not None:
        _warn_of_wrappers(run)
        if run.hyperparams.get("frame_stack") is not None:
            model.env = _stacked_env(env, kwargs, vec_normalize, run.hyperparams["frame_stack"])
    return LoadedAgent(model, env, kwargs, vec_normalize, run.folder if run else model_path.parent)


def _open_exported(
    path: Path, env: str | None, env_kwargs: dict[str, Any] | None, algo: str | None, last: bool
) -> LoadedAgent:
    if algo is not None:
        raise ValueError(f"`algo` is for zips, and {path} is an exported agent: got {algo!r}")
    if last:
        raise ValueError(f"`last` is for runs, and {path} is an exported agent")
    agent = load_agent(path)
    env = env or agent.env_id
    if env is None:
        raise ValueError(f"`env` must be given: {path} does not name its environment")
    kwargs = {**(agent.env_kwargs if _same_id(env, agent.env_id) else {}), **(env_kwargs or {})}
    return LoadedAgent(agent, env, kwargs, None, path.parent)


def _same_id(env: str, other: str | None) -> bool:
    """Compare two ids without the module that may precede them: ``"module:Env-v0"`` is ``"Env-v0"``."""
    return other is not None and env.rpartition(":")[2] == other.rpartition(":")[2]


def _find_run(path: Path) -> Run | None:
    """Return the run of a folder or zip; None for a zip outside the folder of a run."""
    if path.is_dir():
        return Run(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`model` must be the folder of a run, a zip or an exported agent, got {str(path)!r}: it does not exist"
        )
    return Run(path.parent) if any(path.parent.glob("*/args.yml")) else None


def _find_model(run: Run, last: bool) -> Path:
    found = run.last_model if last else run.best_model or run.last_model
    if found is None:
        last_path = f"{run.stats_path}.zip"
        if last:
            raise FileNotFoundError(f"{last_path}, the model at the end of training, is missing")
        raise FileNotFoundError(f"there is no model: neither {run.folder / BEST_MODEL} nor {last_path} exists")
    return found


def _warn_of_wrappers(run: Run) -> None:
    for name in ("env_wrapper", "vec_env_wrapper"):
        if run.hyperparams.get(name):
            warnings.warn(
                f"`{name}` of {run.folder} is applied only in training, enjoy and the report. To evaluate, analyse or "
                "render the agent, train it on a registered environment that contains the wrapper",
                UserWarning,
                stacklevel=2,
            )


def _stacked_env(env: str, env_kwargs: dict[str, Any], statistics: VecNormalize | None, n_stack: int) -> VecEnv:
    """Make the environment that tells evaluation and export how observations were normalised and stacked."""
    # Not with `set_env`, which needs as many copies as training had
    venv: VecEnv = DummyVecEnv([lambda: gym.make(env, **env_kwargs)])
    if statistics is not None:
        statistics.set_venv(venv)
        venv = statistics
    return VecFrameStack(venv, n_stack)


def _load_statistics(path: Path | None) -> VecNormalize | None:
    if path is None or not path.is_file():
        return None
    with open(path, "rb") as file, file_errors(path, "statistics of VecNormalize"):
        # As VecNormalize.load does, which needs an environment
        statistics: VecNormalize = check_instance("statistics", pickle.load(file), VecNormalize, "a VecNormalize")
    statistics.training = False
    return statistics
