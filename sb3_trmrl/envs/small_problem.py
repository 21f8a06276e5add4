"""Base class of the problems without a simulator: steps, ends of episodes and rendering."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium.error import ResetNeeded

from sb3_trmrl.common.checks import check_positive_int
from sb3_trmrl.envs.batch import Batch
from sb3_trmrl.envs.tasks import TaskEnv


class SmallProblem(TaskEnv):
    """Family of tasks with episodes of a fixed number of steps."""

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (as Gymnasium)
    #: Whether the last step of an episode truncates it. If not, it terminates the episode: the objective is the sum of
    #: rewards until then, and there is nothing to bootstrap.
    is_truncated: ClassVar[bool] = False
    #: The same steps for many copies, see BatchedVecEnv. Subclasses do not inherit it, as they may change the steps.
    batch_class: ClassVar[type[Batch] | None] = None

    def __init__(self, horizon: int, render_mode: str | None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"`render_mode` must be None or one of {self.metadata['render_modes']}, got {render_mode!r}"
            )
        self.render_mode = render_mode
        self.horizon = check_positive_int("horizon", horizon)
        self._steps_left = 0

    def _start(self) -> None:
        """Start an episode."""
        raise NotImplementedError

    def _act(self, action: Any) -> float:
        """Check and execute an action, and return its reward."""
        raise NotImplementedError

    def _describe(self) -> str:
        """Return the state as words, to print."""
        raise NotImplementedError

    def _outcome(self, action: Any, reward: float) -> str:
        """Return the line to print after an action."""
        raise NotImplementedError

    def _observe(self) -> Any:
        """Return the observation of the current state."""
        raise NotImplementedError

    def _picture(self) -> np.ndarray:
        """Return an image of the current state."""
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps_left = self.horizon
        self._start()
        if self.render_mode == "human":
            print(f"new episode, {self._describe()}")
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._steps_left == 0:
            raise ResetNeeded("Cannot call env.step() before calling env.reset(), or after the end of the episode")
        reward = self._act(action)
        self._steps_left -= 1
        if self.render_mode == "human":
            print(self._outcome(action, reward))
        is_over = self._steps_left == 0
        return self._observe(), reward, is_over and not self.is_truncated, is_over and self.is_truncated, {}

    def render(self) -> np.ndarray | None:
        """Return an RGB picture, (height, width, 3), in mode ``"rgb_array"``, otherwise None."""
        return self._picture() if self.render_mode == "rgb_array" else None

    def _check_discrete(self, action: Any, allowed: str) -> int:
        if not self.action_space.contains(action):
            raise ValueError(f"`action` must be {allowed}, got {action!r}")
        return int(action)
