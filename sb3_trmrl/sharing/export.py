"""Writing a trained agent as a file that is safe to load."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl.common.checks import check_instance, check_path
from sb3_trmrl.common.versions import versions_of
from sb3_trmrl.sharing.agent import FORMAT, FORMAT_VERSION, SUFFIX, WEIGHTS, check_env_id, read_agent
from sb3_trmrl.sharing.container import pack, write_file
from sb3_trmrl.sharing.policy_json import settings_to_json, weights_of
from sb3_trmrl.sharing.space_json import space_to_json
from sb3_trmrl.sharing.statistics import ObservationStatistics
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, plain, plain_object
from sb3_trmrl.transformer_ppo import TransformerPPO

#: Attributes of a model that a summary tells, where they are plain data: a schedule is not
_HYPERPARAMETERS = (
    "learning_rate",
    "vf_learning_rate",
    "n_envs",
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "clip_range",
    "clip_range_vf",
    "normalize_advantage",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "target_kl",
    "use_sde",
    "sde_sample_freq",
    "seed",
)
_PACKAGES = ("gymnasium", "numpy", "sb3_trmrl", "stable_baselines3", "torch")


def export_agent(
    model: BaseAlgorithm,
    path: str | PathLike[str],
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vec_normalize: VecNormalize | None = None,
    summary: dict[str, Any] | None = None,
) -> Path:
    """
    See :meth:`sb3_trmrl.TransformerPPO.export`.

    :param model: Model with a TrMRL policy
    :param path: File to write
    :param env_id: Registered id of the environment
    :param env_kwargs: Arguments of the environment
    :param vec_normalize: Wrapper with the statistics of observations
    :param summary: What to add to the summary
    :return: The file
    :raises TypeError: if ``path`` or ``vec_normalize`` is of another type
    :raises ValueError: if the agent cannot be exported
    """
    target = check_path("path", path)
    target = target if target.suffix else target.with_name(f"{target.name}{SUFFIX}")
    if target.suffix != SUFFIX:
        raise ValueError(f"`path` must end with {SUFFIX}, got {str(path)!r}")
    check_instance("vec_normalize", vec_normalize, (VecNormalize, type(None)), "a VecNormalize or None")
    known_id, known_kwargs = environment_of(model.get_env())
    if env_id is None or env_id == known_id:
        env_id, env_kwargs = known_id, known_kwargs if env_kwargs is None else env_kwargs
    normalizer = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    statistics = ObservationStatistics.of(normalizer)
    policy: Any = model.policy
    try:
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "observation_space": space_to_json(policy.observation_space, "observation_space"),
            "action_space": space_to_json(policy.action_space, "action_space"),
            "policy": settings_to_json(policy),
            "normalization": None if statistics is None else statistics.to_json(),
            "env_id": None if env_id is None else check_env_id(env_id),
            "env_kwargs": plain_object({} if env_kwargs is None else env_kwargs, "`env_kwargs`"),
            "summary": {**_training(model), **plain_object({} if summary is None else summary, "`summary`")},
        }
        weights = {f"{WEIGHTS}{key}": tensor.detach().cpu() for key, tensor in weights_of(policy).items()}
        data = pack(description, {**weights, **(statistics.tensors() if statistics else {})})
        read_agent(data, th.device("cpu"))  # so that no file is written that could not be loaded
    except InvalidAgentFile as error:
        raise ValueError(f"the agent cannot be exported: {error}") from error
    write_file(target, data)
    return target


def environment_of(env: VecEnv | None) -> tuple[str | None, dict[str, Any]]:
    """
    :param env: Environment of a model
    :return: Registered id and the arguments that were given to ``gym.make``; None and nothing if that is not known, as
        for environments in other processes
    """
    inner = env.unwrapped if env is not None else None
    spec = inner.envs[0].spec if isinstance(inner, DummyVecEnv) else None
    if spec is None or spec.id not in gym.registry:
        return None, {}
    registered = gym.registry[spec.id].kwargs
    given = {key: value for key, value in spec.kwargs.items() if key not in registered or registered[key] is not value}
    given.pop("render_mode", None)
    return spec.id, given


def hyperparameters_of(model: BaseAlgorithm) -> dict[str, Any]:
    """
    :param model: Model
    :return: Those of its arguments that are plain data
    """
    found = {}
    for name in _HYPERPARAMETERS:
        value = getattr(model, name, None)
        if isinstance(value, FloatSchedule):  # as SB3 keeps a constant, too
            value = value.value_schedule
        if isinstance(value, ConstantSchedule):
            value = value.val
        if value is None or isinstance(value, (bool, int, float, str, np.generic)):
            found[name] = plain(value, name)
    return found


def _training(model: BaseAlgorithm) -> dict[str, Any]:
    """
    :param model: Model
    :return: What is known about its training
    """
    return {
        "algorithm": type(model).__name__,
        "timesteps": int(model.num_timesteps),
        "versions": versions_of(_PACKAGES),
        "hyperparameters": hyperparameters_of(model),
    }


TransformerPPO.register_exporter(export_agent)
