"""The interface of an agent that plays trials."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sb3_trmrl.common.action_masks import is_masking_supported

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


class Agent(Protocol):
    """An SB3 model, one of its policies, or any other object with SB3's ``predict``."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """As in Stable-Baselines3"""


def check_agent(model: Any, name: str = "model") -> None:
    """Raise ``TypeError`` if the argument ``name`` has no method ``predict``."""
    if isinstance(model, type) or not callable(getattr(model, "predict", None)):
        raise TypeError(f"`{name}` must be an agent with SB3's method predict, got {model!r}")


def with_action_masks(agent: Any, env: VecEnv) -> Any:
    """Return the agent, with the masks of these environments if both know action masks."""
    if is_masking_supported(env) and "action_masks" in inspect.signature(agent.predict).parameters:
        return _MaskedAgent(agent, env)
    return agent


class _MaskedAgent:
    """An agent that chooses among the actions that are valid in the environments which it acts in."""

    def __init__(self, agent: Any, env: VecEnv) -> None:
        self.agent = agent
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def predict(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """As in Stable-Baselines3"""
        masks = np.stack(self.env.env_method("action_masks"))
        action, state = self.agent.predict(*args, **kwargs, action_masks=masks)
        return action, state
