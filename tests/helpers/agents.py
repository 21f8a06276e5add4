"""A tiny model, an environment with any spaces, and tables of spaces."""

import json
import zipfile
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.windows import Windows
from sb3_trmrl.memory.working_memory import WorkingMemory
from sb3_trmrl.transformer_ppo import TransformerPPO

Space = spaces.Space[Any]
TINY: dict[str, Any] = dict(d_model=8, n_layers=1, n_heads=2, dim_feedforward=8)

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE_FIRST = spaces.Box(0, 255, (1, 36, 36), np.uint8)
IMAGE_LAST = spaces.Box(0, 255, (36, 36, 1), np.uint8)
TRANSITION = spaces.Dict(
    observation=VECTOR,
    prev_action=spaces.Box(0.0, 1.0, (2,), np.float32),
    prev_reward=spaces.Box(-np.inf, np.inf, (1,), np.float32),
    prev_done=spaces.Box(0.0, 1.0, (1,), np.float32),
)
MIXED = spaces.Dict(
    vector=VECTOR, wide=spaces.Box(-1.0, 1.0, (2, 2), np.float64), choice=spaces.Discrete(4), image=IMAGE_LAST
)
OBSERVATION_SPACES: dict[str, Space] = {
    "box": VECTOR,
    "box-float64": spaces.Box(-1.0, 1.0, (3,), np.float64),
    "box-float16": spaces.Box(-1.0, 1.0, (3,), np.float16),
    "box-matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "box-unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "box-int32": spaces.Box(-5, 5, (3,), np.int32),
    "box-uint16": spaces.Box(0, 5, (3,), np.uint16),
    "box-uint32": spaces.Box(0, 5, (3,), np.uint32),
    "box-small-image": spaces.Box(0, 255, (1, 8, 8), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([4, 3]),
    "multi-binary": spaces.MultiBinary(5),
    "multi-binary-matrix": spaces.MultiBinary((2, 3)),
    "image-channels-first": IMAGE_FIRST,
    "image-channels-last": IMAGE_LAST,
    "dict": MIXED,
    "dict-transition": TRANSITION,
}
BOX_ACTION = spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([3.0, 5.0], np.float32))
ACTION_SPACES: dict[str, Space] = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "box": BOX_ACTION,
    "box-float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "box-matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
}
CRITICS = {
    f"{critic_input}-{'shared' if share else 'own'}": dict(critic_input=critic_input, share_features_extractor=share)
    for critic_input in ("memory", "token")
    for share in (True, False)
}


class SampledEnv(gym.Env):
    """
    Random observations from any space and a reward for positive actions. Every second episode is truncated, the others
    terminate. Each episode is one step longer than the one before, from ``length`` to twice that. An integer ``reward``
    makes rewards integers.
    """

    def __init__(
        self,
        observation_space: Space = VECTOR,
        action_space: Space | None = None,
        length: int = 5,
        reward: float = 1.0,
    ) -> None:
        self.observation_space = deepcopy(observation_space)
        self.action_space = deepcopy(spaces.Discrete(2) if action_space is None else action_space)
        self.length, self.reward = length, reward
        self.inner_length = 3  # steps of an inner episode, where observations have a `prev_done`
        self.n_episodes = 0
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.n_episodes += 1
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.actions.append(np.array(action))
        self.n_steps += 1
        over = self.n_steps >= self.length + (self.n_episodes - 1) % self.length
        truncated = self.n_episodes % 2 == 0
        reward = self.reward * type(self.reward)(np.sum(action) > 0)
        return self._observe(), reward, over and not truncated, over and truncated, {}

    def _observe(self) -> Any:
        observation = self.observation_space.sample()
        if isinstance(self.observation_space, spaces.Dict) and "prev_done" in self.observation_space.spaces:
            over = self.n_steps > 0 and self.n_steps % self.inner_length == 0
            observation["prev_done"] = np.array([over], np.float32)
        return observation


class Still:
    """An agent that always takes the first action."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, **_: Any) -> Any:
        return np.zeros(len(episode_start), dtype=int), None


class LinearFeatures(BaseFeaturesExtractor):
    """A custom features extractor with an argument."""

    def __init__(self, observation_space: Space, width: int = 3) -> None:
        super().__init__(observation_space, width)
        self.linear = nn.Linear(get_flattened_obs_dim(observation_space), width)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.as_tensor(self.linear(observations.flatten(1)))


def sampled_vec_env(
    n_envs: int = 2, observation_space: Space = VECTOR, action_space: Space | None = None, length: int = 5
) -> DummyVecEnv:
    """Return ``n_envs`` environments, each with a longer first episode than the one before."""
    return DummyVecEnv([partial(SampledEnv, observation_space, action_space, length + i) for i in range(n_envs)])


def tiny_model(env: Any, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """Return a TransformerPPO that learns from 16 steps of each environment in milliseconds. A window has 4 slots."""
    arguments: dict[str, Any] = dict(policy="TrMRLPolicy", n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)
    arguments.update(kwargs)
    given = policy_kwargs or {}
    if given.get("memory") == "window":
        given = {"context_length": 4, **given}
    model = TransformerPPO(env=env, policy_kwargs={**TINY, **given}, **arguments)
    for transformer in model.policy.transformers:
        if transformer.encoder.relative_positions is not None:  # they are 0 at first, which would hide faults
            th.nn.init.normal_(transformer.encoder.relative_positions.biases, generator=th.Generator().manual_seed(0))
    return model


def with_format(saved: Path, number: int | None, **policy_kwargs: Any) -> Path:
    """Return a copy of the zip of a model with another number of its format, or without one."""
    other = saved.with_name("other.zip")
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                data = json.loads(content)
                assert data.pop("zip_format") == 3
                data["policy_kwargs"] = policy_kwargs or data["policy_kwargs"]
                content = json.dumps(data if number is None else {**data, "zip_format": number}).encode()
            new.writestr(name, content)
    return other


def parameters_of(model: TransformerPPO) -> dict[str, th.Tensor]:
    """Return a copy of the parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}


def assert_equal_weights(model: TransformerPPO, other: TransformerPPO, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Weights are equal, bit for bit unless ``rtol`` and ``atol`` are given."""
    weights, others = model.policy.state_dict(), other.policy.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        # A text would be made for each pair, also for equal ones
        th.testing.assert_close(
            weight, others[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def changed(before: dict[str, th.Tensor], model: TransformerPPO) -> set[str]:
    """Return the names of the parameters that differ from those before."""
    return {name for name, parameter in parameters_of(model).items() if not th.equal(parameter, before[name])}


def assert_trained(model: TransformerPPO, before: dict[str, th.Tensor]) -> None:
    """The update has reached the encoder and both heads, and left only finite numbers."""
    names = changed(before, model)
    for part in ("features_extractor.encoder", "features_extractor.embedding", "action_net", "value_net"):
        assert any(part in name for name in names), f"{part} was not trained"
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def by_name(cases: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``pytest.mark.parametrize`` for named values."""
    return dict(argvalues=list(cases.values()), ids=list(cases))


def unpack(windows: Windows) -> WorkingMemory:
    """Return the tokens of each window in NumPy arrays, slot by slot."""
    tokens = map_tokens(lambda tokens: np.asarray(tokens)[windows.index], windows.tokens)
    return WorkingMemory(tokens, windows.lengths)
