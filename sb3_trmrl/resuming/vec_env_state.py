"""
The state of a vectorised environment: of its wrappers, and of each layer of each environment in it.

As in PyTorch's modules, the state of an environment, or of a layer of one, is accessed with two methods:
``state_dict()`` and ``load_state_dict(state)``. All environments of this package have them. For layers without these
methods, see :mod:`sb3_trmrl.common.plain_state`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from sb3_trmrl.common.plain_state import layer_states, load_layer_states, plain_state, set_plain_state

_CALL = "_sb3_trmrl_call"
#: Statistics of VecNormalize
_STATISTICS = ("obs_rms", "ret_rms")


class _OffersCall(type):
    """
    Makes the check ``isinstance(layer, Outermost)`` add a method to the layer that calls any function with the layer.

    The worker processes of a SubprocVecEnv only look up names, from the outermost layer inwards: a layer cannot be
    reached if a layer outside it has the same name. The only request that passes a layer to our code is
    ``env_is_wrapped``, where the worker calls ``isinstance`` with each layer, the outermost one first.
    """

    def __instancecheck__(cls, layer: Any) -> bool:
        setattr(layer, _CALL, partial(_call_once, layer))
        return True


class Outermost(metaclass=_OffersCall):
    """Stands for the outermost wrapper of an environment."""


def _call_once(layer: gym.Env, function: Callable[..., Any], *args: Any) -> Any:
    delattr(layer, _CALL)
    return function(layer, *args)


def _call(base: VecEnv, index: int, function: Callable[..., Any], method: str, *args: Any) -> Any:
    """Call a function with an environment in its process, or a method if the environment has no wrapper."""
    if base.env_is_wrapped(Outermost, indices=index)[0]:  # type: ignore[arg-type]
        return base.env_method(_CALL, function, *args, indices=index)[0]
    return base.env_method(method, *args, indices=index)[0]


def _has_attr(base: VecEnv, name: str) -> bool:
    try:
        return base.has_attr(name)
    except NotImplementedError:  # vectorised environments that do not give access to their environments
        return False


def _environment_states(base: VecEnv) -> list[Any] | None:
    """Return the state of each environment, or None if a layer of one of them cannot provide its state."""
    if not _has_attr(base, "state_dict"):
        return None
    states = [_call(base, index, layer_states, "state_dict") for index in range(base.num_envs)]
    return None if any(state is None for state in states) else states


def vec_env_state(env: VecEnv) -> dict[str, Any]:
    """Return the state of a vectorised environment, or its random generators if an environment has no state."""
    layers = _layers(env)
    base = layers[-1]
    environments = _environment_states(base)
    has_generators = environments is None and _has_attr(base, "np_random")
    return {
        "layers": [type(layer).__name__ for layer in layers],
        "n_envs": base.num_envs,
        "wrappers": [plain_state(layer) for layer in layers[:-1]],
        "environments": environments,
        "generators": base.get_attr("np_random") if has_generators else [],
        # Of the first reset, which may not have happened yet
        "seeds": list(base._seeds),
        "options": list(base._options),
    }


def set_vec_env_state(env: VecEnv, state: dict[str, Any]) -> bool:
    """Restore the state of a vectorised environment; return whether the environments continue their episodes."""
    # If not, they could not give their states, and the next reset begins new episodes with the saved generators
    check_same_layers(env, state)
    layers = _layers(env)
    base = layers[-1]
    env.reset()  # makes every layer ready to step
    for wrapper, attributes in zip(layers[:-1], state["wrappers"], strict=True):
        set_plain_state(wrapper, attributes)
    for index, generator in enumerate(state["generators"]):
        base.env_method("set_wrapper_attr", "np_random", generator, indices=index)
    for index, environment in enumerate(state["environments"] or []):
        _call(base, index, load_layer_states, "load_state_dict", environment)
    base._seeds, base._options = list(state["seeds"]), list(state["options"])
    return state["environments"] is not None


def set_statistics(env: VecEnv, state: dict[str, Any]) -> None:
    """Restore only the statistics of VecNormalize, which all environments share."""
    for wrapper, attributes in zip(_layers(env)[:-1], state["wrappers"], strict=True):
        if isinstance(wrapper, VecNormalize):
            set_plain_state(wrapper, {name: attributes[name] for name in _STATISTICS if name in attributes})


def check_same_layers(env: VecEnv, state: dict[str, Any], check_number: bool = True) -> None:
    """Raise ``ValueError`` if the environment has other wrappers or another number of environments."""
    if check_number and env.num_envs != state["n_envs"]:
        raise ValueError(f"`env` must have {state['n_envs']} environments, as when it was saved; it has {env.num_envs}")
    layers = [type(layer).__name__ for layer in _layers(env)]
    # The innermost one may be a DummyVecEnv or a SubprocVecEnv
    if layers[:-1] != state["layers"][:-1]:
        saved = " around ".join(state["layers"])
        raise ValueError(f"`env` must be {saved}, as when it was saved; it is {' around '.join(layers)}")


def _layers(env: VecEnv) -> list[VecEnv]:
    """Return a vectorised environment and what it wraps, outermost first."""
    layers = [env]
    while isinstance(layers[-1], VecEnvWrapper):
        layers.append(layers[-1].venv)
    return layers
