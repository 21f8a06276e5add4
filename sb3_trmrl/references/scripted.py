"""Base class of the reference agents, which act by a rule, and a check of the tasks of an optimum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.envs.tasks import TaskEnv


def check_tasks(name: str, value: Any, env: TaskEnv) -> list[Any]:
    """Check that an argument is a non-empty sequence of an environment's tasks; return them as it stores them."""
    tasks = []
    for index, task in enumerate(check_instance(name, value, Iterable, "a sequence of tasks")):
        try:
            env.set_task(task)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`{name}[{index}]`: {error}") from error
        tasks.append(env.get_task())
    if not tasks:
        raise ValueError(f"`{name}` must hold at least one task, got none")
    return tasks


class ScriptedAgent(ABC):
    """Acts by a rule. Its memory has one row for each environment, and is passed on as SB3's ``state``."""

    #: Keys of the observation that the rule reads
    keys: ClassVar[tuple[str, ...]]

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return actions, (E, ...), and the new state, (E, ...); an observation without E gives a single action."""
        # ``deterministic`` has no effect: a random rule stays random
        rows, is_single = self._rows(observation)
        memory = self._empty_memory(rows)
        if state is not None:
            starts = np.zeros(len(memory)) if episode_start is None else np.ravel(episode_start)
            if np.shape(state) != memory.shape or len(starts) != len(memory):
                raise ValueError(
                    f"`state` must have the shape {memory.shape} and `episode_start` {memory.shape[:1]} for these "
                    f"observations, got {np.shape(state)} and {starts.shape}"
                )
            kept = ~starts.astype(bool)
            memory[kept] = np.asarray(state)[kept]
        actions = self._act(rows, memory)
        return (actions[0] if is_single else actions), memory

    def _rows(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """Return the entries that the rule reads, (E, F) each, and whether the observation is a single one."""
        name = type(self).__name__
        if not isinstance(observation, Mapping):
            raise TypeError(
                f"`observation` must be a dictionary with the keys {self.keys} for {name}, got a "
                f"{type(observation).__name__}"
            )
        missing = [key for key in self.keys if key not in observation]
        if missing:
            advice = "; make the environment with reveal_task=True" if "task" in missing else ""
            raise ValueError(f"`observation` must have {missing} for {name}, got {sorted(observation)}{advice}")
        rows = {key: np.asarray(observation[key]) for key in self.keys}
        is_single = rows[self.keys[0]].ndim == 1
        return {key: value[None] if is_single else value for key, value in rows.items()}, is_single

    def _empty_memory(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        """Return the memory of E trials that start, (E, ...); by default its size is zero."""
        return np.zeros((len(rows[self.keys[0]]), 0))

    @abstractmethod
    def _act(self, rows: dict[str, np.ndarray], memory: np.ndarray) -> np.ndarray:
        """Return the actions, (E, ...), and update the memory in place."""
