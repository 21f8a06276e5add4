"""The progress bar, which counts the steps of all ranks."""

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from sb3_trmrl.common.callback_tree import walk_callbacks
from sb3_trmrl.distributed.collectives import world_size


def count_all_ranks(root: BaseCallback) -> None:
    """
    Make progress bars count the steps of all ranks.

    :param root: Callback of rank 0, which may contain progress bars
    """
    for bar in walk_callbacks(root) if world_size() > 1 else ():
        if isinstance(bar, ProgressBarCallback):
            bar._on_step = lambda bar=bar: _advance(bar)  # type: ignore[method-assign, misc]


def _advance(bar: ProgressBarCallback) -> bool:
    bar.pbar.update(bar.training_env.num_envs * world_size())
    return True
