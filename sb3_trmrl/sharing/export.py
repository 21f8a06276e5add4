"""Writing a trained agent to a file that is safe to load."""

from __future__ import annotations

import inspect
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from sb3_trmrl.common.atomic_file import atomic_file, make_place
from sb3_trmrl.common.checks import check_bool, check_instance, check_option, check_path
from sb3_trmrl.common.versions import versions_of
from sb3_trmrl.sharing.agent import SUFFIX, read_agent
from sb3_trmrl.sharing.blueprint import WEIGHTS, Blueprint, policy_weights
from sb3_trmrl.sharing.container import pack
from sb3_trmrl.sharing.description import FORMAT, FORMATS, format_version_of
from sb3_trmrl.sharing.plain_data import plain
from sb3_trmrl.sharing.policy_record import record_of
from sb3_trmrl.sharing.space_records import space_record
from sb3_trmrl.sharing.statistics import ObservationStatistics
from sb3_trmrl.sharing.strict_json import InvalidAgentFile

#: Arguments of constructors that are not part of the summary
_NO_HYPERPARAMETERS = {"tensorboard_log", "stats_window_size", "verbose", "device"}
_PACKAGES = ("gymnasium", "numpy", "sb3_trmrl", "stable_baselines3", "torch")


def export_agent(
    model: BaseAlgorithm,
    path: str | PathLike[str],
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vec_normalize: VecNormalize | None = None,
    summary: dict[str, Any] | None = None,
    dtype: str = "float32",
    critic: bool = True,
) -> Path:
    """Write a trained agent, see :meth:`sb3_trmrl.TransformerPPO.export`."""
    target = agent_path(path, SUFFIX)
    check_option("dtype", dtype, ("float32", "float16"))
    check_bool("critic", critic)
    check_instance("vec_normalize", vec_normalize, (VecNormalize, type(None)), "a VecNormalize or None")
    known_id, known_kwargs = _known_environment(model.get_env())
    if env_id is None or env_id == known_id:
        env_id, env_kwargs = known_id, known_kwargs if env_kwargs is None else env_kwargs
    normalizer = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    statistics = ObservationStatistics.from_vec_normalize(normalizer)
    policy: Any = model.policy
    if statistics is not None:
        check_shapes(statistics, policy.observation_space, model.get_env())
    try:
        record: Any = record_of(policy)
        version: Any = format_version_of(record, critic)
        description = FORMATS[version](
            format=FORMAT,
            format_version=version,
            observation_space=space_record(policy.observation_space, "observation_space"),
            action_space=space_record(policy.action_space, "action_space"),
            policy=record,
            normalization=None if statistics is None else statistics.to_record(),
            env_id=env_id,
            env_kwargs=_plain_dict("env_kwargs", env_kwargs),
            summary={**_training_summary(model), **_plain_dict("summary", summary)},
        )
        weights = {f"{WEIGHTS}{name}": tensor for name, tensor in policy_weights(policy).items()}
        if not critic:
            weights = {name: weights[name] for name in Blueprint(description).entries() if name in weights}
        tensors = {name: tensor.detach().cpu().to(getattr(th, dtype)) for name, tensor in weights.items()}
        data = pack(description, {**tensors, **(statistics.to_tensors() if statistics else {})})
        read_agent(data, th.device("cpu"))  # never write a file that could not be loaded
    except InvalidAgentFile as error:
        raise ValueError(f"the agent cannot be exported: {error}") from error
    write_agent(target, data)
    return target


def agent_path(path: str | PathLike[str], suffix: str) -> Path:
    """Return the file to write, with the suffix added to a name without suffix; another suffix is a ``ValueError``."""
    target = check_path("path", path)
    target = target if target.suffix else target.with_name(f"{target.name}{suffix}")
    if target.suffix != suffix:
        raise ValueError(f"`path` must end with {suffix}, got {str(path)!r}")
    return target


def write_agent(target: Path, data: bytes) -> None:
    """Write a file that is complete or not there. A ``ValueError`` names ``path`` if it cannot be written."""
    try:
        with atomic_file(make_place(target)) as file:
            file.write(data)
    except OSError as error:
        raise ValueError(f"cannot write the agent to `path` {str(target)!r}: {error}") from error


def check_shapes(statistics: ObservationStatistics, space: spaces.Space[Any], env: VecEnv | None) -> None:
    """Raise a ValueError if a wrapper around VecNormalize changes observations, as VecFrameStack does."""
    parts: Any = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    if all(key not in parts or mean.shape == parts[key].shape for key, (mean, _) in statistics.key_stats.items()):
        return
    outside = []
    while isinstance(env, VecEnvWrapper) and not isinstance(env, VecNormalize):
        outside.append(type(env).__name__)
        env = env.venv
    raise ValueError(
        f"the agent cannot be exported: {' and '.join(outside) or 'a wrapper'} outside VecNormalize changes the "
        "observations after they are normalised. Put VecNormalize around it, or use memory instead of stacked frames"
    )


def _plain_dict(name: str, value: dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(value, (dict, type(None))):
        raise ValueError(f"`{name}` must be a dictionary or None, got {value!r}")
    found: dict[str, Any] = plain(value or {}, f"`{name}`")
    return found


def _known_environment(env: VecEnv | None) -> tuple[str | None, dict[str, Any]]:
    """Return id and ``gym.make`` arguments of a model's environment; they are unknown if it runs in another process."""
    inner = env.unwrapped if env is not None else None
    spec = inner.envs[0].spec if isinstance(inner, DummyVecEnv) else None
    if spec is None or spec.id not in gym.registry:
        return None, {}
    registered = gym.registry[spec.id].kwargs
    given = {key: value for key, value in spec.kwargs.items() if key not in registered or registered[key] is not value}
    given.pop("render_mode", None)
    return spec.id, given


def hyperparameters_of(model: BaseAlgorithm) -> dict[str, Any]:
    """Return the hyperparameters of a model that are plain data, by name: schedules are not, except constants."""
    found = {}
    for name in ("n_envs", *inspect.signature(type(model)).parameters):
        if name in _NO_HYPERPARAMETERS or not hasattr(model, name):
            continue
        value = getattr(model, name)
        if isinstance(value, FloatSchedule):  # SB3 also keeps constants this way
            value = value.value_schedule
        if isinstance(value, ConstantSchedule):
            value = value.val
        if value is None or isinstance(value, (bool, int, float, str, np.generic)):
            found[name] = plain(value, name)
    return found


def _training_summary(model: BaseAlgorithm) -> dict[str, Any]:
    return {
        "algorithm": type(model).__name__,
        "timesteps": int(model.num_timesteps),
        "versions": versions_of(_PACKAGES),
        "hyperparameters": hyperparameters_of(model),
    }
