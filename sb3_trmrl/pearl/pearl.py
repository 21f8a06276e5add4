"""PEARL: soft actor-critic with a latent variable that is inferred from the transitions of a task."""

from __future__ import annotations

import io
import pathlib
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.arguments import check_arguments, names_policy_kwargs, own_arguments
from sb3_trmrl.algorithms.given_tasks import tasks_given_back
from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.pearl.arguments import (
    CHECKS,
    OWN_CHECKS,
    check_action_space,
    check_sizes_of_data,
    check_vec_env,
    steps_in_succession,
)
from sb3_trmrl.pearl.buffers import TaskReplayBuffer
from sb3_trmrl.pearl.collection import TaskCollector, draw_train_tasks
from sb3_trmrl.pearl.encoder import ContextEncoder
from sb3_trmrl.pearl.policies import PEARLPolicy
from sb3_trmrl.pearl.update import update


class PEARL(Algorithm, SAC):
    """
    Probabilistic Embeddings for Actor-critic RL (Rakelly et al. 2019, https://arxiv.org/abs/1903.08254): soft
    actor-critic whose networks also read a latent variable. An encoder infers it from a set of transitions of the task.

    Training alternates between playing some of ``n_train_tasks`` fixed tasks and gradient steps. The encoder learns
    from the critics' loss and the KL divergence to the prior; its data are the newest transitions that were gathered
    with latents from the prior. Needs a family of tasks in :class:`~sb3_trmrl.MultiEpisodeTrial` and
    :class:`~sb3_trmrl.PreviousTransitionObservation`, as all environments of this package, with Box actions.

    A zip holds the training tasks, not the replay buffer: see ``save_replay_buffer`` and ``load_replay_buffer``.
    Without it, training of a loaded model begins with ``initial_steps`` of each task again.

    :param policy: ``"PEARLPolicy"``; ``"MultiInputPolicy"`` is the same
    :param env: The environment to learn from (if registered in Gym, can be str). Copies play different tasks
    :param learning_rate: Learning rate of actor, critics, encoder and entropy coefficient, it can be a function of the
        current progress remaining (from 1 to 0)
    :param buffer_size: Size of the replay buffer, in transitions of all training tasks together
    :param batch_size: Transitions of each task in a gradient step
    :param tau: The soft update coefficient ("Polyak update"), between 0 and 1
    :param gamma: Discount factor, from 0 to 1
    :param gradient_steps: Gradient steps after each iteration of data collection, or -1 for as many as steps were
        collected
    :param ent_coef: Entropy regularization coefficient, ``"auto"`` to learn it, ``"auto_0.1"`` to start with 0.1
    :param target_update_interval: Update the target network every ``target_update_interval`` gradient steps
    :param target_entropy: Target entropy when learning ``ent_coef``, ``"auto"`` for minus the number of actions
    :param n_train_tasks: Number of different training tasks, which are drawn once with ``sample_tasks``
    :param initial_steps: Steps of each training task before the first gradient step
    :param tasks_per_iteration: Tasks that are played in each iteration, rounded up to a multiple of the copies of the
        environment
    :param prior_steps: Steps of each of them with latents from the prior, which the encoder learns from
    :param posterior_steps: Further steps of each of them with latents from the posterior
    :param meta_batch_size: Training tasks in a gradient step, drawn without replacement
    :param context_batch_size: Transitions of each of them from which the encoder infers the latent
    :param kl_weight: Weight of the KL divergence, which is summed over tasks; the critics' loss is averaged
    :param reward_scale: Factor of rewards in the critics' targets
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.PEARLPolicy`: ``latent_dim``, ``encoder_net_arch``, ``net_arch``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises TypeError: if an argument has the wrong type, or the actions are not a Box
    :raises ValueError: if an argument is out of range, or the environment does not play trials of sampled tasks
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "PEARLPolicy": PEARLPolicy,
        "MultiInputPolicy": PEARLPolicy,
    }

    argument_checks = CHECKS

    n_train_tasks: int
    initial_steps: int
    tasks_per_iteration: int
    prior_steps: int
    posterior_steps: int
    meta_batch_size: int
    context_batch_size: int
    kl_weight: float
    reward_scale: float

    policy: PEARLPolicy
    encoder: ContextEncoder
    replay_buffer: TaskReplayBuffer  # type: ignore[assignment]
    #: The training tasks, drawn at the beginning of training
    train_tasks: list[Any] | None = None
    #: Returns of the newest training episodes, by the origin of their latents, ``"prior"`` or ``"posterior"``
    episode_returns: dict[str, deque[float]]

    @names_policy_kwargs(PEARLPolicy)
    def __init__(
        self,
        policy: str | type[PEARLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        gradient_steps: int = 2000,
        ent_coef: str | float = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        n_train_tasks: int = 100,
        initial_steps: int = 2000,
        tasks_per_iteration: int = 5,
        prior_steps: int = 400,
        posterior_steps: int = 400,
        meta_batch_size: int = 16,
        context_batch_size: int = 100,
        kl_weight: float = 0.1,
        reward_scale: float = 5.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, CHECKS)
        policy_class, made = self._policy_and_env(policy, env, verbose)
        check_keywords("policy_kwargs", policy_kwargs, policy_class, passed=self.passed_to_policy)
        if made is not None:
            check_action_space(made.action_space, TokenReader(made.observation_space))  # before SB3, which asserts
        own = {name: arguments.pop(name) for name in OWN_CHECKS}
        arguments |= {
            "env": made,
            "buffer_size": int(buffer_size),
            "learning_starts": 0,
            "replay_buffer_class": TaskReplayBuffer,
            "policy_kwargs": dict(policy_kwargs or {}),
            "_init_setup_model": False,
        }
        super().__init__(**arguments)
        self.policy_kwargs.pop("use_sde")  # SB3 adds it
        vars(self).update(own)
        self._n_iterations = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_attributes()
        check_sizes_of_data(self)
        reader = TokenReader(self.observation_space)
        if self.replay_buffer is None:
            sizes = (int(self.buffer_size), self.n_train_tasks, reader.state_dim, reader.action_dim)
            self.replay_buffer = TaskReplayBuffer(*sizes, device=self.device)
        self.episode_returns = {kind: deque(maxlen=self._stats_window_size) for kind in ("prior", "posterior")}
        super()._setup_model()

    def _create_aliases(self) -> None:
        super()._create_aliases()
        self.encoder = self.policy.encoder

    def _check_vec_env(self) -> None:
        assert self.env is not None
        check_vec_env(self.env, self.n_train_tasks)

    def _setup_learn(
        self, total_timesteps: int, callback: MaybeCallback = None, reset_num_timesteps: bool = True, *args: Any
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps:
            self._n_iterations = 0
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, log_interval: int | None = None, **kwargs: Any
    ) -> RolloutReturn:
        """
        Play some training tasks, before the first gradient step all of them.

        :param env: The training environment
        :param callback: Callback that will be called at each step (and at the beginning and end of the rollout)
        :param log_interval: Log data every ``log_interval`` iterations
        :param kwargs: Further arguments of SB3's method, which PEARL does not use
        :return: Steps, and whether training continues
        """
        self._restore_run(callback)
        self._at_rollout_boundary()
        self.policy.set_training_mode(False)
        self._log_interval = log_interval
        if self.train_tasks is None:
            self.train_tasks = draw_train_tasks(env, self.n_train_tasks)
        before = self.num_timesteps
        callback.on_rollout_start()
        with tasks_given_back(env), one_thread_beside_workers(env):
            continue_training = all(
                TaskCollector(self, env, tasks, prior_steps).collect(n_steps, callback)
                for tasks, prior_steps, n_steps in self._plan(env.num_envs)
            )
        if continue_training:
            callback.update_locals(locals())
            callback.on_rollout_end()
        n_steps = self.num_timesteps - before
        return RolloutReturn(n_steps, 0, continue_training)

    def memory_state(self) -> dict[str, Any]:
        return {"replay_buffer": self.replay_buffer, "episode_returns": self.episode_returns}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        self.replay_buffer, self.episode_returns = state["replay_buffer"], state["episode_returns"]
        self.replay_buffer.device = self.device

    def _plan(self, n_envs: int) -> Iterable[tuple[np.ndarray, int, int]]:
        """Return the tasks that are played together, their steps with the prior, and all their steps."""
        empty = np.flatnonzero(self.replay_buffer.context_sizes() == 0)
        for start in range(0, len(empty), n_envs):
            tasks = empty[start : start + n_envs]
            others = np.setdiff1d(np.arange(self.n_train_tasks), tasks)
            tasks = np.append(tasks, np.random.choice(others, n_envs - len(tasks), replace=False))
            yield tasks, self.initial_steps, self.initial_steps
        for _ in range(-(-self.tasks_per_iteration // n_envs)):
            tasks = np.random.choice(self.n_train_tasks, n_envs, replace=False)
            yield tasks, self.prior_steps, self.prior_steps + self.posterior_steps

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Update actor, critics, encoder and entropy coefficient.

        :param gradient_steps: Number of gradient steps
        :param batch_size: As the argument of the constructor
        """
        self.policy.set_training_mode(True)
        optimizers = [self.actor.optimizer, self.critic.optimizer, self.encoder.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        statistics = update(self, gradient_steps)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in statistics.items():
            self.logger.record(f"train/{key}", value)
        self._n_iterations += 1
        if self._log_interval is not None and self._n_iterations % self._log_interval == 0:
            self.dump_logs()

    def dump_logs(self) -> None:
        self.logger.record("time/iterations", self._n_iterations, exclude="tensorboard")
        for kind, returns in self.episode_returns.items():
            if returns:
                self.logger.record(f"rollout/{kind}_episode_rew_mean", safe_mean(returns))
        super().dump_logs()

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        Load the replay buffer and the contexts that ``save_replay_buffer`` wrote. This unpickles: only load files that
        you trust.

        :param path: Path to the pickled replay buffer
        :param truncate_last_traj: Has no effect
        :raises ValueError: if the file holds something else, transitions of other tasks, or a buffer that is too small
        """
        buffer = load_from_pkl(path, self.verbose)
        own = self.replay_buffer
        if not isinstance(buffer, TaskReplayBuffer) or (buffer.n_tasks, buffer.dims) != (own.n_tasks, own.dims):
            raise ValueError(
                f"`path` must hold the replay buffer of {own.n_tasks} tasks with transitions of {own.dims} numbers, "
                f"got {buffer!r}"
            )
        needed = steps_in_succession(self)
        if buffer.capacity < needed:
            raise ValueError(
                f"`path` must hold a replay buffer with room for at least {needed} transitions of each task, which are "
                f"collected in succession, got {buffer.capacity}"
            )
        buffer.device = self.device
        self.replay_buffer = buffer

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "encoder", "episode_returns"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        return [*state_dicts, "encoder.optimizer"], tensors
