"""
Checks of arguments that SB3's algorithms and policies share. SB3 does not check them: it would train with a discount of
2 or a clip range of -1.

As in :mod:`sb3_trmrl.common.checks`, each check takes the name of the argument and its value. It raises a TypeError for
a wrong type and a ValueError for a value that is out of range.
"""

import functools
import inspect
import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_trmrl.common.checks import (
    check_between,
    check_bool,
    check_callable,
    check_instance,
    check_int,
    check_keywords,
    check_names,
    check_non_negative,
    check_number,
    check_option,
    check_positive,
    check_positive_int,
    check_seed,
    check_subclass,
    check_whole_number,
    short_repr,
)

Check = Callable[[str, Any], Any]

_P = ParamSpec("_P")


def names_policy_kwargs(policy: type[BasePolicy]) -> Callable[[Callable[_P, None]], Callable[_P, None]]:
    """Let a constructor say that an argument of the policy, for example its size, belongs in ``policy_kwargs``."""

    def decorate(constructor: Callable[_P, None]) -> Callable[_P, None]:
        @functools.wraps(constructor)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
            own, of_policy = (inspect.signature(each).parameters for each in (constructor, policy))
            for name, value in kwargs.items():
                if name in of_policy and name not in own:
                    place = f"policy_kwargs=dict({name}={short_repr(value)})"
                    raise TypeError(f"`{name}` is an argument of the policy: pass it in {place}")
            constructor(*args, **kwargs)

        return checked

    return decorate


#: Largest observation: networks compute products of observations and weights, and their squares, in 32 bits
MAX_OBSERVATION = 1e18


def check_schedule(name: str, value: Any) -> None:
    """Require a number, or a function of the progress remaining, that is finite and non-negative at the start."""
    if not callable(value):
        check_instance(name, value, (float, int), "a number or a schedule, a function of the progress remaining")
        check_non_negative(name, value)
        return
    try:
        number = float(value(1.0))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be a number or a schedule that returns one, got {value!r}: {error}") from error
    check_non_negative(f"{name}(1.0)", number)


def check_net_arch(name: str, value: Any) -> None:
    """Require a list of layer sizes, or a dictionary of such lists with the keys ``"pi"`` and ``"vf"``."""
    allowed = "a list of layer sizes, or a dictionary of two with the keys 'pi' and 'vf'"
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]  # a deprecated form, about which SB3 warns
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in ("pi", "vf")]
        if unknown:
            raise ValueError(f"`{name}` must be {allowed}, got the key {', '.join(map(repr, unknown))}")
        for key, sizes in value.items():
            check_sizes(f"{name}[{key!r}]", sizes, "a list of layer sizes")
    else:
        check_sizes(name, value, allowed)


def check_sizes(name: str, value: Any, allowed: str = "a list of layer sizes") -> None:
    """Require a list of positive integers."""
    check_instance(name, value, (list, tuple), allowed)
    for index, size in enumerate(value):
        check_positive_int(f"{name}[{index}]", size)


def check_activation(name: str, value: Any) -> None:
    """Require a callable that returns a module, usually a class."""
    try:
        made = value() if callable(value) else None
    except TypeError:
        made = None
    if not isinstance(made, nn.Module):
        raise TypeError(f"`{name}` must be an nn.Module class such as nn.Tanh, got {value!r}")


def check_optimizer(name: str, value: Any) -> None:
    """Require a callable that returns an optimizer, usually a class."""
    if isinstance(value, type) or not callable(value):
        check_subclass(name, value, th.optim.Optimizer)


