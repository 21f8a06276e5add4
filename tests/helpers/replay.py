"""Replay buffers with numbered tokens, and naive memories of the same transitions."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer
from tests.helpers.agents import BOX_ACTION

#: Observations whose first number is different for each token
NUMBERED = spaces.Dict(
    number=spaces.Box(-np.inf, np.inf, (2,), np.float32), prev_done=spaces.Box(0.0, 1.0, (1,), np.float32)
)
#: What happens at a step of an environment: whether an inner episode begins, and how the episode ends
EVENTS = st.tuples(st.booleans(), st.sampled_from(["", "", "", "terminated", "truncated"]))


class NaiveEnv:
    """Transitions of one environment with their memories, each a list of numbered tokens. None: without a limit."""

    def __init__(self, context_length: int | None, resets_on_episode: bool, tokens: Iterator[int]) -> None:
        self.window: deque[int] = deque(maxlen=context_length)
        self.resets_on_episode, self.tokens = resets_on_episode, tokens
        self.stored: list[int] = []
        self.transitions: list[tuple[list[int], list[int], float, bool]] = []
        self.begin()

    def begin(self) -> None:
        self.window.clear()
        self.see(False)

    def see(self, is_inner_start: bool) -> None:
        if is_inner_start and self.resets_on_episode:
            self.window.clear()
        self.token = next(self.tokens)
        self.window.append(self.token)
        self.stored.append(self.token)

    def step(self, is_inner_start: bool, end: str) -> tuple[int, int, int]:
        """Return the tokens before and after the step, and that of the next step."""
        before, window = self.token, list(self.window)
        self.see(is_inner_start and not end)
        after = self.token
        self.transitions.append((window, list(self.window), float(before), end == "terminated"))
        if end:
            self.begin()
        return before, after, self.token

    def within(self, n_tokens: int, n_needed: int | None = None) -> list[Any]:
        """
        Return the transitions of which the newest tokens of the buffer include the memory, or its newest needed tokens.
        The buffer has not seen a new episode.
        """
        stored = [token for token in self.stored if self.transitions and token <= self.transitions[-1][1][-1]]
        oldest = stored[-n_tokens:][0] if stored else 0
        return [each for each in self.transitions if each[0][-min(n_needed or len(each[0]), len(each[0]))] >= oldest]


def observation(tokens: list[int], flags: list[bool]) -> dict[str, np.ndarray]:
    numbers = np.array(tokens, np.float32)[:, None] * np.array([1.0, -1.0], np.float32)
    return {"number": numbers, "prev_done": np.array(flags, np.float32)[:, None]}


def played(
    data: st.DataObject,
    make: Callable[..., MemoryReplayBuffer],
    context_length: int | None,
    capacity: int,
    **kwargs: Any,
) -> tuple[Any, list[NaiveEnv]]:
    """
    Draw what happens in some environments.

    :param data: What draws
    :param make: Class of the replay buffer
    :param context_length: Tokens of a memory; None for all
    :param capacity: Tokens of each environment in the buffer
    :param kwargs: Further arguments of the class
    :return: The filled buffer, and the same transitions in naive environments
    """
    n_envs = data.draw(st.integers(1, 3))
    reset_memory_on = data.draw(st.sampled_from(["episode", "trial"]))
    buffer = make(n_envs * capacity, NUMBERED, BOX_ACTION, "cpu", n_envs, **kwargs)
    buffer.bind(capacity - 2 if context_length is None else context_length, reset_memory_on)
    # Numbers are different in all environments
    envs = [
        NaiveEnv(context_length, reset_memory_on == "episode", iter(range(1 + 1000 * index, 10**6)))
        for index in range(n_envs)
    ]
    steps = data.draw(st.lists(st.tuples(st.booleans(), *[EVENTS] * n_envs), min_size=1, max_size=40))
    for is_reset, *events in steps:
        if is_reset and data.draw(st.integers(0, 5)) == 0:
            buffer.begin_episodes()
            for env in envs:
                if env.transitions and env.token == env.transitions[-1][1][-1]:  # not already at a beginning
                    env.begin()
        before, after, _ = zip(*(env.step(*event) for env, event in zip(envs, events, strict=True)), strict=True)
        ends = [end for _, end in events]
        buffer.add(
            observation(list(before), [False] * n_envs),
            observation(list(after), [inner for inner, _ in events]),
            np.array(before, np.float32)[:, None] * np.ones(2, np.float32),
            np.array(before, np.float32),
            np.array([end != "" for end in ends]),
            [{"TimeLimit.truncated": end == "truncated"} for end in ends],
        )
    return buffer, envs
