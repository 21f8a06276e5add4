"""MAMLTRPO: policies that adapt by gradient steps, from initial parameters that are learned for it with TRPO."""

from __future__ import annotations

from collections import deque
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.arguments import check_arguments, names_policy_kwargs, own_arguments
from sb3_trmrl.algorithms.transitions import check_observation
from sb3_trmrl.common.checks import check_bool
from sb3_trmrl.common.threads import one_thread_beside_workers
from sb3_trmrl.maml_trpo.adaptation import Adaptation
from sb3_trmrl.maml_trpo.advantages import estimate_advantages
from sb3_trmrl.maml_trpo.arguments import CHECKS, OWN_CHECKS, check_vec_env
from sb3_trmrl.maml_trpo.collection import Stopped, TaskCollector
from sb3_trmrl.maml_trpo.outer import TaskSamples, trpo_step
from sb3_trmrl.maml_trpo.policies import MAMLPolicy


class MAMLTRPO(Algorithm, OnPolicyAlgorithm):
    """
    Model-Agnostic Meta-Learning (Finn et al. 2017, https://arxiv.org/abs/1703.03400) with TRPO as the outer optimiser.

    The policy adapts to a task by policy-gradient steps on a few episodes. TRPO improves the initial parameters so that
    the *adapted* policies get high returns; it differentiates through the inner steps. Needs a family of tasks in
    :class:`~sb3_trmrl.MultiEpisodeTrial` and :class:`~sb3_trmrl.PreviousTransitionObservation`, as all environments of
    this package. The actor reads the environment's own observation only. Needs the extra ``zoo``, for sb3-contrib.

    :param policy: ``"MlpPolicy"``; ``"MultiInputPolicy"`` is the same
    :param env: The environment to learn from (if registered in Gym, can be str). Each copy plays one task at a time
    :param inner_learning_rate: Factor of the policy gradient in the inner steps
    :param n_tasks: Tasks in an update, rounded up to a multiple of the copies of the environment
    :param n_inner_episodes: Episodes of each task before each inner step, and with the adapted policy
    :param n_inner_steps: Gradient steps that adapt the policy to a task
    :param gamma: Discount factor, from 0 to 1
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator, from 0 to 1
    :param target_kl: Largest KL divergence between adapted policies before and after an update, a mean over tasks
    :param cg_max_steps: Maximum number of steps of the conjugate gradient algorithm
    :param cg_damping: Damping of the Hessian vector product
    :param line_search_max_iter: Maximum number of step sizes that the line search tries
    :param line_search_shrinking_factor: Factor from one step size to the next, between 0 and 1
    :param normalize_advantage: Whether to normalise the advantages, separately for each task
    :param n_adaptation_episodes: Episodes of a trial from which ``predict`` adapts, ``n_inner_episodes`` if None
    :param stats_window_size: Window size for the rollout logging
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_trmrl.MAMLPolicy`: ``net_arch``, ``activation_fn``, ``log_std_init``, ...
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ModuleNotFoundError: without sb3-contrib
    :raises TypeError: if an argument has the wrong type
    :raises ValueError: if an argument is out of range, or the environment does not play trials of sampled tasks
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MAMLPolicy, "MultiInputPolicy": MAMLPolicy}

    argument_checks = CHECKS
    passed_to_policy = ("observation_space", "action_space")

    inner_learning_rate: float
    n_tasks: int
    n_inner_episodes: int
    n_inner_steps: int
    target_kl: float
    cg_max_steps: int
    cg_damping: float
    line_search_max_iter: int
    line_search_shrinking_factor: float
    normalize_advantage: bool
    n_adaptation_episodes: int | None

    policy: MAMLPolicy  # type: ignore[assignment]
    #: Returns of the newest training episodes, ``"before"`` and ``"after"`` adaptation
    episode_returns: dict[str, deque[float]]
    _batches: list[TaskSamples]  # of the current update

    @names_policy_kwargs(MAMLPolicy)
    def __init__(
        self,
        policy: str | type[MAMLPolicy],
        env: GymEnv | str,
        inner_learning_rate: float = 0.1,
        n_tasks: int = 40,
        n_inner_episodes: int = 20,
        n_inner_steps: int = 1,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        target_kl: float = 0.01,
        cg_max_steps: int = 10,
        cg_damping: float = 1e-5,
        line_search_max_iter: int = 15,
        line_search_shrinking_factor: float = 0.8,
        normalize_advantage: bool = True,
        n_adaptation_episodes: int | None = None,
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
        own = {name: arguments.pop(name) for name in OWN_CHECKS}
        arguments |= {
            "policy": policy_class,  # SB3 does not allow a Dict for "MlpPolicy"
            "env": made,
            "learning_rate": 0.0,  # TRPO has none, and there is no critic
            "n_steps": 1,
            "ent_coef": 0.0,
            "vf_coef": 0.0,
            "max_grad_norm": 0.0,
            "use_sde": False,
            "sde_sample_freq": -1,
            "_init_setup_model": False,
        }
        super().__init__(**arguments)
        vars(self).update(own)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if find_spec("sb3_contrib") is None:
            raise ModuleNotFoundError(
                "MAMLTRPO needs sb3-contrib, which is part of the extra `zoo`: pip install 'sb3_trmrl[zoo]'"
            )
        self._check_attributes()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.rollout_buffer = None  # type: ignore[assignment]
        self.episode_returns = {name: deque(maxlen=self._stats_window_size) for name in ("before", "after")}
        self.policy = self.policy_class(self.observation_space, self.action_space, **self.policy_kwargs).to(self.device)  # type: ignore[assignment]

    def _check_vec_env(self) -> None:
        assert self.env is not None
        check_vec_env(self.env)

    def advantages(self, states: th.Tensor, rewards: np.ndarray, ends: np.ndarray) -> th.Tensor:
        """
        :param states: States of whole episodes of one task, one episode after the other, (N, S)
        :param rewards: Rewards of the actions in these states, (N,)
        :param ends: Whether an episode ends with this step, (N,)
        :return: Their advantages over the linear baseline that is fitted to them, (N,)
        """
        found = estimate_advantages(
            states.cpu().numpy(), rewards, ends, self.gamma, self.gae_lambda, self.normalize_advantage
        )
        return th.as_tensor(found, dtype=states.dtype, device=states.device)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer | None = None, n_rollout_steps: int = 0
    ) -> bool:
        """
        Play ``n_tasks`` tasks before and after adaptation.

        :param env: The training environment
        :param callback: Callback that will be called at each step (and at the beginning and end of the rollout)
        :param rollout_buffer: Not used
        :param n_rollout_steps: Not used
        :return: Whether training continues
        """
        self._restore_run(callback)
        self._at_rollout_boundary()
        self.policy.set_training_mode(False)
        self._batches = []
        callback.on_rollout_start()
        collector = TaskCollector(self, env, callback)
        try:
            with one_thread_beside_workers(env):
                while len(self._batches) * env.num_envs < self.n_tasks:
                    self._batches.append(collector.collect())
        except Stopped:
            return False
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def memory_state(self) -> dict[str, Any]:
        return {"episode_returns": self.episode_returns}

    def load_memory_state(self, state: dict[str, Any]) -> None:
        self.episode_returns = state["episode_returns"]

    def train(self) -> None:
        """Update the initial parameters with the data of the last rollout."""
        self.policy.set_training_mode(True)
        statistics = trpo_step(self, self._batches)
        self._batches = []
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for key, value in statistics.items():
            self.logger.record(f"train/{key}", value)
        if self.policy.is_gaussian:
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())

    def dump_logs(self, iteration: int = 0) -> None:
        for name, returns in self.episode_returns.items():
            if returns:
                self.logger.record(f"rollout/ep_rew_mean_{name}_adaptation", safe_mean(returns))
        super().dump_logs(iteration)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[Any, ...] | None]:
        """
        Get the action from an observation with the parameters that are adapted to the trial so far. A trial begins with
        the initial parameters. After each of the first ``n_adaptation_episodes`` episodes, which ``prev_done`` of the
        next observation shows, the inner steps are taken again, from the initial parameters on all episodes so far.
        In these episodes the actions are drawn from PyTorch's generator also if ``deterministic``: the policy gradient
        of deterministic actions is zero.

        :param observation: the input observation, of one environment or of any number B of them
        :param state: What the last call returned, None at the beginning of all trials
        :param episode_start: Mask of environments in which a trial begins, (B,), None for no environment
        :param deterministic: Whether or not to return deterministic actions in later episodes
        :return: the model's action and the state to pass to the next call, one
            :class:`~sb3_trmrl.maml_trpo.adaptation.Trial` for each environment
        :raises TypeError: if the observation is not a dictionary, or ``state`` has another type
        :raises ValueError: if an argument does not fit the policy or the number of observations, or is not finite
        :raises FloatingPointError: if the adapted parameters are not finite
        """
        self.policy.set_training_mode(False)
        check_bool("deterministic", deterministic)
        check_observation(observation, self.observation_space)
        tensors, is_vectorized = self.policy.obs_to_tensor(observation)
        with th.no_grad():
            token = self.policy.reader(tensors)  # type: ignore[arg-type]
        drawn, trials = Adaptation(self).act(token, state, episode_start, deterministic)
        actions = self.policy.env_actions(drawn)
        return actions if is_vectorized else actions[0], trials

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_batches", "episode_returns"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy"], []
