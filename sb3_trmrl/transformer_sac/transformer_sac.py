"""TransformerSAC: SAC with a transformer memory."""

from __future__ import annotations

import io
import pathlib
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.arguments import check_arguments, names_policy_kwargs, own_arguments
from sb3_trmrl.algorithms.exports import Exports
from sb3_trmrl.algorithms.finite import check_finite_step
from sb3_trmrl.algorithms.sac_arguments import check_bounded_box
from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.memory.interface import Memory
from sb3_trmrl.memory.kinds import MEMORY_KINDS, check_memory_is_known, policy_argument
from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer
from sb3_trmrl.memory.resets import NoticesResets
from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.transformer_sac.arguments import (
    CHECKS,
    check_replay_buffer_class,
    check_train_freq,
    check_vec_env,
    kind_of_memory,
)
from sb3_trmrl.transformer_sac.policies import MemoryActor, MemoryCritic, TransformerSACPolicy
from sb3_trmrl.transformer_sac.update import update

#: Arguments that the algorithm passes to the replay buffer
_PASSED_TO_BUFFER = ("buffer_size", "observation_space", "action_space", "device", "n_envs", "optimize_memory_usage")

SelfTransformerSAC = TypeVar("SelfTransformerSAC", bound="TransformerSAC")


class TransformerSAC(Algorithm, NoticesResets, Exports, SAC):
    """
    Soft Actor-Critic with a transformer memory: off-policy learning with the memory of TrMRL (Haarnoja et al. 2018,
    https://arxiv.org/abs/1812.05905; Melo 2022, https://arxiv.org/abs/2206.06614).

    Actor and critics read a window of the newest observations of the episode, or all of them. The replay buffer stores
    each observation once, and gathers windows or sequences when it is sampled. The losses are those of SB3's SAC. Every
    observation is a token: no wrapper is needed for memory. For meta-RL, where tokens are (state, previous action,
    reward, done flag), wrap the environment in :class:`~sb3_trmrl.PreviousTransitionObservation`.

    :param policy: ``"TrMRLPolicy"``, or one of the aliases with SB3's names
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: Learning rate of all networks and the entropy coefficient, it can be a function of the current
        progress remaining (from 1 to 0)
    :param buffer_size: Size of the replay buffer, in tokens of all environments together. An episode has one token more
        than steps
    :param learning_starts: Steps before the first gradient step, with actions drawn uniformly
    :param batch_size: Transitions of a gradient step
    :param tau: The soft update coefficient ("Polyak update"), between 0 and 1
    :param gamma: Discount factor, from 0 to 1
    :param train_freq: Update the model every ``train_freq`` steps of each environment, or ``(n, "episode")``
    :param gradient_steps: Gradient steps after each rollout, -1 for as many as steps were taken by all environments
    :param action_noise: The action noise type, None by default
    :param replay_buffer_class: Subclass of :class:`~sb3_trmrl.memory.window_replay_buffer.WindowReplayBuffer`, with
        ``memory="full"`` of :class:`~sb3_trmrl.memory.sequence_replay_buffer.SequenceReplayBuffer`
    :param replay_buffer_kwargs: Keyword arguments to pass to the replay buffer: ``folder`` for memory-mapped files;
        with ``memory="full"`` also ``sequence_length`` and ``burn_in``
    :param ent_coef: Entropy regularization coefficient, ``"auto"`` to learn it, ``"auto_0.1"`` to start with 0.1
    :param target_update_interval: Update the target network every ``target_update_interval`` gradient steps
    :param target_entropy: Target entropy when learning ``ent_coef``, ``"auto"`` for minus the number of actions
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE, 1 or more; -1: at the beginning of
        the rollout
    :param use_sde_at_warmup: Whether to use gSDE instead of uniform sampling before learning starts
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.TransformerSACPolicy`: ``context_length``, ``share_features_extractor``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises TypeError: if an argument has the wrong type, or the actions are not a Box
    :raises ValueError: if an argument is out of range
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "TrMRLPolicy": TransformerSACPolicy,
        "TransformerSACPolicy": TransformerSACPolicy,
        "MlpTransformerPolicy": TransformerSACPolicy,
        "CnnTransformerPolicy": TransformerSACPolicy,
        "MultiInputTransformerPolicy": TransformerSACPolicy,
    }

    argument_checks = CHECKS

    policy: TransformerSACPolicy
    actor: MemoryActor
    critic: MemoryCritic
    critic_target: MemoryCritic
    replay_buffer: MemoryReplayBuffer
    # Memory of the training environments before `_last_obs` is written to it
    _last_memory: Memory
    # Memory that the newest action was chosen with. It becomes the last one when the step's transition is stored
    _next_memory: Memory

    @names_policy_kwargs(TransformerSACPolicy)
    def __init__(
        self,
        policy: str | type[TransformerSACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[MemoryReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        ent_coef: str | float = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
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
        check_keywords("policy_kwargs", policy_kwargs, policy_class, passed=(*self.passed_to_policy, "use_sde"))
        if made is not None:
            check_bounded_box(made.action_space, type(self).__name__)  # before SB3, which asserts
        kind = kind_of_memory(policy_argument(policy_class, policy_kwargs or {}, "memory"))
        arguments |= {
            "env": made,
            "learning_starts": int(learning_starts),
            "replay_buffer_class": replay_buffer_class or MEMORY_KINDS[kind].replay_buffer,
            "policy_kwargs": dict(policy_kwargs or {}),  # SB3 adds `use_sde` to it
            "_init_setup_model": False,
        }
        super().__init__(**arguments)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_attributes()
        kind = kind_of_memory(policy_argument(self.policy_class, self.policy_kwargs, "memory"))
        check_replay_buffer_class(self.replay_buffer_class, kind)
        check_keywords(
            "replay_buffer_kwargs", self.replay_buffer_kwargs, self.replay_buffer_class, passed=_PASSED_TO_BUFFER
        )
        self.buffer_size = int(self.buffer_size)
        self.train_freq = check_train_freq("train_freq", self.train_freq)
        super()._setup_model()
        check_memory_is_known(self.policy, kind)
        self.replay_buffer.bind(self.policy.history_length, self.policy.reset_memory_on)
        self._last_memory = self.policy.empty_memory(self.n_envs)

    def _check_vec_env(self) -> None:
        assert self.env is not None
        check_vec_env(self.env, self._vec_normalize_env, self.train_freq)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        before = self._last_obs
        result = super()._setup_learn(*args, **kwargs)
        if self._last_obs is not before:  # the environment has been reset
            check_finite_step(self._vec_normalize_env, self._last_obs)
            self.replay_buffer.begin_episodes()
        return result

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """
        Collect experiences with the current policy and its memory, and store them, see SB3's method.

        :param env: The training environment
        :param callback: Callback that will be called at each step (and at the beginning and end of the rollout)
        :param args: Further arguments of SB3's method
        :param kwargs: Further arguments of SB3's method
        :return: Steps, episodes, and whether training continues
        :raises ValueError: if an observation or a reward is not finite
        """
        self._restart_if_reset(env)
        self._restore_run(callback)
        self._at_rollout_boundary()
        if self._n_updates:
            self.policy.set_training_mode(False)
            self._last_memory = self.replay_buffer.refreshed(
                self._last_memory, self.policy.transformers, self._vec_normalize_env
            )
        with one_thread_beside_workers(env):
            rollout = super().collect_rollouts(env, callback, *args, **kwargs)
        if not rollout.continue_training:
            self._last_obs = None  # the environment is a step ahead: the next `learn` begins new episodes
        return rollout

    def _restart_if_reset(self, env: VecEnv) -> bool:
        is_reset = super()._restart_if_reset(env)
        if is_reset:
            if self._vec_normalize_env is not None:
                self._last_original_obs = self._vec_normalize_env.get_original_obs()
            self.replay_buffer.begin_episodes()
        return is_reset

    def memory_state(self) -> dict[str, Any]:
        return {
            "memory": self._last_memory.numpy(),
            "replay_buffer": self.replay_buffer.state_dict(),
            # It draws the actions before learning starts
            "action_generator": self.action_space.np_random.bit_generator.state,
            "action_noise": self.action_noise,  # which `learn` resets
        }

    def load_memory_state(self, state: dict[str, Any]) -> None:
        self._last_memory = state["memory"].to(self.device)
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self.action_space.np_random.bit_generator.state = state["action_generator"]
        if self.action_noise is not None:
            vars(self.action_noise).update(vars(state["action_noise"]))
        if np.all(self._last_episode_starts):  # maybe because the environments could not continue their episodes
            self.replay_buffer.begin_episodes()

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        with th.no_grad():
            obs = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            self._next_memory = self.policy.remember(self._last_memory, obs, self._last_episode_starts)  # type: ignore[arg-type]
            if self.num_timesteps < learning_starts and not (self.use_sde and self.use_sde_at_warmup):
                unscaled = np.array([self.action_space.sample() for _ in range(n_envs)])
                scaled = self.policy.scale_action(unscaled)
            else:
                scaled = self.actor(self._next_memory).cpu().numpy().reshape(n_envs, *self.action_space.shape)  # type: ignore[misc]
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        return self.policy.unscale_action(scaled), scaled

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        check_finite_step(self._vec_normalize_env, new_obs, reward, infos)
        # The environment may write to its arrays at the next step
        new_obs, dones = map_tokens(np.array, new_obs), np.array(dones)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_memory, self._last_episode_starts = self._next_memory, dones
        assert self.env is not None
        self._note_resets(self.env)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """
        Update actor, critics and entropy coefficient.

        :param gradient_steps: Number of gradient steps
        :param batch_size: As the argument of the constructor
        :raises FloatingPointError: if a loss is not finite
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        statistics = update(self, gradient_steps, batch_size)
        self.policy.set_training_mode(False)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in statistics.items():
            self.logger.record(f"train/{key}", value)

    def learn(
        self: SelfTransformerSAC,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfTransformerSAC:
        """
        Learn, see :meth:`Algorithm.learn`.

        :param total_timesteps: Total number of steps over all environments
        :param callback: As in :meth:`Algorithm.learn`
        :param log_interval: Number of episodes between two entries of the log, None for no entries
        :param tb_log_name: As in :meth:`Algorithm.learn`
        :param reset_num_timesteps: As in :meth:`Algorithm.learn`
        :param progress_bar: As in :meth:`Algorithm.learn`
        :return: The model
        """
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        Load the replay buffer that ``save_replay_buffer`` wrote. The next steps begin new episodes. This unpickles:
        only load files that you trust.

        :param path: Path to the pickled replay buffer
        :param truncate_last_traj: Has no effect
        :raises ValueError: if the file holds something else, or transitions of other environments or memories
        """
        buffer = load_from_pkl(path, self.verbose)
        own = self.replay_buffer
        if not isinstance(buffer, type(own)):
            raise ValueError(f"`path` must hold a {type(own).__name__}, got {buffer!r}")
        for name in ("n_envs", "observation_space", "action_space"):
            if getattr(buffer, name) != getattr(own, name):
                raise ValueError(
                    f"`path` must hold transitions with {name}={getattr(own, name)}, got {getattr(buffer, name)}"
                )
        buffer.bind(self.policy.history_length, self.policy.reset_memory_on)
        buffer.move_to(own.folder)
        buffer.device = self.device
        buffer.begin_episodes()
        self.replay_buffer = buffer
        self._last_memory = self.policy.empty_memory(self.n_envs)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_memory", "_next_memory"]
