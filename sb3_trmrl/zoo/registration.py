"""The only place that changes rl-zoo3. It has no plug-in mechanism, so its tables and two names are replaced here."""

import signal
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.train
import rl_zoo3.utils
from rl_zoo3.callbacks import TrialEvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_trmrl.distributed.collectives import rank
from sb3_trmrl.envs.batched_vec_env import batched_if_possible
from sb3_trmrl.evaluation.callbacks import MaskedEvalCallback
from sb3_trmrl.maml_trpo import MAMLTRPO
from sb3_trmrl.pearl import PEARL
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.transformer_sac import TransformerSAC
from sb3_trmrl.trials.agent import with_action_masks
from sb3_trmrl.varibad import VariBAD
from sb3_trmrl.zoo.baselines import PPO, RecurrentPPO
from sb3_trmrl.zoo.defaults import ALGO, ALGORITHMS
from sb3_trmrl.zoo.experiment import TrMRLExperimentManager
from sb3_trmrl.zoo.named_values import StoreValues
from sb3_trmrl.zoo.runs import search_current_folder

#: Makes the environment of `enjoy` and `record_video`
_create_test_env = rl_zoo3.utils.create_test_env


class _MaskedTrialEvalCallback(MaskedEvalCallback, TrialEvalCallback):
    """Evaluation while hyperparameters are optimized, with action masks"""


def _create_masked_test_env(*args: Any, **kwargs: Any) -> VecEnv:
    """Let the scripts load an agent that gets the action masks of this environment."""
    env = _create_test_env(*args, **kwargs)
    rl_zoo3.ALGOS[ALGO] = SimpleNamespace(  # type: ignore[assignment]
        load=lambda *args, **kwargs: with_action_masks(TransformerPPO.load(*args, **kwargs), env)
    )
    return env


class _InWorker:
    """
    Makes an environment in a process of its own, which leaves Ctrl-C to the training process. The terminal sends it to
    both, and the training process finishes its rollout first.
    """

    def __init__(self, env_id: Any) -> None:
        self.env_id = env_id

    def __call__(self, **kwargs: Any) -> gym.Env:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        made: gym.Env = gym.make(self.env_id, **kwargs) if isinstance(self.env_id, str) else self.env_id(**kwargs)
        return made


def _make_vec_env_of_rank(env_id: Any, n_envs: int = 1, vec_env_cls: Any = None, **kwargs: Any) -> VecEnv:
    """Step copies of a small problem together; number environments across ranks, so that monitor files differ."""
    chosen: Any = batched_if_possible if vec_env_cls in (None, DummyVecEnv) else vec_env_cls
    if isinstance(chosen, type) and issubclass(chosen, SubprocVecEnv):
        env_id = _InWorker(env_id)
    return make_vec_env(env_id, n_envs, start_index=rank() * n_envs, vec_env_cls=chosen, **kwargs)


def register(**manager_kwargs: Any) -> None:
    """Register the package's algorithms for ``--algo``, with further arguments of :class:`TrMRLExperimentManager`."""
    search_current_folder()  # files of runs may name classes of the user
    rl_zoo3.ALGOS.update(zip(ALGORITHMS, (TransformerPPO, TransformerSAC, PEARL, VariBAD, MAMLTRPO), strict=True))
    rl_zoo3.ALGOS.update(ppo=PPO, ppo_lstm=RecurrentPPO)

    def make_manager(*args: Any, **kwargs: Any) -> TrMRLExperimentManager:
        return TrMRLExperimentManager(*args, **kwargs, **manager_kwargs)

    # The scripts look these names up in their modules when they are called; record_video imports from `utils`
    rl_zoo3.train.ExperimentManager = make_manager  # type: ignore[assignment, attr-defined]
    for module in (rl_zoo3.train, rl_zoo3.enjoy, rl_zoo3.utils):
        module.StoreDict = StoreValues  # type: ignore[attr-defined]
    for module in (rl_zoo3.enjoy, rl_zoo3.utils):
        module.create_test_env = _create_masked_test_env  # type: ignore[attr-defined]
    rl_zoo3.exp_manager.make_vec_env = _make_vec_env_of_rank  # type: ignore[assignment, attr-defined]
    rl_zoo3.exp_manager.TrialEvalCallback = _MaskedTrialEvalCallback  # type: ignore[attr-defined]
