"""TransformerPPO: PPO over memories of tokens."""

import inspect
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.arguments import check_arguments, check_batch_size, names_policy_kwargs, own_arguments
from sb3_trmrl.algorithms.exports import Exports
from sb3_trmrl.algorithms.finite import check_finite_step
from sb3_trmrl.common.action_masks import is_masking_supported
from sb3_trmrl.common.checks import check_bool, check_keywords, check_non_negative, check_number
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.distributed.collectives import (
    all_gather,
    gather_from_others,
    is_main,
    own_device,
    share,
    world_size,
)
from sb3_trmrl.distributed.progress import count_all_ranks
from sb3_trmrl.distributed.statistics import SharedStatistics
from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.interface import Memory
from sb3_trmrl.memory.kinds import MEMORY_KINDS, check_memory_is_known, memory_name, policy_argument
from sb3_trmrl.memory.resets import NoticesResets
from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.transformer_ppo.action_masks import check_action_masks
from sb3_trmrl.transformer_ppo.arguments import CHECKS, SCHEDULES, ZIP_FORMAT, explicit_defaults
from sb3_trmrl.transformer_ppo.policies import TrMRLPolicy
from sb3_trmrl.transformer_ppo.ranks import join_ranks
from sb3_trmrl.transformer_ppo.rollouts import bootstrap_truncated
from sb3_trmrl.transformer_ppo.update import update

#: Attributes that are not saved in the zip
_NOT_SAVED = ("_finished", "_has_own_numbers", "_last_memory", "_shared_statistics", "_use_masking")
#: Entries of an info that SB3 averages over the last episodes
_EPISODE_INFOS = ("episode", "is_success")

SelfTransformerPPO = TypeVar("SelfTransformerPPO", bound="TransformerPPO")


def _episode_infos(infos: list[dict[str, Any]], dones: np.ndarray) -> list[dict[str, Any]]:
    """Return the entries of the infos of finished episodes that SB3 averages."""
    return [{key: info.get(key) for key in _EPISODE_INFOS} for info, done in zip(infos, dones, strict=True) if done]


