"""
The state of a vectorised environment: of its wrappers, and of each environment that can give its own.

An environment gives it by two methods of its outermost layer that has them, as PyTorch's modules do: ``state_dict()``
and ``load_state_dict(state)``. All of ours have them.
"""

from __future__ import annotations

import re
from typing import Any

from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_trmrl.common.env_layers import layers_of
from sb3_trmrl.common.plain_state import plain_state, set_plain_state

#: What wrappers hold besides plain data: VecNormalize's statistics, VecFrameStack's frames
_HELD_BY_WRAPPERS = (RunningMeanStd, StackedObservations)
#: Attributes of Monitor and of Gymnasium's TimeLimit. They lie around what gives its state, in another process perhaps,
#: where only attributes can be asked for.
_OF_MONITOR = (
    *("rewards", "needs_reset", "current_reset_info", "total_steps"),
    *("episode_returns", "episode_lengths", "episode_times"),
)
_OF_OUTER_LAYERS = (*_OF_MONITOR, "_elapsed_steps")
#: Wrappers that hold nothing else which decides how an environment goes on
_WITHOUT_STATE = {
    *("Monitor", "OrderEnforcing", "PassiveEnvChecker", "TimeLimit"),
    *("PreviousTransitionObservation", "TaskObservation"),
    *("ClipAction", "RescaleAction", "TransformAction", "ClipReward", "TransformReward"),
    *("DtypeObservation", "FilterObservation", "FlattenObservation", "GrayscaleObservation", "RescaleObservation"),
    *("ReshapeObservation", "ResizeObservation", "TransformObservation"),
}


def environment_states(env: VecEnv) -> list[dict[str, Any]] | None:
    """
    :param env: Vectorised environment
    :return: The state of each of its environments, None if not all of them can give theirs, or if a wrapper around one
        of them may hold a state of its own
    """
    base = _layers(env)[-1]
    if not _has_attr(base, "state_dict"):
        return None
    states = base.env_method("state_dict")
    if any(state is None for state in states) or unknown_wrappers(base, states):
        return None
    return states


def unknown_wrappers(base: VecEnv, states: list[dict[str, Any]]) -> set[str]:
    """
    :param base: Vectorised environment without wrappers of its own
    :param states: What its environments gave
    :return: Classes of wrappers around what gave them that are not known to hold nothing
    """
    unknown: set[str] = set()
    for index, (text, state) in enumerate(zip(base.env_method("__str__"), states, strict=True)):
        # <Monitor<OrderEnforcing<MultiEpisodeTrial<Name instance>>>>, or <Name<id>> inside
        match = re.match(r"((?:<\w+)*)<\w+(?: instance|<[^<>]*>)>", text)
        wrappers = match[1].split("<")[1:] if match else [text]
        speaker = str(state.get("layer"))
        if isinstance(base, DummyVecEnv):
            speaking = (layer for layer in layers_of(base.envs[index]) if hasattr(layer, "state_dict"))
            speaker = type(next(speaking)).__name__
        outside = wrappers[: wrappers.index(speaker)] if speaker in wrappers else wrappers
        unknown |= set(outside) - _WITHOUT_STATE
    return unknown


def vec_env_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: Vectorised environment
    :return: Its state, of plain data, statistics and what environments return. Of environments that cannot give theirs
        there is the generator only
    """
    layers = _layers(env)
    base = layers[-1]
    environments = environment_states(base)
    names = [] if environments is None else [name for name in _OF_OUTER_LAYERS if base.has_attr(name)]
    return {
        "layers": [type(layer).__name__ for layer in layers],
        "n_envs": base.num_envs,
        "wrappers": [plain_state(layer, _HELD_BY_WRAPPERS) for layer in layers[:-1]],
        "environments": environments,
        "generators": _generators(base) if environments is None else None,
        "outer_layers": {name: base.get_attr(name) for name in names},
        # Of the first reset, which may be yet to come
        "seeds": list(base._seeds),
        "options": list(base._options),
    }


def set_vec_env_state(env: VecEnv, state: dict[str, Any]) -> bool:
    """
    Go on from a state.

    :param env: Vectorised environment made as the one that the state is of
    :param state: What :func:`vec_env_state` returned
    :return: Whether its environments go on where they were; if not, they could not give their states, and the next
        ``reset`` begins new episodes with their generators
    :raises ValueError: if it has other wrappers or another number of environments
    """
    check_fits(env, state)
    layers = _layers(env)
    base = layers[-1]
    env.reset()  # so that every layer is ready to step
    for wrapper, attributes in zip(layers, state["wrappers"], strict=False):
        set_plain_state(wrapper, attributes)
    for index, generator in enumerate(state["generators"] or []):
        base.env_method("set_wrapper_attr", "np_random", generator, indices=index)
    for index, environment in enumerate(state["environments"] or []):
        base.env_method("load_state_dict", environment, indices=index)
    outermost = [text.startswith("<Monitor<") for text in base.env_method("__str__")]
    for name, values in state["outer_layers"].items():
        for index, value in enumerate(values):
            # Gymnasium 1.0 looks for the attribute from the second layer on
            is_here = outermost[index] and name in _OF_MONITOR
            base.env_method("__setattr__" if is_here else "set_wrapper_attr", name, value, indices=index)
    base._seeds, base._options = list(state["seeds"]), list(state["options"])
    return state["environments"] is not None


def check_fits(env: VecEnv, state: dict[str, Any]) -> None:
    """
    :param env: Vectorised environment
    :param state: What :func:`vec_env_state` returned
    :raises ValueError: if the environment has other wrappers or another number of environments
    """
    if env.num_envs != state["n_envs"]:
        raise ValueError(f"`env` must have {state['n_envs']} environments, as when it was saved; it has {env.num_envs}")
    layers = [type(layer).__name__ for layer in _layers(env)]
    # The kind of the innermost one, DummyVecEnv or SubprocVecEnv, does not matter
    if layers[:-1] != state["layers"][:-1]:
        saved = " around ".join(state["layers"])
        raise ValueError(f"`env` must be {saved}, as when it was saved; it is {' around '.join(layers)}")


def _layers(env: VecEnv) -> list[VecEnv]:
    """
    :param env: Vectorised environment
    :return: It and what it wraps, outermost first
    """
    layers = [env]
    while isinstance(layers[-1], VecEnvWrapper):
        layers.append(layers[-1].venv)
    return layers


def _generators(base: VecEnv) -> list[Any] | None:
    return base.get_attr("np_random") if _has_attr(base, "np_random") else None


def _has_attr(base: VecEnv, name: str) -> bool:
    try:
        return base.has_attr(name)
    except NotImplementedError:  # vectorised environments that give no access to what they hold
        return False
