"""
Acting with each algorithm on HalfCheetahVel, with the settings in hyperparams/: milliseconds of one call of ``predict``
for one environment, bytes of the state that it carries, and parameters that it reads.

All agents get the same observations: an episode of random actions, and the first observation of the next episode. The
agents are not trained, which does not change the times.

    python benchmarks/acting.py
"""

import argparse
import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th
import yaml
from harness import interleaved, median_ratio, save
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sb3_trmrl import MAMLTRPO, PEARL, TransformerPPO, TransformerSAC, VariBAD
from sb3_trmrl.zoo.hyperparams_files import hyperparams_folder

ENV_ID, N_STEPS = "HalfCheetahVel-v0", 200
#: Algorithm, file of hyperparameters, and what experiments/half_cheetah_vel.yml changes
SIDES: dict[str, tuple[type[BaseAlgorithm], str, dict[str, Any]]] = {
    "TrMRL, full memory": (TransformerPPO, "trmrl", {}),
    "TrMRL, window of 5": (TransformerPPO, "trmrl", dict(memory="window", context_length=5)),
    "TransformerSAC, window of 5": (TransformerSAC, "trmrl_sac", {}),
    "RL^2": (RecurrentPPO, "ppo_lstm", {}),
    "VariBAD": (VariBAD, "varibad", {}),
    "PEARL": (PEARL, "pearl", {}),
    "MAML-TRPO": (MAMLTRPO, "maml_trpo", {}),
    "PPO, reactive": (PPO, "ppo", {}),
}
#: Keys of an entry that only the zoo reads, and learning rates, which it converts and which have no effect on acting
ZOO_KEYS = {"n_timesteps", "normalize", "env_kwargs", "n_envs", "learning_rate", "vf_learning_rate"}


class Reads(TorchDispatchMode):
    """Collects the storages of all tensors that operations read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, th.Tensor)]
        self.storages |= {each.untyped_storage().data_ptr() for each in tensors}
        return func(*args, **(kwargs or {}))


def make_model(name: str) -> BaseAlgorithm:
    """Return the untrained model of one of ``SIDES``."""
    model_class, algo, changes = SIDES[name]
    entry = yaml.safe_load((hyperparams_folder() / f"{algo}.yml").read_text())[ENV_ID]
    settings = {key: value for key, value in entry.items() if key not in ZOO_KEYS}
    settings["policy_kwargs"] = {**entry.get("policy_kwargs", {}), **changes}
    env = make_vec_env(ENV_ID, entry["n_envs"], seed=0, env_kwargs=entry.get("env_kwargs"))
    return model_class(env=env, seed=0, device="cpu", **settings)


def observations() -> list[dict[str, np.ndarray]]:
    """Return the observations of an episode, and the first one of the next episode."""
    env = make_vec_env(ENV_ID, 1, seed=0, env_kwargs=dict(trial_end="terminated"))
    env.action_space.seed(0)
    found: list[Any] = [env.reset()]
    for _ in range(N_STEPS):
        found.append(env.step(env.action_space.sample()[None])[0])
    assert [bool(each["prev_done"].any()) for each in found] == [False] * N_STEPS + [True]
    return found


def acting(model: BaseAlgorithm, seen: list[dict[str, np.ndarray]]) -> tuple[list[float], list[Any]]:
    """Return the milliseconds of each call, and the states after the first and the last step of the first episode."""
    state, start, taken, states = None, np.ones(1, dtype=bool), [], []
    for step, observation in enumerate(seen):
        begin = time.perf_counter()
        _, state = model.predict(observation, state=state, episode_start=start, deterministic=True)
        taken.append(1e3 * (time.perf_counter() - begin))
        start = np.zeros(1, dtype=bool)
        if step in (0, N_STEPS - 1):
            states.append(n_bytes(state))
    return taken, states


def n_bytes(state: Any) -> int:
    """Return the bytes of all arrays and numbers in a state."""
    if isinstance(state, (np.ndarray, th.Tensor)):
        return state.nbytes
    if dataclasses.is_dataclass(state):
        return sum(n_bytes(getattr(state, each.name)) for each in dataclasses.fields(state))
    if isinstance(state, Mapping):
        return sum(map(n_bytes, state.values()))
    if isinstance(state, (tuple, list)):
        return sum(map(n_bytes, state))
    return 8 if isinstance(state, (int, float)) else 0


def n_parameters_read(model: BaseAlgorithm, seen: list[dict[str, np.ndarray]]) -> int:
    """Return the number of parameters that are read in two steps."""
    with Reads() as reads:
        acting(model, seen[:2])
    parameters = {each.untyped_storage().data_ptr(): each.numel() for each in model.policy.parameters()}
    return sum(size for storage, size in parameters.items() if storage in reads.storages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    th.set_num_threads(1)  # fastest for such small networks
    seen = observations()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the minibatch size, which is not used here
        models = {name: make_model(name) for name in SIDES}
    read = {name: n_parameters_read(model, seen) for name, model in models.items()}
    states = {name: acting(model, seen)[1] for name, model in models.items()}
    sides: dict[str, Callable[[], Any]] = {name: lambda m=model: acting(m, seen)[0] for name, model in models.items()}  # type: ignore[misc]
    taken = interleaved(sides, args.repeats)
    step = {name: [statistics.median(run[1:N_STEPS]) for run in runs] for name, runs in taken.items()}
    rows = [
        {
            "agent": name,
            "predict_ms": statistics.median(step[name]),
            "times_ppo": median_ratio(step[name], step["PPO, reactive"]),
            "next_episode_ms": statistics.median(run[N_STEPS] for run in taken[name]),
            "bytes_1": states[name][0],
            "bytes_200": states[name][1],
            "parameters_read": read[name],
            "parameters": sum(each.numel() for each in model.policy.parameters()),
        }
        for name, model in models.items()
    ]
    save("acting", rows, repeats=args.repeats)


if __name__ == "__main__":
    main()
