"""What all algorithms of this package have in common beside SB3's base classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_trmrl.algorithms.arguments import (
    LEARN_CHECKS,
    Check,
    check_arguments,
    check_env,
    check_env_of,
    check_policy,
)
from sb3_trmrl.algorithms.files import ZipFiles
from sb3_trmrl.algorithms.resumable import Resumable
from sb3_trmrl.common.callback_tree import callbacks_of, environments_of
from sb3_trmrl.common.checks import check_keywords
from sb3_trmrl.common.workers import watched_workers

SelfAlgorithm = TypeVar("SelfAlgorithm", bound="Algorithm")


class Algorithm(Resumable, ZipFiles):
    """Checks of arguments and environments, and ``learn``. An algorithm has it as a base class, before that of SB3."""

    #: Checks of the arguments of the constructor, which are also the names of the attributes
    argument_checks: ClassVar[Mapping[str, Check]]
    #: Arguments of the policy that the algorithm passes, so that they cannot be in ``policy_kwargs``
    passed_to_policy: ClassVar[tuple[str, ...]] = ("observation_space", "action_space", "lr_schedule")

    def _policy_and_env(self, policy: Any, env: Any, verbose: int) -> tuple[type[Any], Any]:
        """Check the constructor's ``policy`` and ``env``. Return class and environment, None while a zip is loaded."""
        env = maybe_make_env(env, verbose)
        policy_class = check_policy(policy, self.policy_aliases)
        if env is not None:
            check_env("env", env, "a Gymnasium environment, a VecEnv or a registered id")
        return policy_class, env

    def _check_attributes(self) -> None:
        """Check the arguments again at the beginning of ``_setup_model``, as ``load`` bypasses the constructor."""
        check_env_of(self)
        check_arguments(vars(self), self.argument_checks)
        check_keywords("policy_kwargs", self.policy_kwargs, self.policy_class, passed=self.passed_to_policy)
        if self.env is not None:
            self._check_vec_env()
        self.seed = None if self.seed is None else int(self.seed)  # Python's generator does not accept NumPy integers

    def _check_vec_env(self) -> None:
        """Raise an error if the algorithm cannot learn from ``self.env``."""

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        check_env("env", env)
        before = {name: vars(self).get(name) for name in ("env", "n_envs", "_last_obs", "_vec_normalize_env")}
        super().set_env(env, force_reset)
        try:
            self._check_vec_env()
        except (TypeError, ValueError):
            vars(self).update(before)
            raise

    def learn(
        self: SelfAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAlgorithm:
        """
        Learn as in SB3. After :meth:`resume`, pass the arguments of the interrupted call to continue it.

        :param total_timesteps: Total number of steps over all environments. Rollouts are always completed, which adds
            at most one rollout
        :param callback: Callback or list of callbacks, called at every step; or a function of local and global
            variables, which ends training by returning False. The next call then begins new episodes
        :param log_interval: Number of rollouts between two entries of the log, None for no entries
        :param tb_log_name: Name of the run in TensorBoard's folder, by default that of the class
        :param reset_num_timesteps: Whether to count steps from 0 again. If not, ``total_timesteps`` are added to the
            steps that the model has already taken
        :param progress_bar: Whether to show a progress bar, which needs tqdm and rich
        :return: The model
        :raises TypeError: if an argument has the wrong type
        :raises ValueError: if a number is out of range, an observation or a reward is not finite, or the environment
            does not suit the algorithm
        :raises FloatingPointError: if a loss or a gradient is not finite
        :raises RuntimeError: if a worker process of an environment has ended
        """
        check_arguments(locals(), LEARN_CHECKS)
        with watched_workers(self._environments(callback)):
            try:
                return super().learn(
                    int(total_timesteps), callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
                )
            except BaseException:  # also Ctrl-C
                self._last_obs = None  # the environment may be a step ahead: the next call begins new episodes
                raise

    def _environments(self, callback: MaybeCallback) -> list[VecEnv]:
        """Return the training environment and the environments of callbacks."""
        if self.env is None:
            raise ValueError("`env` is missing: pass it to `load`, or call `set_env` before `learn`")
        found = given_callbacks(callback)
        return [self.env, *(env for each in found for env in environments_of(each).values())]


def given_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """Return the callbacks that ``learn`` got, and those inside them. Functions are left out."""
    roots = callback if isinstance(callback, list) else [callback]
    return [each for root in roots if isinstance(root, BaseCallback) for each in callbacks_of(root).values()]
