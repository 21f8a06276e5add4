"""TransformerPPO: PPO over windows of working memories."""

import io
import os
import pathlib
from collections.abc import Iterable
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
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl.common.buffers import MemoryRolloutBuffer, SequenceRolloutBuffer, WindowRolloutBuffer
from sb3_trmrl.common.checks import check_finite, check_non_negative, check_positive_int
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.transformer_ppo.policies import Memory, TrMRLPolicy

SelfTransformerPPO = TypeVar("SelfTransformerPPO", bound="TransformerPPO")


class TransformerPPO(PPO):
    """
    Proximal Policy Optimization with a transformer memory: TrMRL, on-policy
    (Melo, "Transformers are Meta-Reinforcement Learners", ICML 2022, https://arxiv.org/abs/2206.06614).

    The policy acts on a window of the newest observations, which :class:`~sb3_trmrl.common.buffers.WindowRolloutBuffer`
    gives back exactly at the update; or, with ``memory="full"``, on all observations of the episode, as
    :class:`~sb3_trmrl.common.buffers.SequenceRolloutBuffer` does. The update itself is SB3's ``PPO.train``. Every
    observation is a token: no wrapper is needed for memory. For meta-RL, where tokens are (state, previous action,
    reward, done flag), wrap the environment in :class:`~sb3_trmrl.PreviousTransitionObservation`.

    :param policy: ``"TrMRLPolicy"``, or one of the aliases with SB3's names
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: The learning rate, it can be a function of the current progress remaining (from 1 to 0)
    :param n_steps: The number of steps to run for each environment per update
    :param batch_size: Minibatch size, in transitions
    :param n_epochs: Number of epoch when optimizing the surrogate loss
    :param gamma: Discount factor
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator
    :param clip_range: Clipping parameter, it can be a function of the current progress remaining (from 1 to 0).
    :param clip_range_vf: Clipping parameter for the value function, None for no clipping
    :param normalize_advantage: Whether to normalize or not the advantage
    :param ent_coef: Entropy coefficient for the loss calculation
    :param vf_coef: Value function coefficient for the loss calculation
    :param max_grad_norm: The maximum value for the gradient clipping
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE, -1: at the beginning of the rollout
    :param rollout_buffer_class: ``WindowRolloutBuffer`` (``SequenceRolloutBuffer`` with ``memory="full"``) or a
        subclass; that class if None
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation
    :param target_kl: Limit the KL divergence between updates
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.transformer_ppo.policies.TrMRLPolicy`: ``context_length``, ``d_model``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param vf_learning_rate: Learning rate of the parameters that only the critic reads, a float or a schedule as
        ``learning_rate``; None to follow ``learning_rate``
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises TypeError: if ``n_steps`` is not an integer
    :raises ValueError: if ``n_steps`` is below 1 or ``policy`` is not a TrMRL policy; see the policy for its arguments
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "TrMRLPolicy": TrMRLPolicy,
        "MlpTransformerPolicy": TrMRLPolicy,
        "CnnTransformerPolicy": TrMRLPolicy,
        "MultiInputTransformerPolicy": TrMRLPolicy,
    }
    policy: TrMRLPolicy
    rollout_buffer: MemoryRolloutBuffer
    # Memory of the training environments before `_last_obs` is written to it
    _last_memory: Memory

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
        check_positive_int("n_steps", n_steps)
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        if not issubclass(self.policy_class, TrMRLPolicy):
            raise ValueError(
                f"`policy` must be a TrMRLPolicy, got {self.policy_class.__name__}. "
                "Was the zip that you are loading saved by another algorithm?"
            )
        self.vf_learning_rate = vf_learning_rate
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        check_positive_int("n_steps", self.n_steps)  # again, as load() sets it past the constructor
        if self.vf_learning_rate is not None and not callable(self.vf_learning_rate):
            check_non_negative("vf_learning_rate", self.vf_learning_rate)
        is_full = self.policy_kwargs.get("memory") == "full"
        expected = SequenceRolloutBuffer if is_full else WindowRolloutBuffer
        if self.rollout_buffer_class is None:
            self.rollout_buffer_class = expected
        if not issubclass(self.rollout_buffer_class, expected):
            raise ValueError(f"`rollout_buffer_class` must be a {expected.__name__}, got {self.rollout_buffer_class}")
        super()._setup_model()
        self.vf_lr_schedule = None if self.vf_learning_rate is None else FloatSchedule(self.vf_learning_rate)
        self._last_memory = self.policy.empty_memory(self.n_envs)
        if isinstance(self.rollout_buffer, SequenceRolloutBuffer):
            self.rollout_buffer.reach = self.policy.reach()
        elif isinstance(self.rollout_buffer, WindowRolloutBuffer):
            self.rollout_buffer.distinct_tokens = self.policy.has_costly_tokens()

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
        :raises ValueError: if an observation or a reward is not finite
        """
        with one_thread_beside_workers(env):
            return self._collect(env, callback, rollout_buffer, n_rollout_steps)

    def _collect(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        assert self._last_obs is not None, "No previous observation was provided"
        assert isinstance(rollout_buffer, MemoryRolloutBuffer), f"{rollout_buffer} has no memory"
        self._check_finite(self._last_obs)
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)

        n_steps = 0
        rollout_buffer.reset()
        rollout_buffer.carry_over(self._last_memory)
        if isinstance(rollout_buffer, SequenceRolloutBuffer):
            # What is remembered of earlier rollouts was computed with older weights
            with th.no_grad():
                self._last_memory = self.policy.recompute(self._last_memory, *rollout_buffer.carried())  # type: ignore[arg-type]
        # Sample new weights for the state dependent exploration
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)

        callback.on_rollout_start()

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                # Sample a new noise matrix
                self.policy.reset_noise(env.num_envs)

            with th.no_grad():
                # Convert to pytorch tensor or to TensorDict
                obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
                memory = self.policy.remember(self._last_memory, obs_tensor, self._last_episode_starts)  # type: ignore[arg-type]
                actions, values, log_probs = self.policy(memory)
            actions = actions.cpu().numpy()

            # Rescale and perform action
            clipped_actions = actions

            if isinstance(self.action_space, spaces.Box):
                if self.policy.squash_output:
                    clipped_actions = self.policy.unscale_action(clipped_actions)
                else:
                    clipped_actions = np.clip(actions, self.action_space.low, self.action_space.high)

            new_obs, rewards, dones, infos = env.step(clipped_actions)
            rewards = rewards.astype(np.float32, copy=False)  # integers would cut the bootstrapped value
            self._check_finite(new_obs, rewards)

            self.num_timesteps += env.num_envs

            # Give access to local variables
            callback.update_locals(locals())
            if not callback.on_step():
                return False

            self._update_info_buffer(infos, dones)
            n_steps += 1

            self._bootstrap_truncated(rewards, dones, infos, memory)
            rollout_buffer.add(
                self._last_obs,
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
                memory.lengths,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
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

    def _check_finite(self, obs: Any, rewards: np.ndarray | None = None) -> None:
        """
        :param obs: Newest observations
        :param rewards: Newest rewards, (n_envs,)
        :raises ValueError: naming the environment whose numbers are not finite
        """
        normalizer = self._vec_normalize_env
        if normalizer is not None:  # whose statistics spread one environment's NaN to all
            obs = normalizer.get_original_obs()
            rewards = rewards if rewards is None else normalizer.get_original_reward()
        check_finite("observation", obs)
        if rewards is not None:
            check_finite("reward", rewards)

    def _bootstrap_truncated(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]], memory: Memory
    ) -> None:
        """
        Add the discounted value of the terminal observation to the last reward of episodes cut by a time limit (see
        SB3's GitHub issue #633), in one batch: fixed horizons end together.

        :param rewards: Rewards of this step, (n_envs,), changed in place
        :param dones: Where an episode has ended, (n_envs,)
        :param infos: Infos of this step
        :param memory: Memory that the actions of this step were chosen with
        """
        truncated = [
            index
            for index, done in enumerate(dones)
            if done
            and infos[index].get("terminal_observation") is not None
            and infos[index].get("TimeLimit.truncated", False)
        ]
        if not truncated:
            return
        terminal_obs = [infos[index]["terminal_observation"] for index in truncated]
        stacked: Any = np.stack(terminal_obs)
        if isinstance(terminal_obs[0], dict):
            stacked = {key: np.stack([obs[key] for obs in terminal_obs]) for key in terminal_obs[0]}
        check_finite("terminal observation", stacked)
        with th.no_grad():
            # The memory as it was before the reset: the value is that of going on
            starts = th.zeros(len(truncated), dtype=th.bool, device=self.device)
            going_on = self.policy.write(memory.select(truncated), self.policy.obs_to_tensor(stacked)[0], starts)
            terminal_values = self.policy.predict_values(going_on)
        rewards[truncated] += self.gamma * terminal_values.cpu().numpy().flatten()

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        super()._update_learning_rate(optimizers)
        if self.vf_lr_schedule is not None:
            vf_learning_rate = self.vf_lr_schedule(self._current_progress_remaining)
            self.logger.record("train/vf_learning_rate", vf_learning_rate)
            self.policy.optimizer.param_groups[1]["lr"] = vf_learning_rate

    def learn(
        self: SelfTransformerPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "TransformerPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfTransformerPPO:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save all the attributes of the object and the model parameters in a zip-file. The file is complete or not there:
        an older one stays as it was until the new one is whole.

        :param path: path to the file where the rl agent should be saved
        :param exclude: name of parameters that should be excluded in addition to the default ones
        :param include: name of parameters that might be excluded but should be included anyway
        :raises ValueError: if ``path`` cannot be written to
        """
        if not isinstance(path, (str, pathlib.Path)):
            super().save(path, exclude, include)
            return
        target = pathlib.Path(path)
        target = target if target.suffix else target.with_name(f"{target.name}.zip")
        target = target.resolve()  # a link stays a link, as with SB3
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError("it is a folder")
            # Beside the target, so that the last step is a rename within one file system
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            file = temporary.open("wb")
        except OSError as error:
            raise ValueError(f"cannot save the model to `path` {str(path)!r}: {error}") from error
        try:
            with file:
                super().save(file, exclude, include)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def export(
        self,
        path: str | pathlib.Path,
        env_id: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        vec_normalize: VecNormalize | None = None,
        summary: dict[str, Any] | None = None,
    ) -> pathlib.Path:
        """
        Write the agent, for acting only, as a safetensors file that strangers can load without running anything, with
        :func:`sb3_trmrl.load_agent`. It holds weights, spaces, the policy's settings, statistics of observations, the
        environment and a summary of the training; nothing to train on with. The file is complete or not there.

        :param path: File to write, ``.safetensors``, which is added to a name without suffix
        :param env_id: Registered id of the environment, by default that of the model's own, where it is known: it is
            made by ``gym.make`` in this process
        :param env_kwargs: Arguments of that environment, plain data, by default those it was made with
        :param vec_normalize: Wrapper with the statistics of observations, by default that of the model's environment
        :param summary: Plain data (None, numbers, texts, lists and dictionaries of these) that is added to the summary:
            algorithm, timesteps, versions and hyperparameters
        :return: The file
        :raises ValueError: if an argument is not plain data, ``path`` cannot be written to, or the agent has a class of
            the user's own (policy, features extractor, activation function), other spaces than PPO's, or weights that
            are not finite
        """
        from sb3_trmrl.sharing.export import export_agent  # which needs the policy of this package

        return export_agent(self, path, env_id, env_kwargs, vec_normalize, summary)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_memory"]
