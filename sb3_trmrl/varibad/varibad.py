"""VariBAD: PPO with a belief about the task, which a variational autoencoder learns to infer."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.arguments import check_arguments, check_batch_size, names_policy_kwargs, own_arguments
from sb3_trmrl.common.action_masks import is_masking_supported
from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.varibad.arguments import CHECKS, OWN_CHECKS
from sb3_trmrl.varibad.belief_env import BeliefVecEnv, space_with_belief
from sb3_trmrl.varibad.policies import VariBADPolicy, token_reader
from sb3_trmrl.varibad.trials import BatchMaker, TrialBuffer
from sb3_trmrl.varibad.vae import Decoders, update


class VariBAD(Algorithm, PPO):
    """
    Variational Bayes-Adaptive Deep Reinforcement Learning (Zintgraf et al., "VariBAD: A Very Good Method for
    Bayes-Adaptive Deep RL via Meta-Learning", ICLR 2020, https://arxiv.org/abs/1910.08348), on PPO.

    A recurrent encoder infers a posterior over a latent of the task, the *belief*, from the transitions since the trial
    began. The policy reads the state and the belief, and is trained with SB3's PPO. Encoder and decoders are trained
    as a variational autoencoder on whole trials, from a buffer of their own. No gradient of PPO reaches the encoder.

    The environment needs :class:`~sb3_trmrl.PreviousTransitionObservation`. SB3's episode is the trial. A zip does not
    hold the buffer of trials: training of a loaded model begins with an empty one.

    :param policy: ``"VariBADPolicy"``, also under the name ``"MultiInputPolicy"``
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: The learning rate of the policy, it can be a function of the current progress remaining (from
        1 to 0)
    :param n_steps: The number of steps to run for each environment per update
    :param batch_size: Minibatch size
    :param n_epochs: Number of epoch when optimizing the surrogate loss
    :param gamma: Discount factor, from 0 to 1
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator, from 0 to 1
    :param clip_range: Clipping parameter, it can be a function of the current progress remaining (from 1 to 0).
    :param clip_range_vf: Clipping parameter for the value function, above 0, None for no clipping
    :param normalize_advantage: Whether to normalize or not the advantage
    :param ent_coef: Entropy coefficient for the loss calculation
    :param vf_coef: Value function coefficient for the loss calculation, 0 or more
    :param max_grad_norm: The maximum value for the gradient clipping of the policy, above 0
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE, -1: at the beginning of the rollout
    :param rollout_buffer_class: Subclass of ``DictRolloutBuffer``; that class if None
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation
    :param target_kl: Limit the KL divergence between updates of the policy, above 0, None for no limit
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.varibad.policies.VariBADPolicy`: ``latent_dim``, ``gru_hidden_size``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param vae_learning_rate: Learning rate of encoder and decoders, which have an Adam of their own, a float or a
        schedule as ``learning_rate``
    :param kl_weight: Weight of the KL divergence in the ELBO
    :param n_elbo_terms: Number of time steps of a trial at which the ELBO is computed, drawn at random; None for all
    :param n_decoded_transitions: Number of transitions of a trial that each ELBO term decodes, drawn at random; None
        for all
    :param vae_buffer_size: Number of newest trials from which batches are drawn
    :param vae_batch_trials: Number of trials in a batch
    :param vae_updates_per_rollout: Number of updates of encoder and decoders after each update of the policy
    :param vae_bptt_steps: Number of steps after which the encoder's gradient through time is cut, None for no limit
    :param vae_max_grad_norm: The maximum value for the gradient clipping of encoder and decoders, infinity for none
    :param decode_rewards: Whether there is a reward decoder
    :param decode_states: Whether there is a decoder of the next state, given latent, state and action
    :param reward_distribution: ``"gaussian"``: squared error; ``"bernoulli"``: cross-entropy of whether the reward is
        positive
    :param reward_decoder_inputs: What the reward decoder reads beside the latent: a list of ``"state"``, ``"action"``,
        ``"next_state"``. The last step of an inner episode is decoded only without ``"next_state"``, which the
        observations do not contain there
    :param reward_decoder_arch: Sizes of the reward decoder's hidden layers
    :param state_decoder_arch: Sizes of the state decoder's hidden layers
    :param standardize_targets: Whether rewards and states are standardised with running statistics before the decoders
        predict them, and clipped at 10 standard deviations
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises TypeError: if an argument has the wrong type, or ``policy_kwargs`` a name that the policy does not take
    :raises ValueError: if an argument is out of range, there is no decoder, or the observations of ``env`` are not
        those of ``PreviousTransitionObservation``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "VariBADPolicy": VariBADPolicy,
        "MultiInputPolicy": VariBADPolicy,
    }

    argument_checks = CHECKS
    passed_to_policy = (*Algorithm.passed_to_policy, "use_sde")

    vae_learning_rate: float | Schedule
    kl_weight: float
    n_elbo_terms: int | None
    n_decoded_transitions: int | None
    vae_buffer_size: int
    vae_batch_trials: int
    vae_updates_per_rollout: int
    vae_bptt_steps: int | None
    vae_max_grad_norm: float
    decode_rewards: bool
    decode_states: bool
    reward_distribution: str
    reward_decoder_inputs: Sequence[str]
    reward_decoder_arch: Sequence[int]
    state_decoder_arch: Sequence[int]
    standardize_targets: bool
    policy: VariBADPolicy
    decoders: Decoders
    vae_optimizer: th.optim.Optimizer
    trial_buffer: TrialBuffer
    _belief_env: BeliefVecEnv | None = None

    @names_policy_kwargs(VariBADPolicy)
    def __init__(
        self,
        policy: str | type[VariBADPolicy],
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
        vae_learning_rate: float | Schedule = 1e-3,
        kl_weight: float = 0.1,
        n_elbo_terms: int | None = 50,
        n_decoded_transitions: int | None = 50,
        vae_buffer_size: int = 10_000,
        vae_batch_trials: int = 10,
        vae_updates_per_rollout: int = 1,
        vae_bptt_steps: int | None = None,
        vae_max_grad_norm: float = 1.0,
        decode_rewards: bool = True,
        decode_states: bool = False,
        reward_distribution: str = "gaussian",
        reward_decoder_inputs: Sequence[str] = ("next_state",),
        reward_decoder_arch: Sequence[int] = (64, 32),
        state_decoder_arch: Sequence[int] = (64, 32),
        standardize_targets: bool = False,
        _init_setup_model: bool = True,
    ) -> None:
        arguments = own_arguments(locals())
        check_arguments(arguments, CHECKS)
        _, made = self._policy_and_env(policy, env, verbose)
        if made is not None:
            token_reader(made.observation_space)
        if normalize_advantage:
            check_batch_size(batch_size)
        own = {name: arguments.pop(name) for name in OWN_CHECKS}
        super().__init__(**{**arguments, "env": made, "_init_setup_model": False})
        vars(self).update(own)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_attributes()
        if not (self.decode_rewards or self.decode_states):
            raise ValueError("`decode_rewards` must be True if `decode_states` is False, got False")
        if self.normalize_advantage:
            check_batch_size(self.batch_size, self.n_steps * self.n_envs)
        buffer_class = self.rollout_buffer_class or DictRolloutBuffer
        own = inspect.signature(RolloutBuffer).parameters
        check_keywords("rollout_buffer_kwargs", self.rollout_buffer_kwargs, buffer_class, passed=own)
        super()._setup_model()
        self.rollout_buffer = buffer_class(
            self.n_steps,
            space_with_belief(self.observation_space, self.policy.latent_dim),
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        reader = self.policy.reader
        self.decoders = Decoders(
            reader.state_dim,
            reader.action_dim,
            self.policy.latent_dim,
            reward_arch=self.reward_decoder_arch if self.decode_rewards else None,
            state_arch=self.state_decoder_arch if self.decode_states else None,
            reward_inputs=self.reward_decoder_inputs,
            reward_distribution=self.reward_distribution,
            standardize=self.standardize_targets,
        ).to(self.device)
        self.vae_lr_schedule = FloatSchedule(self.vae_learning_rate)
        self.vae_optimizer = th.optim.Adam(self.vae_parameters(), lr=self.vae_lr_schedule(1.0))
        self.trial_buffer = TrialBuffer(self.vae_buffer_size)

    def vae_parameters(self) -> list[th.nn.Parameter]:
        """:return: The parameters of encoder and decoders"""
        return [*self.policy.encoder.parameters(), *self.decoders.parameters()]

    # -- Training ----------------------------------------------------------------------------------------------------

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Collect experiences as in SB3, with the belief in each observation, and add finished trials to the buffer of the
        autoencoder.

        :param env: The training environment
        :param callback: Callback that will be called at each step
            (and at the beginning and end of the rollout)
        :param rollout_buffer: Buffer to fill with rollouts
        :param n_rollout_steps: Number of experiences to collect per environment
        :return: True if function returned with at least `n_rollout_steps`
            collected, False if callback terminated rollout prematurely.
        :raises ValueError: if an observation or a reward is not finite
        """
        if self._belief_env is None or self._belief_env.venv is not env:
            self._belief_env = BeliefVecEnv(env, self.policy, self._vec_normalize_env)
        self._restore_run(callback)
        self._at_rollout_boundary()
        recorder = self._belief_env.recorder
        with one_thread_beside_workers(env):
            self._last_obs = self._belief_env.begin_rollout(self._last_obs)
            result = super().collect_rollouts(self._belief_env, callback, rollout_buffer, n_rollout_steps)
        if not result:
            self._last_obs = None  # the environment is a step ahead: the next `learn` begins new episodes
        if recorder.finished:
            for trial in recorder.finished:
                self.trial_buffer.add(trial)
            if self.standardize_targets:
                self.decoders.update_statistics(self.batch_maker()(recorder.finished))
            recorder.finished.clear()
        return result

    def memory_state(self) -> dict[str, Any]:
        assert self._belief_env is not None
        return {"trials": self.trial_buffer, "running_trials": self._belief_env.running_trials()}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        assert self._belief_env is not None
        self.trial_buffer = state["trials"].resized(self.vae_buffer_size)
        self._belief_env.continue_trials(state["running_trials"])

    def train(self) -> None:
        """Update the policy with SB3's PPO, then encoder and decoders, then the statistics of the policy's inputs."""
        super().train()
        if len(self.trial_buffer):
            self.train_vae(self.vae_updates_per_rollout)
        # Not earlier: the policy's update must compute the same probabilities as collection
        rollout: Any = self.rollout_buffer  # whose arrays the update has flattened to (n_steps * n_envs, ...)
        self.policy.features_extractor.update(obs_as_tensor(rollout.observations, self.device))  # type: ignore[arg-type]

    def train_vae(self, n_updates: int) -> None:
        """
        Update encoder and decoders with batches of trials.

        :param n_updates: Number of gradient steps
        :raises FloatingPointError: if a gradient is not finite
        """
        update(self, n_updates)

    def batch_maker(self) -> BatchMaker:
        """:return: What makes batches of trials, with the current statistics of VecNormalize"""
        return BatchMaker(self.policy.reader, self.action_space, self._vec_normalize_env, self.device)

    def _prepare_learning(self, callback: MaybeCallback, total_timesteps: int) -> MaybeCallback:
        assert self.env is not None
        if is_masking_supported(self.env):
            raise ValueError("`env` must have no method action_masks(): VariBAD does not support action masks")
        return callback

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, "decoders", "vae_optimizer"], variables

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "trial_buffer", "_belief_env"]
