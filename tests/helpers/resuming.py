"""Runs to be interrupted and resumed, and what is compared of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_trmrl import TransformerPPO


class LogRecorder(KVWriter):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        # Times are those of the clock, and iterations are counted by call of learn()
        kept = {key: value for key, value in key_values.items() if not key.startswith("time/")}
        self.rows.append((step, kept))

    def close(self) -> None:
        """Nothing is open"""


def record_logs(model: TransformerPPO) -> LogRecorder:
    """
    :param model: Model
    :return: What keeps its logs from now on
    """
    recorder = LogRecorder()
    model.set_logger(Logger(None, [recorder]))
    return recorder


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """
    :param first: Numbers, arrays, tensors, and containers of those
    :param second: The same to the last bit
    :param where: Path to them, for the message
    """
    if isinstance(first, dict):
        assert first.keys() == second.keys(), (where, first.keys() ^ second.keys())
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), (where, len(first), len(second))
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(first, th.Tensor):
        assert th.equal(first, second), where
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second, err_msg=where)
    else:
        # NaN is what SB3 logs without a value
        assert first == second or (first != first and second != second), (where, first, second)


def everything_learned(model: TransformerPPO) -> dict[str, Any]:
    """
    :param model: Model
    :return: Its parameters and those of the optimiser, its counters, statistics of rewards and observations
    """
    normalizer = model.get_vec_normalize_env()
    infos = [{key: value for key, value in info.items() if key != "t"} for info in model.ep_info_buffer or []]
    return {
        "parameters": {name: value.clone() for name, value in model.policy.state_dict().items()},
        "optimizer": model.policy.optimizer.state_dict(),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "episodes": infos,
        "last_obs": model._last_obs,
        "returns": None if normalizer is None else normalizer.returns,
        "reward_variance": None if normalizer is None else normalizer.ret_rms.var,
        "generator": th.get_rng_state(),
    }
