"""
Speed of collecting rollouts and latency of acting, with the paper's model sizes on HalfCheetahVel.

Measures environment steps per second for several numbers of environments, the same with environments in worker
processes, and the milliseconds of one call of ``predict`` for one environment.

    python benchmarks/collect.py
"""

import argparse
import statistics
import warnings
from typing import Any

import numpy as np
from harness import interleaved, matrix_product_rate, save, seconds_of
from learn import SIDES
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

NAMES = {
    "window": "TransformerPPO window, 250",
    "full": "TransformerPPO full, 2000",
    "recurrent": "RecurrentPPO actor LSTM, 250",
    "ppo": "PPO, 250",
}


def make_model(side: str, n_envs: int, n_steps: int, vec_env: type[VecEnv] = DummyVecEnv) -> BaseAlgorithm:
    """Return the model of one side of ``NAMES``, ready to collect rollouts of ``n_steps`` in each environment."""
    model_class, policy, _, policy_kwargs = SIDES[NAMES[side]]
    env_id, env_kwargs = "sb3_trmrl:HalfCheetahVel-v0", dict(trial_end="terminated")
    env = make_vec_env(env_id, n_envs, seed=0, env_kwargs=env_kwargs, vec_env_cls=vec_env)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the minibatch size, which is not used here
        model = model_class(policy, env, policy_kwargs=policy_kwargs, n_steps=n_steps, seed=0, device="cpu")  # type: ignore[call-arg]
    model._setup_learn(n_envs * n_steps)
    return model


def collecting(model: Any, all_threads: bool = False) -> Any:
    """
    Return a function that collects one rollout and returns its steps per second.

    :param all_threads: Whether PyTorch keeps all its threads while the workers of a SubprocVecEnv run
    """
    callback = CallbackList([])
    callback.init_callback(model)
    collect = model._collect if all_threads else model.collect_rollouts
    measure = seconds_of(lambda: collect(model.env, callback, model.rollout_buffer, model.n_steps))
    return lambda: model.n_steps * model.n_envs / measure()


def median_rates(sides: dict[str, Any], repeats: int) -> dict[str, float]:
    """Return the median steps per second of each side, after one warm-up measurement."""
    interleaved(sides, 1)
    rates = interleaved(sides, repeats)
    return {f"{side}_steps_per_s": statistics.median(measured) for side, measured in rates.items()}


def acting(model: Any, n_steps: int) -> Any:
    """Return a function that acts for ``n_steps`` in one environment and returns the milliseconds per step."""
    observation = model.env.reset()

    def act() -> None:
        state, start = None, np.ones(1, dtype=bool)
        for _ in range(n_steps):
            _, state = model.predict(observation, state=state, episode_start=start)
            start = np.zeros(1, dtype=bool)

    measure = seconds_of(act)
    return lambda: 1e3 * measure() / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--n-envs", type=int, nargs="+", default=[1, 8, 20, 40])
    args = parser.parse_args()
    rows = []
    for n_envs in args.n_envs:
        sides = {side: collecting(make_model(side, n_envs, 200)) for side in NAMES}
        rows.append({"n_envs": n_envs, **median_rates(sides, args.repeats)})
    sides = {
        "dummy": collecting(make_model("window", 8, 200)),
        "subproc": collecting(make_model("window", 8, 200, SubprocVecEnv)),
        "subproc_all_threads": collecting(make_model("window", 8, 200, SubprocVecEnv), all_threads=True),
    }
    rows.append({"processes": "8 environments, window", **median_rates(sides, args.repeats)})
    latencies = interleaved({side: acting(make_model(side, 1, 200), 200) for side in NAMES}, args.repeats)
    rows.append({"predict": "1 environment", **{f"{side}_ms": statistics.median(ms) for side, ms in latencies.items()}})
    save("collect", rows, gflops=matrix_product_rate() / 1e9, repeats=args.repeats)


if __name__ == "__main__":
    main()
