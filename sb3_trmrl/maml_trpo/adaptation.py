"""Adaptation of a trained agent during a trial, from one call of ``predict`` to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from torch.nn.utils.rnn import pad_sequence

from sb3_trmrl.algorithms.transitions import Token, checked_starts
from sb3_trmrl.maml_trpo.inner import adapt, finite_outputs, flat_parameters, log_probs, outputs, padded

if TYPE_CHECKING:
    from sb3_trmrl.maml_trpo.maml_trpo import MAMLTRPO


class Choice(NamedTuple):
    """
    A state, and the action that the agent has drawn there.

    :param state: (S,)
    :param action: Before clipping, (A,)
    :param log_prob: Logarithm of its probability
    """

    state: np.ndarray
    action: np.ndarray
    log_prob: float


@dataclass(frozen=True)
class Trial:
    """
    What the agent knows about one trial.

    :param n_episodes: Finished episodes
    :param parameters: Adapted parameters, (P,), None for the initial ones
    :param choice: The newest step, whose reward is not known yet; None if the agent does not learn from it
    :param steps: Earlier steps as tuples of choice, reward and whether the episode ended. Later states of the same
        trial share this list, and each reads its first ``n_steps`` entries
    :param n_steps: Number of these
    """

    n_episodes: int = 0
    parameters: np.ndarray | None = None
    choice: Choice | None = None
    steps: list[tuple[Choice, float, bool]] = field(default_factory=list, repr=False)
    n_steps: int = 0

    def follow(self, reward: float, ended: bool) -> Trial:
        """Return the trial with the outcome of its newest step."""
        n_episodes = self.n_episodes + ended
        if self.choice is None:
            return replace(self, n_episodes=n_episodes)
        # A second continuation of the same state gets a list of its own
        steps = self.steps if len(self.steps) == self.n_steps else self.steps[: self.n_steps]
        steps.append((self.choice, reward, ended))
        return replace(self, n_episodes=n_episodes, choice=None, steps=steps, n_steps=self.n_steps + 1)


class Adaptation:
    """
    Acts for B trials. See :meth:`~sb3_trmrl.MAMLTRPO.predict`.

    :param model: Algorithm
    """

    def __init__(self, model: MAMLTRPO) -> None:
        self.model, self.policy = model, model.policy
        self.n_learned = model.n_adaptation_episodes or model.n_inner_episodes

    def act(
        self, token: Token, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[np.ndarray, tuple[Trial, ...]]:
        """Return actions, (B, A), and the next state."""
        trials = self._continued(token, state, episode_start)
        initial = flat_parameters(self.policy)
        flat = [
            initial if trial.parameters is None else th.as_tensor(trial.parameters, device=initial.device)
            for trial in trials
        ]
        learns = th.as_tensor([trial.n_episodes < self.n_learned for trial in trials], device=initial.device)
        with th.no_grad():
            numbers = finite_outputs(self.policy, th.stack(flat), token.state)
            distribution = self.policy.distribution(numbers)
            actions = distribution.sample().reshape(len(trials), -1)
            if deterministic:
                best = distribution.mode().reshape(len(trials), -1)
                actions = th.where(learns[:, None], actions, best)
            log_probs = self.policy.log_prob(numbers, actions).cpu().numpy()
        states, drawn = token.state.cpu().numpy(), actions.cpu().numpy()
        return drawn, tuple(
            replace(trial, choice=Choice(states[row], drawn[row], float(log_probs[row]))) if learns[row] else trial
            for row, trial in enumerate(trials)
        )

    def _continued(self, token: Token, state: Any, episode_start: Any) -> list[Trial]:
        """Add the outcome of the last actions to the trials, and adapt where an episode has ended."""
        n_trials = len(token.state)
        if state is None:
            return [Trial() for _ in range(n_trials)]
        starts = checked_starts(episode_start, n_trials)
        if not (isinstance(state, tuple) and all(isinstance(each, Trial) for each in state)):
            raise TypeError(f"`state` must be what the last call of predict returned, got {state!r}")
        if len(state) != n_trials:
            raise ValueError(f"`state` must be that of {n_trials} trials, got one of {len(state)}")
        rewards, ended = token.prev_reward[:, 0].tolist(), (token.prev_done[:, 0] > 0).tolist()
        trials = [Trial() if starts[row] else state[row].follow(rewards[row], ended[row]) for row in range(n_trials)]
        rows = [row for row in range(n_trials) if ended[row] and not starts[row] and state[row].choice is not None]
        if rows:
            for row, parameters in zip(rows, self._parameters([trials[row] for row in rows]), strict=True):
                trials[row] = replace(trials[row], parameters=parameters)
                if trials[row].n_episodes >= self.n_learned:  # then its steps are not needed any more
                    trials[row] = replace(trials[row], steps=[], n_steps=0)
        return trials

    def _parameters(self, trials: list[Trial]) -> np.ndarray:
        """Return the parameters that are adapted to the episodes of each of E trials, (E, P)."""
        tasks, drawn = [], []
        for trial in trials:
            choices, rewards, ends = zip(*trial.steps[: trial.n_steps], strict=True)
            columns = [np.stack(column) for column in zip(*choices, strict=True)]
            states, actions, log_prob = (th.as_tensor(each, device=self.model.device) for each in columns)
            advantages = self.model.advantages(states, np.array(rewards), np.array(ends))
            tasks.append((states, actions, advantages, states))  # the distributions are not needed
            drawn.append(log_prob.to(states.dtype))
        samples, old = padded(tasks), pad_sequence(drawn, batch_first=True)
        flat = flat_parameters(self.policy).expand(len(trials), -1)
        with th.no_grad():
            for _ in range(self.model.n_inner_steps):
                # Episodes after the first were played with parameters that were adapted to fewer episodes
                new = log_probs(self.policy, outputs(self.policy, flat, samples.states), samples.actions)
                ratios = th.exp(new - old).clamp(max=1.0)
                weighted = samples._replace(advantages=samples.advantages * ratios)
                flat = adapt(self.policy, flat, [weighted], self.model.inner_learning_rate)
        return flat.cpu().numpy()