def check_device(name: str, value: Any) -> None:
    """Require ``"auto"`` or a device that PyTorch knows."""
    try:
        th.device("cpu" if value == "auto" else value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`{name}` must be 'auto' or a PyTorch device such as 'cpu', got {value!r}") from error


def check_callbacks(name: str, value: Any) -> None:
    """Require a callback, a list of callbacks, a function or None."""
    allowed = "an SB3 callback, a list of them, a function or None"
    if isinstance(value, list):
        for index, each in enumerate(value):
            check_instance(f"{name}[{index}]", each, BaseCallback, "an SB3 callback")
    elif value is not None and (isinstance(value, type) or not callable(value)):
        check_instance(name, value, BaseCallback, allowed)


def check_env(name: str, value: Any, allowed: str = "a Gymnasium environment or a VecEnv") -> None:
    """Require a Gymnasium environment, an environment of the old Gym, or a VecEnv, with supported spaces."""
    is_old_gym = hasattr(value, "step") and not isinstance(value, type)  # which SB3 converts
    if not (isinstance(value, VecEnv) or is_old_gym):
        check_instance(name, value, gym.Env, allowed)
    if isinstance(value, (VecEnv, gym.Env)):  # before it is put into a VecEnv, which fails for some spaces
        check_spaces(value.observation_space, value.action_space)


def check_policy(value: Any, aliases: Mapping[str, type[BasePolicy]]) -> type[Any]:
    """Require the name of a policy, or a subclass of the first one; a zip may give another. Return the class."""
    if isinstance(value, str):
        return aliases[check_option("policy", value, aliases)]
    alias, policy_class = next(iter(aliases.items()))
    if not (isinstance(value, type) and issubclass(value, policy_class)):
        kind = ValueError if isinstance(value, type) else TypeError
        parent = "it" if alias == policy_class.__name__ else policy_class.__name__
        raise kind(
            f"`policy` must be {alias!r} or a subclass of {parent}, got {getattr(value, '__name__', repr(value))}. "
            "Was the zip that you are loading saved by another algorithm?"
        )
    return value


def check_env_of(model: BaseAlgorithm) -> None:
    """Require that the model has been given an environment, or the spaces of one by a zip."""
    if getattr(model, "observation_space", None) is None:
        raise TypeError("`env` must be a Gymnasium environment, a VecEnv or a registered id, got None")


def check_sampled_trials(env: VecEnv) -> None:
    """Require trials of tasks that are sampled, in all copies."""
    missing = [name for name in ("episodes_per_trial", "tasks", "sample_tasks") if not env.has_attr(name)]
    if missing:
        raise ValueError(
            f"`env` must play trials, wrap it in sb3_trmrl.MultiEpisodeTrial: it has no {', '.join(missing)}"
        )
    if any(tasks is not None for tasks in env.get_attr("tasks")):
        raise ValueError("`env` must sample its tasks: make it with split='train', or without `tasks`")


#: What to do about observations that are not arrays of numbers, by the kind of space
_OBSERVATION_WRAPPERS = {
    spaces.Tuple: "convert it to an array with gymnasium.wrappers.FlattenObservation",
    spaces.Dict: "convert nested dictionaries to an array with gymnasium.wrappers.FlattenObservation",
    spaces.Text: "convert it to an array with gymnasium.wrappers.FlattenObservation. MiniGrid's observations without "
    "the text of the mission come from minigrid.wrappers.ImgObsWrapper",
}
_SUPPORTED_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Require spaces that PPO and the memory can represent. The message names the space and a wrapper that helps."""
    entries = {"": observation_space}
    if isinstance(observation_space, spaces.Dict):
        entries = {f" under the key {key!r}": space for key, space in observation_space.spaces.items()}
    for place, space in entries.items():
        if not isinstance(space, _SUPPORTED_SPACES):
            advice = _OBSERVATION_WRAPPERS.get(type(space), "wrap it in gymnasium.wrappers.TransformObservation")
            raise ValueError(
                f"`env` has the observation space {space}{place}, which is not an array of numbers: {advice}"
            )
        _check_start(space, f"observation space {space}{place}", "TransformObservation")
        if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1:
            raise ValueError(
                f"`env` has the observation space {space}{place} with several axes, which SB3 does not encode: flatten "
                "it with gymnasium.wrappers.TransformObservation"
            )
    if isinstance(action_space, (spaces.Tuple, spaces.Dict)):
        raise ValueError(
            f"`env` has the action space {action_space}, PPO needs Box, Discrete, MultiDiscrete or MultiBinary: "
            "wrap it in gymnasium.wrappers.TransformAction"
        )
    _check_start(action_space, f"action space {action_space}", "TransformAction")


def _check_start(space: spaces.Space[Any], name: str, wrapper: str) -> None:
    """SB3 counts classes from 0, whatever the space says."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start != 0):
        raise ValueError(
            f"`env` has the {name}, whose first class is not 0: shift it with gymnasium.wrappers.{wrapper}"
        )


def _sample_freq(name: str, value: Any) -> None:
    if check_int(name, value, low=-1) == 0:
        raise ValueError(f"`{name}` must be at least 1, or -1 for the beginning of the rollout, got 0")


def _path(name: str, value: Any) -> None:
    check_instance(name, value, (str, os.PathLike), "a folder or None")


def or_none(check: Check) -> Check:
    """Return a check that also allows None."""
    return lambda name, value: None if value is None else check(name, value)


#: Arguments of an on-policy algorithm of SB3, which are also the names of the attributes
PPO_CHECKS: dict[str, Check] = {
    "learning_rate": check_schedule,
    "n_steps": check_positive_int,
    "batch_size": check_positive_int,
    "n_epochs": check_positive_int,
    "gamma": lambda name, value: check_between(name, value, 0, 1),
    "gae_lambda": lambda name, value: check_between(name, value, 0, 1),
    "clip_range": check_schedule,
    "clip_range_vf": or_none(lambda name, value: (check_schedule if callable(value) else check_positive)(name, value)),
    "normalize_advantage": check_bool,
    "ent_coef": check_number,
    "vf_coef": check_non_negative,
    "max_grad_norm": lambda name, value: check_positive(name, value, finite=False),
    "use_sde": check_bool,
    "sde_sample_freq": _sample_freq,
    "rollout_buffer_class": or_none(lambda name, value: check_subclass(name, value, RolloutBuffer)),
    "rollout_buffer_kwargs": check_keywords,
    "target_kl": or_none(lambda name, value: check_positive(name, value, finite=False)),
    "stats_window_size": check_positive_int,
    "tensorboard_log": or_none(_path),
    "policy_kwargs": check_keywords,
    "seed": or_none(check_seed),
    "device": check_device,
}

#: Arguments of SB3's actor-critic policy. Without gSDE, SB3 saves None for those of gSDE
POLICY_CHECKS: dict[str, Check] = {
    "observation_space": lambda name, value: check_instance(name, value, spaces.Space, "a Gymnasium space"),
    "action_space": lambda name, value: check_instance(name, value, spaces.Space, "a Gymnasium space"),
    "lr_schedule": lambda name, value: check_callable(name, value, "a schedule, a function of the progress remaining"),
    "net_arch": or_none(check_net_arch),
    "activation_fn": check_activation,
    "ortho_init": check_bool,
    "use_sde": check_bool,
    "log_std_init": check_number,
    "full_std": or_none(check_bool),
    "use_expln": or_none(check_bool),
    "squash_output": or_none(check_bool),
    "features_extractor_class": or_none(lambda name, value: check_subclass(name, value, BaseFeaturesExtractor)),
    "features_extractor_kwargs": check_keywords,
    "share_features_extractor": check_bool,
    "normalize_images": check_bool,
    "optimizer_class": check_optimizer,
    "optimizer_kwargs": check_keywords,
}

#: Arguments of ``learn``, ``load`` and ``save``. Paths are checked where they are used
LEARN_CHECKS: dict[str, Check] = {
    "total_timesteps": check_whole_number,
    "callback": check_callbacks,
    "log_interval": or_none(check_positive_int),
    "tb_log_name": or_none(lambda name, value: check_instance(name, value, str, "a name")),
    "reset_num_timesteps": check_bool,
    "progress_bar": check_bool,
}
LOAD_CHECKS: dict[str, Check] = {
    "device": check_device,
    "custom_objects": check_keywords,
    "print_system_info": check_bool,
    "force_reset": check_bool,
}
SAVE_CHECKS: dict[str, Check] = {"exclude": check_names, "include": check_names}


def check_zip(path: Any, algorithm: str, newest_format: int = 1) -> None:
    """If the file exists, require the intact zip of a model. SB3 would read a damaged zip until something fails."""
    check_instance("path", path, (str, os.PathLike, io.IOBase), "a file")
    if isinstance(path, io.IOBase):
        return
    target = pathlib.Path(path)
    target = target if target.exists() else target.with_name(f"{target.name}.zip")
    if not target.exists() or target.is_dir():
        return  # SB3 raises an error
    if not target.is_file():  # reading a device may never end
        raise ValueError(f"`path` must be a zip that {algorithm}.save wrote, {str(target)!r} is not a regular file")
    try:
        with zipfile.ZipFile(target) as file:
            problem = file.testzip()
            if problem is None:
                missing = [name for name in ("data", "policy.pth") if name not in file.namelist()]
                problem = missing[0] if missing else None
            if problem is None:
                data = json.loads(file.read("data"))
                problem = None if isinstance(data, dict) else "data"
                if problem is None and (found := data.get("zip_format", 1)) not in range(1, newest_format + 1):
                    problem = f"it has format {found}, this version of sb3_trmrl reads 1 to {newest_format}"
    except (zipfile.BadZipFile, EOFError, ValueError, zlib.error) as error:
        problem = str(error)
    if problem is not None:
        raise ValueError(f"`path` must be a zip that {algorithm}.save wrote, got {str(target)!r}: {problem}")


def check_arguments(arguments: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Check those arguments for which there is a check. Others are ignored."""
    for name, check in checks.items():
        if name in arguments:
            check(name, arguments[name])


def own_arguments(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor, whose first statement passes its ``locals()``."""
    return {name: value for name, value in variables.items() if name not in ("self", "__class__")}


def check_batch_size(batch_size: int, rollout_size: int = 2) -> None:
    """Require two transitions in a minibatch and in the rollout: with a single one, the normalized advantage is NaN."""
    if batch_size == 1:
        raise ValueError("`batch_size` must be at least 2 with `normalize_advantage`, got 1")
    if rollout_size == 1:
        raise ValueError("`n_steps` must be at least 2 with one environment and `normalize_advantage`, got 1")