class TransformerPPO(Algorithm, NoticesResets, Exports, PPO):
    """
    Proximal Policy Optimization with a transformer memory: TrMRL, on-policy
    (Melo, "Transformers are Meta-Reinforcement Learners", ICML 2022, https://arxiv.org/abs/2206.06614).

    The policy acts on all observations of the episode or, with a ``context_length``, on a window of the newest. The
    rollout buffer restores exactly these memories. The update is that of SB3's PPO. Every observation is a token: no
    wrapper is needed for memory. For meta-RL, where tokens are (state, previous action, reward, done flag),
    wrap the environment in :class:`~sb3_trmrl.PreviousTransitionObservation`.

    :param policy: ``"TrMRLPolicy"``, or one of the aliases with SB3's names
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: The learning rate, it can be a function of the current progress remaining (from 1 to 0)
    :param n_steps: The number of steps to run for each environment per update
    :param batch_size: Minibatch size, in transitions. With several ranks, the total over all ranks
    :param n_epochs: Number of epoch when optimizing the surrogate loss
    :param gamma: Discount factor, from 0 to 1
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator, from 0 to 1
    :param clip_range: Clipping parameter, it can be a function of the current progress remaining (from 1 to 0).
    :param clip_range_vf: Clipping parameter for the value function, above 0, None for no clipping
    :param normalize_advantage: Whether to normalize or not the advantage
    :param ent_coef: Entropy coefficient for the loss calculation; negative to make actions less random
    :param vf_coef: Value function coefficient for the loss calculation, 0 or more
    :param max_grad_norm: The maximum value for the gradient clipping, above 0, infinity for no clipping
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE, 1 or more; -1: at the beginning of
        the rollout
    :param rollout_buffer_class: Subclass of the rollout buffer of the policy's kind of memory: ``WindowRolloutBuffer``,
        or ``SequenceRolloutBuffer`` with ``memory="full"``; that class if None
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation
    :param target_kl: Limit the KL divergence between updates, above 0, None for no limit
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.transformer_ppo.policies.TrMRLPolicy`: ``context_length``, ``d_model``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param vf_learning_rate: Learning rate of the parameters that only the critic uses, a float or a schedule as
        ``learning_rate``; None to follow ``learning_rate``
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises TypeError: if an argument has the wrong type, or ``policy_kwargs`` a name that the policy does not take
    :raises ValueError: if an argument is out of range or ``policy`` is not a TrMRL policy
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "TrMRLPolicy": TrMRLPolicy,
        "MlpTransformerPolicy": TrMRLPolicy,
        "CnnTransformerPolicy": TrMRLPolicy,
        "MultiInputTransformerPolicy": TrMRLPolicy,
    }

    argument_checks = CHECKS
    passed_to_policy = (*Algorithm.passed_to_policy, "use_sde")
    newest_zip_format = ZIP_FORMAT

    policy: TrMRLPolicy
    rollout_buffer: MemoryRolloutBuffer
    # Memory of the training environments before `_last_obs` is written to it
    _last_memory: Memory
    #: Whether the last training used action masks
    uses_action_masks: bool = False
    # Of the zip that is being loaded: a zip without a number has format 1
    zip_format: int = 1
    # Whether this rank has already been seeded differently from the others
    _has_own_numbers: bool = False
    # Whether masks are used if the environment has them
    _use_masking: bool = True
    _shared_statistics: SharedStatistics | None = None
    _finished: list[dict[str, Any]]  # statistics of the episodes that ended during this rollout

    @names_policy_kwargs(TrMRLPolicy)
    def __init__(
        self,
        policy: str | type[TrMRLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        vf_learning_rate: float | Schedule | None = None,
        _init_setup_model: bool = True,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, CHECKS)
        if normalize_advantage:
            check_batch_size(batch_size)
        _, made = self._policy_and_env(policy, env, verbose)
        del arguments["vf_learning_rate"]
        arguments |= {
            "env": made,
            # SB3 checks it against the size of this rank's rollout
            "batch_size": share("batch_size", batch_size) if _init_setup_model else batch_size,
            "verbose": verbose if is_main() else 0,
            "device": own_device(device),
            "_init_setup_model": False,
        }
        super().__init__(**arguments)
        self.batch_size = batch_size
        self.vf_learning_rate = vf_learning_rate
        if env is not None:  # not while a zip is loaded
            self.zip_format = ZIP_FORMAT
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_attributes()
        if self.normalize_advantage:
            check_batch_size(self.batch_size, self.n_steps * self.n_envs)
        self.policy_kwargs = explicit_defaults(self.policy_kwargs, self.zip_format)
        memory = memory_name(
            *(policy_argument(self.policy_class, self.policy_kwargs, name) for name in ("memory", "context_length"))
        )
        expected = MEMORY_KINDS[memory].buffer
        if self.rollout_buffer_class is None:
            self.rollout_buffer_class = expected
        if not issubclass(self.rollout_buffer_class, expected):
            raise ValueError(f"`rollout_buffer_class` must be a {expected.__name__}, got {self.rollout_buffer_class}")
        own = inspect.signature(RolloutBuffer).parameters
        check_keywords("rollout_buffer_kwargs", self.rollout_buffer_kwargs, self.rollout_buffer_class, passed=own)
        super()._setup_model()
        check_memory_is_known(self.policy, memory)
        self.zip_format = ZIP_FORMAT  # is saved like every attribute
        self.vf_lr_schedule = None if self.vf_learning_rate is None else FloatSchedule(self.vf_learning_rate)
        self._last_memory = self.policy.empty_memory(self.n_envs)
        self.rollout_buffer.bind(self.policy.transformers)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        progress = self._current_progress_remaining
        for attribute, name in SCHEDULES.items():  # a schedule that was right at first may return NaN later
            if getattr(self, attribute) is not None:
                # Below 0, at the end of a rollout that was longer than what was left, PPO accepts any number
                check = check_non_negative if progress >= 0 else check_number
                check(f"{name}({progress:g})", float(getattr(self, attribute)(progress)))
        super()._update_learning_rate(optimizers)
        if self.vf_lr_schedule is not None:
            vf_learning_rate = self.vf_lr_schedule(self._current_progress_remaining)
            self.logger.record("train/vf_learning_rate", vf_learning_rate)
            self.policy.optimizer.param_groups[1]["lr"] = vf_learning_rate

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """
        Collect experiences using the current policy and its memory, and fill a ``MemoryRolloutBuffer``.

        :param env: The training environment
        :param callback: Callback that will be called at each step
            (and at the beginning and end of the rollout)
        :param rollout_buffer: Buffer to fill with rollouts
        :param n_rollout_steps: Number of experiences to collect per environment
        :return: True if function returned with at least `n_rollout_steps`
            collected, False if callback terminated rollout prematurely.
        :raises ValueError: if an observation or a reward is not finite, or a callback resets the training environment
        """
        with one_thread_beside_workers(env):
            continue_training = self._collect(env, callback, rollout_buffer, n_rollout_steps)
        # Only rank 0 runs callbacks. If one of them ends training, all ranks stop
        if not all(all_gather(continue_training)):
            return False
        elsewhere = gather_from_others(self._finished)
        self._update_info_buffer(elsewhere, np.ones(len(elsewhere), dtype=bool))
        if self._shared_statistics is not None:
            self._shared_statistics.merge()
        return True

    def train(self) -> None:
        """Update the policy with the rollout buffers of all ranks."""
        update(self)

    def _collect(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        assert self._last_obs is not None, "No previous observation was provided"
        assert isinstance(rollout_buffer, MemoryRolloutBuffer), f"{rollout_buffer} has no memory"
        self._restart_if_reset(env)
        check_finite_step(self._vec_normalize_env, self._last_obs)
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)

        n_steps = 0
        self._begin_rollout(env, rollout_buffer, callback)
        callback.on_rollout_start()

        # Sample new weights for the state dependent exploration, after a checkpoint has saved the generators
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                # Sample a new noise matrix
                self.policy.reset_noise(env.num_envs)

            with th.no_grad():
                # Convert to pytorch tensor or to TensorDict
                obs_tensor = obs_as_tensor(self._last_obs, self.device)
                memory = self.policy.remember(self._last_memory, obs_tensor, self._last_episode_starts)  # type: ignore[arg-type]
                action_masks = self._read_action_masks(env)
                actions, values, log_probs = self.policy(self.policy.masked(memory, action_masks))
            actions = actions.cpu().numpy()

            # Rescale and perform action
            clipped_actions = actions

            if isinstance(self.action_space, spaces.Box):
                if self.policy.squash_output:
                    clipped_actions = self.policy.unscale_action(clipped_actions)
                else:
                    clipped_actions = np.clip(actions, self.action_space.low, self.action_space.high)

            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self._note_resets(env)
            # The environment may write to its arrays at the next step, and we write to the rewards
            new_obs, dones = map_tokens(np.array, new_obs), np.array(dones)
            rewards = np.array(rewards, dtype=np.float32)  # integers would truncate the bootstrapped value
            check_finite_step(self._vec_normalize_env, new_obs, rewards)

            self.num_timesteps += env.num_envs * world_size()

            # Give access to local variables
            callback.update_locals(locals())
            if not callback.on_step():
                self._last_obs = None  # the environment is a step ahead: the next `learn` begins new episodes
                return False
            self._refuse_reset(env)

            self._update_info_buffer(infos, dones)
            self._finished += _episode_infos(infos, dones)
            n_steps += 1

            bootstrap_truncated(self.policy, self.gamma, rewards, dones, infos, memory)
            rollout_buffer.add(
                self._last_obs,
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
                memory.lengths,
                action_masks,
            )
            self._last_obs = new_obs
            self._last_episode_starts = dones
            self._last_memory = memory

        with th.no_grad():
            # Compute value for the last timestep
            memory = self.policy.remember(memory, obs_as_tensor(new_obs, self.device), dones)  # type: ignore[arg-type]
            values = self.policy.predict_values(memory)

        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)

        callback.update_locals(locals())

        callback.on_rollout_end()

        return True

    def _read_action_masks(self, env: VecEnv) -> np.ndarray | None:
        """Return a copy of the masks of the next action, (n_envs, M), or None if training does not use masks."""
        if not self.uses_action_masks:
            return None
        return check_action_masks(env.env_method("action_masks"), self.action_space, env.num_envs)

    def _init_callback(self, *args: Any, **kwargs: Any) -> BaseCallback:
        callback = super()._init_callback(*args, **kwargs)
        count_all_ranks(callback)
        return callback

    def _begin_rollout(self, env: VecEnv, rollout_buffer: MemoryRolloutBuffer, callback: BaseCallback) -> None:
        """Continue an interrupted run, prepare the buffer, and tell callbacks that write checkpoints."""
        if self._restore_run(callback):
            self._shared_statistics = SharedStatistics(env)  # those of the checkpoint
        self._finished = []
        rollout_buffer.reset()
        self._last_memory = rollout_buffer.begin_rollout(self._last_memory)
        self._at_rollout_boundary()

    def memory_state(self) -> dict[str, Any]:
        return self.rollout_buffer.memory_state(self._last_memory)

    def load_memory_state(self, state: dict[str, Any]) -> None:
        self._last_memory = self.rollout_buffer.load_memory_state(state)

    def learn(
        self: SelfTransformerPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        use_masking: bool = True,
    ) -> SelfTransformerPPO:
        """
        Learn, see :meth:`Algorithm.learn`. Processes started by ``torchrun`` train one model together. Callbacks run on
        rank 0 only, except :class:`~sb3_trmrl.TrainingCheckpoint`.

        :param total_timesteps: Total number of steps over all environments and ranks
        :param callback: As in :meth:`Algorithm.learn`
        :param log_interval: As in :meth:`Algorithm.learn`
        :param tb_log_name: As in :meth:`Algorithm.learn`
        :param reset_num_timesteps: As in :meth:`Algorithm.learn`
        :param progress_bar: As in :meth:`Algorithm.learn`
        :param use_masking: Whether to choose only among valid actions if the environment has the method
            ``action_masks()``
        :return: The model
        :raises ValueError: also if action masks do not fit the action space or allow no action, or ranks have different
            arguments
        :raises RuntimeError: also if another rank has ended
        """
        self._use_masking = check_bool("use_masking", use_masking)
        progress_bar = check_bool("progress_bar", progress_bar) and is_main()
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _prepare_learning(self, callback: MaybeCallback, total_timesteps: int) -> MaybeCallback:
        self.uses_action_masks = self._use_masking and self.env is not None and is_masking_supported(self.env)
        return join_ranks(self, callback, total_timesteps)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """
        Get the policy action from an observation and the memory of those before it, see :meth:`TrMRLPolicy.predict`.

        :param observation: the input observation, of one environment or of any number B of them
        :param state: The memory returned by the last call, None for an empty one
        :param episode_start: Mask of environments whose memory is emptied first, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions.
        :param action_masks: Masks of valid actions, (B, M), or None if all are valid
        :return: the model's action and the memory that ends with this observation
        :raises ValueError: if an argument does not fit the policy or the number of observations
        """
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_NOT_SAVED]
