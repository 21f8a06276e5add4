"""Memories and attention weights of an agent at each step of some trials: the input of most analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.trials import Trials, TrialStep
from sb3_trmrl.memory.encoder import EncoderTrace
from sb3_trmrl.memory.policy import MemoryPolicy
from sb3_trmrl.memory.tokens import Tokens, map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory


class TracedSteps(NamedTuple):
    """
    M steps of some trials, with memories and attention weights of the actor's transformer at each of them.

    :param trace: Memories, attention weights and values of B windows (or sequences) of N slots
    :param rows: Index of the window of each step, (M,)
    :param slots: Its newest slot, whose episodic memory is the input of the policy head, (M,)
    :param tasks: Index of the task of each step, (M,)
    :param episodes: Episode of the trial, from 0, (M,)
    :param numbers: Number of the step in its trial, from 0, (M,)
    :param actions: Actions of the agent, discrete actions one-hot, (M, A)
    """

    trace: EncoderTrace
    rows: np.ndarray
    slots: np.ndarray
    tasks: np.ndarray
    episodes: np.ndarray
    numbers: np.ndarray
    actions: np.ndarray

    def memories(self) -> np.ndarray:
        """
        :return: Working memory and episodic memory of each layer in the newest slot, (M, n_layers + 1, D)
        """
        return np.stack([memories.cpu().numpy()[self.rows, self.slots] for memories in self.trace.memories], axis=1)

    def attention(self) -> np.ndarray:
        """
        :return: Attention weights of the newest slot for each slot, (M, n_layers, H, N)
        """
        weights = [attention.cpu().numpy()[self.rows, :, self.slots] for attention in self.trace.attention]
        return np.stack(weights, axis=1)


def checked_steps(steps: Any) -> Iterator[TracedSteps]:
    """Check the argument ``steps`` of an analysis while they are read."""
    is_empty = True
    for step in check_instance("steps", steps, Iterable, "the result of traced_steps"):
        is_empty = False
        yield check_instance("steps", step, TracedSteps, "the result of traced_steps")
    if is_empty:
        raise ValueError("`steps` must hold at least one step, got none")


def traced_steps(
    model: Any,
    trials: Trials,
    deterministic: bool = True,
    vec_normalize: VecNormalize | None = None,
    n_envs: int | None = None,
    after_task: Callable[[int], None] | None = None,
) -> Iterator[TracedSteps]:
    """
    Play trials, and record memories and attention weights at every step.

    :param model: Agent with a transformer, or its policy
    :param trials: Trials to play
    :param deterministic: Whether to use deterministic or stochastic actions
    :param vec_normalize: Statistics of observations, see :meth:`Trials.play`
    :param n_envs: Number of tasks to play at the same time, by default all
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: All steps, in several parts
    :raises TypeError: if the model does not have a transformer
    """
    policy = model if isinstance(model, MemoryPolicy) else getattr(model, "policy", None)
    if not isinstance(policy, MemoryPolicy):
        raise TypeError(f"`model` must be a TransformerPPO, a TransformerSAC or the policy of one, got {model!r}")
    check_instance("trials", trials, Trials, "Trials")
    steps = trials.play(model, deterministic, vec_normalize, n_envs, after_task)
    return (_trace_windows if policy.memory == "window" else _trace_sequences)(policy, trials.action_space, steps)


def _trace_windows(
    policy: MemoryPolicy, action_space: spaces.Space[Any], steps: Iterator[TrialStep]
) -> Iterator[TracedSteps]:
    for step in steps:
        windows = step.state.select(step.envs)
        yield TracedSteps(
            policy.trace(windows),
            np.arange(len(step.envs)),
            windows.lengths - 1,
            step.tasks,
            step.episodes[step.envs],
            np.full(len(step.envs), step.number),
            np.stack([_flat(action_space, step.actions[env]) for env in step.envs]),
        )


class _Token(NamedTuple):
    """One step of a trial, kept until its sequence is complete."""

    token: Tokens
    episode: int
    number: int
    action: np.ndarray


def _trace_sequences(
    policy: MemoryPolicy, action_space: spaces.Space[Any], steps: Iterator[TrialStep]
) -> Iterator[TracedSteps]:
    # One causal pass over a sequence computes all its memories, so it runs once the memory has been emptied
    sequences: dict[int, list[_Token]] = {}
    for step in steps:
        for env, task in zip(step.envs, step.tasks.tolist(), strict=True):
            if step.state.lengths[env] == 1 and task in sequences:
                yield _trace_sequence(policy, task, sequences.pop(task))
            token = map_tokens(lambda tokens, env=env: tokens[env], step.state.tokens)
            action = _flat(action_space, step.actions[env])
            sequences.setdefault(task, []).append(_Token(token, int(step.episodes[env]), step.number, action))
    for task, sequence in sequences.items():
        yield _trace_sequence(policy, task, sequence)


def _trace_sequence(policy: MemoryPolicy, task: int, sequence: list[_Token]) -> TracedSteps:
    n_tokens = len(sequence)
    tokens = map_tokens(lambda *each: np.stack(each)[None], *(step.token for step in sequence))
    return TracedSteps(
        policy.trace(WorkingMemory(tokens, np.array([n_tokens]))),
        np.zeros(n_tokens, dtype=int),
        np.arange(n_tokens),
        np.full(n_tokens, task),
        np.array([step.episode for step in sequence]),
        np.array([step.number for step in sequence]),
        np.stack([step.action for step in sequence]),
    )


def _flat(action_space: spaces.Space[Any], action: Any) -> np.ndarray:
    return np.asarray(spaces.flatten(action_space, action), dtype=np.float64)
