"""The beginning of ``learn`` on several ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_trmrl.algorithms.algorithm import given_callbacks
from sb3_trmrl.distributed import start
from sb3_trmrl.distributed.collectives import broadcast, is_main, join, share, world_size
from sb3_trmrl.distributed.statistics import SharedStatistics

if TYPE_CHECKING:
    from sb3_trmrl.transformer_ppo.transformer_ppo import TransformerPPO

#: Attributes that must be the same on all ranks
_EQUAL = ("n_envs", "n_steps", "batch_size", "n_epochs", "target_kl", "normalize_advantage")


def join_ranks(model: TransformerPPO, callback: MaybeCallback, total_timesteps: int) -> MaybeCallback:
    """
    Make a model the same on all ranks.

    :param model: Model that begins to learn
    :param callback: Callbacks given to ``learn``
    :param total_timesteps: Number of steps given to ``learn``
    :return: The callbacks that run on this rank
    :raises ValueError: if ranks have different arguments, or ``batch_size`` cannot be divided among them
    """
    join()
    assert model.env is not None
    share("batch_size", model.batch_size)  # load() skips the check in the constructor
    model._shared_statistics = SharedStatistics(model.env)
    if world_size() == 1:
        return callback
    own: dict[str, Any] = {name: getattr(model, name) for name in _EQUAL}
    own |= {"total_timesteps": total_timesteps, "learning_rate": model.lr_schedule(1.0)}
    if model.start_from is not None:  # each rank has read a checkpoint
        own["num_timesteps"] = model.num_timesteps
    start.check_equal(own)
    start.copy_from_main(model.policy, model.policy.optimizer)
    # They differ if a callback has ended training in the middle of a rollout
    model.num_timesteps, model._n_updates = broadcast((model.num_timesteps, model._n_updates))
    if not model._has_own_numbers:
        start.seed_this_rank(model.seed, model.env)
        model._has_own_numbers = True
    if is_main():
        return callback
    model.verbose = 0
    model.set_logger(Logger(folder=None, output_formats=[]))
    return [each for each in given_callbacks(callback) if getattr(each, "on_every_rank", False)]
