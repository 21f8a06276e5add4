"""PEARL: soft actor-critic with a latent variable that is inferred from the transitions of a task."""

from __future__ import annotations

import io
import pathlib
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.arguments import (
    LEARN_CHECKS,
    check_arguments,
    check_env,
    check_env_of,
    check_policy,
    names_policy_kwargs,
)
from sb3_trmrl.algorithms.files import ZipFiles
from sb3_trmrl.algorithms.resumable import Resumable
from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.pearl.arguments import CHECKS, check_action_space, check_sizes_of_data, check_vec_env
from sb3_trmrl.pearl.buffers import TaskReplayBuffer
from sb3_trmrl.pearl.collection import TaskCollector, draw_train_tasks
from sb3_trmrl.pearl.encoder import ContextEncoder
from sb3_trmrl.pearl.policies import PEARLPolicy
from sb3_trmrl.pearl.update import update

#: Arguments that the algorithm passes to the policy
_PASSED = ("observation_space", "action_space", "lr_schedule")

SelfPEARL = TypeVar("SelfPEARL", bound="PEARL")


class PEARL(Resumable, ZipFiles, SAC):
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
        check_arguments(locals(), CHECKS)
        env = maybe_make_env(env, verbose)
        policy_class = check_policy(policy, self.policy_aliases)
        check_keywords("policy_kwargs", policy_kwargs, policy_class, passed=_PASSED)
        if env is not None:
            check_env("env", env, "a Gymnasium environment, a VecEnv or a registered id")
            check_action_space(env.action_space, TokenReader(env.observation_space))  # before SB3, which asserts
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            buffer_size=int(buffer_size),
            learning_starts=0,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            gradient_steps=gradient_steps,
            replay_buffer_class=TaskReplayBuffer,  # type: ignore[arg-type]
            ent_coef=ent_coef,
            target_update_interval=target_update_interval,
            target_entropy=target_entropy,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.policy_kwargs.pop("use_sde")  # SB3 adds it
        self.n_train_tasks = n_train_tasks
        self.initial_steps = initial_steps
        self.tasks_per_iteration = tasks_per_iteration
        self.prior_steps = prior_steps
        self.posterior_steps = posterior_steps
        self.meta_batch_size = meta_batch_size
        self.context_batch_size = context_batch_size
        self.kl_weight = kl_weight
        self.reward_scale = reward_scale
        self._n_iterations = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        check_env_of(self)
        check_arguments(vars(self), CHECKS)  # again, as load() bypasses the constructor
        check_sizes_of_data(self)
        check_keywords("policy_kwargs", self.policy_kwargs, self.policy_class, passed=_PASSED)
        if self.env is not None:
            check_vec_env(self.env, self.n_train_tasks)
        reader = TokenReader(self.observation_space)
        if self.replay_buffer is None:
            sizes = (int(self.buffer_size), self.n_train_tasks, reader.state_dim, reader.action_dim)
            self.replay_buffer = TaskReplayBuffer(*sizes, device=self.device)
        self.episode_returns = {kind: deque(maxlen=self._stats_window_size) for kind in ("prior", "posterior")}
        super()._setup_model()

    def _create_aliases(self) -> None:
        super()._create_aliases()
        self.encoder = self.policy.encoder

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        check_env("env", env)
        super().set_env(env, force_reset)
        assert self.env is not None
        check_vec_env(self.env, self.n_train_tasks)

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
        try:
            continue_training = all(
                TaskCollector(self, env, tasks, prior_steps).collect(n_steps, callback)
                for tasks, prior_steps, n_steps in self._plan(env.num_envs)
            )
        finally:
            env.env_method("set_wrapper_attr", "tasks", None)
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

    def learn(
        self: SelfPEARL,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PEARL",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPEARL:
        """
        Learn as in SB3. After :meth:`resume`, pass the arguments of the interrupted call to continue it.

        :param total_timesteps: Total number of steps over all environments. Iterations are always completed; the first
            one also takes ``initial_steps`` of each training task
        :param callback: Callback or list of callbacks, called at every step; or a function of local and global
            variables, which ends training by returning False
        :param log_interval: Number of iterations between two entries of the log, None for no entries
        :param tb_log_name: Name of the run in TensorBoard's folder
        :param reset_num_timesteps: Whether to count steps from 0 again. If not, ``total_timesteps`` are added to the
            steps that the model has already taken
        :param progress_bar: Whether to show a progress bar, which needs tqdm and rich
        :return: The model
        :raises TypeError: if an argument has the wrong type
        :raises ValueError: if a number is out of range, the environment has fewer tasks than ``n_train_tasks``, or an
            observation or a reward is not finite
        """
        check_arguments(locals(), LEARN_CHECKS)
        total_timesteps, reset_num_timesteps = self._steps_to_learn(int(total_timesteps), reset_num_timesteps)
        if reset_num_timesteps:
            self._n_iterations = 0
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        Load the replay buffer and the contexts that ``save_replay_buffer`` wrote. This unpickles: only load files that
        you trust.

        :param path: Path to the pickled replay buffer
        :param truncate_last_traj: Has no effect
        :raises ValueError: if the file holds something else, or transitions of other tasks
        """
        buffer = load_from_pkl(path, self.verbose)
        own = self.replay_buffer
        if not isinstance(buffer, TaskReplayBuffer) or (buffer.n_tasks, buffer.dims) != (own.n_tasks, own.dims):
            raise ValueError(
                f"`path` must hold the replay buffer of {own.n_tasks} tasks with transitions of {own.dims} numbers, "
                f"got {buffer!r}"
            )
        buffer.device = self.device
        self.replay_buffer = buffer

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "encoder", "episode_returns"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        return [*state_dicts, "encoder.optimizer"], tensors
