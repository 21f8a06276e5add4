"""What a model reads of an environment's observations: its VecEnv may normalise them and stack frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnvWrapper, VecFrameStack, VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_trmrl.trials.agent import Agent


class ModelInput:
    """
    Normalises and stacks observations in the order in which the wrappers of the model's own VecEnv do.

    :param model: Agent; one without an environment does not stack frames
    :param vec_normalize: Statistics to normalise with, or None
    """

    def __init__(self, model: Agent, vec_normalize: VecNormalize | None) -> None:
        wrappers = _wrappers(model)
        n_inside = max((i for i, each in enumerate(wrappers, start=1) if isinstance(each, VecFrameStack)), default=0)
        # Images are transposed by the policy, except where frames are stacked outside VecTransposeImage
        self._layers = wrappers[:n_inside]
        if vec_normalize is None:
            self._layers = [each for each in self._layers if not isinstance(each, VecNormalize)]
        elif any(isinstance(each, VecNormalize) for each in self._layers):
            self._layers = [vec_normalize if isinstance(each, VecNormalize) else each for each in self._layers]
        elif any(isinstance(each, VecNormalize) for each in wrappers):
            self._layers = [*self._layers, vec_normalize]
        else:
            self._layers = [vec_normalize, *self._layers]
        self._stacks: dict[int, StackedObservations[Any]] = {}

    @property
    def stacks_frames(self) -> bool:
        """Whether the model reads several frames at once"""
        return any(isinstance(layer, VecFrameStack) for layer in self._layers)

    def reset(self, observation: Any, n_envs: int) -> Any:
        """Return the model's input at the first step of ``n_envs`` environments."""
        for index, layer in enumerate(self._layers):
            if isinstance(layer, VecFrameStack):
                own: StackedObservations[Any] = layer.stacked_obs
                stack = StackedObservations(n_envs, own.n_stack, own.observation_space, _channels_order(own))
                self._stacks[index] = stack
                observation = stack.reset(observation)
            else:
                observation = _apply(layer, observation)
        return observation

    def update(self, observation: Any, dones: np.ndarray) -> Any:
        """Return the model's input at the next step. Frames of finished episodes are forgotten."""
        for index, layer in enumerate(self._layers):
            if isinstance(layer, VecFrameStack):
                # Nobody reads the stack of the terminal observation
                infos = [{"terminal_observation": _of_env(observation, env)} for env in range(len(dones))]
                observation, _ = self._stacks[index].update(observation, dones, infos)
            else:
                observation = _apply(layer, observation)
        return observation


def _wrappers(model: Agent) -> list[VecEnvWrapper]:
    """Return the wrappers of the model's VecEnv, the innermost first."""
    env = model.get_env() if hasattr(model, "get_env") else None
    wrappers: list[VecEnvWrapper] = []
    while isinstance(env, VecEnvWrapper):
        wrappers.insert(0, env)
        env = env.venv
    return wrappers


def _apply(layer: VecEnvWrapper, observation: Any) -> Any:
    if isinstance(layer, VecNormalize):
        return layer.normalize_obs(observation)
    return layer.transpose_observations(observation) if isinstance(layer, VecTransposeImage) else observation


def _channels_order(stack: StackedObservations[Any]) -> Any:
    if hasattr(stack, "sub_stacked_observations"):
        return {key: _channels_order(each) for key, each in stack.sub_stacked_observations.items()}
    return "first" if stack.channels_first else "last"


def _of_env(observation: Any, env: int) -> Any:
    return {key: each[env] for key, each in observation.items()} if isinstance(observation, dict) else observation[env]
