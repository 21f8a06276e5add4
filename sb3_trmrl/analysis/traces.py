"""What the agent's transformer holds at each step of some trials: the material of the analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance
from sb3_trmrl.evaluation.trials import Trials, TrialStep
from sb3_trmrl.memory.encoder import EncoderTrace
from sb3_trmrl.memory.tokens import Tokens, map_tokens
from sb3_trmrl.memory.working_memory import WorkingMemory
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy


class TracedSteps(NamedTuple):
    """
    M steps of some trials, and what the actor's transformer held when it acted at each of them.

    :param trace: Memories, attention weights and values of B windows (or sequences) of N slots
    :param rows: Which of the B belongs to each step, (M,)
    :param slots: Its newest slot, whose episodic memory the policy head read, (M,)
    :param tasks: Index of the task of each step, (M,)
    :param episodes: Episode of the trial, from 0, (M,)
    :param numbers: Number of the step in its trial, from 0, (M,)
    :param actions: What the agent did, discrete actions one-hot, (M, A)
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
        :return: The newest slot's working memory and its episodic memory of each layer, (M, n_layers + 1, D)
        """
        return np.stack([memories.cpu().numpy()[self.rows, self.slots] for memories in self.trace.memories], axis=1)

    def attention(self) -> np.ndarray:
        """
        :return: Weights that the newest slot gave to each slot, (M, n_layers, H, N)
        """
        weights = [attention.cpu().numpy()[self.rows, :, self.slots] for attention in self.trace.attention]
        return np.stack(weights, axis=1)


def checked_steps(steps: Any) -> Iterator[TracedSteps]:
    """
    :param steps: What the user gave
    :return: They, one after the other
    :raises TypeError: if they are something else
    :raises ValueError: if there are none
    """
    is_empty = True
    for step in check_instance("steps", steps, Iterable, "what traced_steps returned"):
        is_empty = False
        yield check_instance("steps", step, TracedSteps, "what traced_steps returned")
    if is_empty:
        raise ValueError("`steps` must hold at least one step, got none")


def traced_steps(
    model: TransformerPPO | TrMRLPolicy,
    trials: Trials,
    deterministic: bool = True,
    vec_normalize: VecNormalize | None = None,
    n_envs: int | None = None,
    after_task: Callable[[int], None] | None = None,
) -> Iterator[TracedSteps]:
    """
    Let an agent play, and look into its transformer at every step.

    :param model: Agent with a TrMRL policy
    :param trials: What it plays
    :param deterministic: Whether actions are the likeliest ones or sampled
    :param vec_normalize: Statistics of observations, see :meth:`Trials.play`
    :param n_envs: Tasks at a time, by default all
    :param after_task: Called with the number of finished tasks, for a progress bar
    :return: All steps, some at a time
    :raises TypeError: if the model has another policy
    """
    policy = model if isinstance(model, TrMRLPolicy) else getattr(model, "policy", None)
    if not isinstance(policy, TrMRLPolicy):
        raise TypeError(f"`model` must be a TransformerPPO or its policy, got {model!r}")
    check_instance("trials", trials, Trials, "Trials")
    steps = trials.play(model, deterministic, vec_normalize, n_envs, after_task)
    return (_trace_windows if policy.memory == "window" else _trace_sequences)(policy, trials.action_space, steps)


def _trace_windows(
    policy: TrMRLPolicy, action_space: spaces.Space[Any], steps: Iterator[TrialStep]
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
    """One step of one trial, until its sequence is complete."""

    token: Tokens
    episode: int
    number: int
    action: np.ndarray


def _trace_sequences(
    policy: TrMRLPolicy, action_space: spaces.Space[Any], steps: Iterator[TrialStep]
) -> Iterator[TracedSteps]:
    # Every memory of a sequence is known from one causal pass, so that is made when the memory has been emptied
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


def _trace_sequence(policy: TrMRLPolicy, task: int, sequence: list[_Token]) -> TracedSteps:
    """
    :param policy: Policy with the full memory
    :param task: Index of the task
    :param sequence: Tokens since the memory was emptied
    :return: Their steps
    """
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
