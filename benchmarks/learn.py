"""
Speed of one whole iteration of ``learn()`` with the paper's settings for HalfCheetahVel: 20 tasks x 2 episodes x 200
steps are collected, then 10 epochs of updates follow.

Measures the time of environment, inference, buffer and update, and compares it with RecurrentPPO, with PPO, and with
the arithmetic limit: the time of all operations of the encoder's forward and backward passes at the machine's
matrix-product rate, plus the time of the physics.

    python benchmarks/learn.py
"""

import argparse
import statistics
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from harness import Stopwatch, encoder_operations, interleaved, matrix_product_rate, median_ratio, save, variant
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

import sb3_trmrl  # noqa: F401
from sb3_trmrl import TransformerPPO

N_ENVS, N_STEPS, N_EPOCHS, HORIZON = 20, 400, 10, 200
SIZES: dict[str, Any] = dict(d_model=128, n_layers=4, dim_feedforward=512)
TRANSFORMER: dict[str, Any] = dict(**SIZES, critic_input="token", log_std_init=-1.6)
LSTM: dict[str, Any] = dict(enable_critic_lstm=False, log_std_init=-1.6)
#: Class, policy, minibatch size, policy arguments
SIDES: dict[str, tuple[type[BaseAlgorithm], str, int, dict[str, Any]]] = {
    "TransformerPPO window, 250": (
        TransformerPPO,
        "TrMRLPolicy",
        250,
        dict(context_length=5, n_heads=16, **TRANSFORMER),
    ),
    "TransformerPPO full, 2000": (
        TransformerPPO,
        "TrMRLPolicy",
        2000,
        dict(memory="full", positional_encoding="none", n_heads=4, **TRANSFORMER),
    ),
    "PPO, 250": (PPO, "MultiInputPolicy", 250, {}),
    "RecurrentPPO actor LSTM, 2000": (RecurrentPPO, "MultiInputLstmPolicy", 2000, LSTM),
    "RecurrentPPO actor LSTM, 250": (RecurrentPPO, "MultiInputLstmPolicy", 250, LSTM),
    "RecurrentPPO both LSTM, 250": (RecurrentPPO, "MultiInputLstmPolicy", 250, {}),
}


def make_side(name: str, device: str) -> tuple[BaseAlgorithm, Stopwatch]:
    """Return the model of one of ``SIDES`` and the stopwatch that times its sections."""
    model_class, policy, batch_size, policy_kwargs = SIDES[name]
    env = make_vec_env("HalfCheetahVel-v0", N_ENVS, seed=0, env_kwargs=dict(trial_end="terminated"))
    settings: dict[str, Any] = dict(
        n_steps=N_STEPS, batch_size=batch_size, n_epochs=N_EPOCHS, gamma=0.9, gae_lambda=0.8
    )
    model = model_class(policy, env, policy_kwargs=policy_kwargs, learning_rate=1e-4, seed=0, device=device, **settings)  # type: ignore[call-arg]
    watch = Stopwatch(device)
    watch.wrap(model, "train", "update")
    watch.wrap(model.env, "step", "environment")
    for method in ("forward", "predict_values"):
        watch.wrap(model.policy, method, "inference")
    if isinstance(model, TransformerPPO):
        watch.wrap(model.policy, "remember", "inference")
    for method in ("add", "reset", "compute_returns_and_advantage"):
        watch.wrap(model.rollout_buffer, method, "buffer")
    return model, watch


def limit_in_seconds(name: str, rate: float, physics: float) -> float | None:
    """
    Return the arithmetic limit of an iteration in seconds, or None if the operations of this side are not counted.

    :param name: One of ``SIDES``
    :param rate: Operations per second
    :param physics: Seconds for one step of one environment
    """
    policy_kwargs = SIDES[name][3]
    if "d_model" not in policy_kwargs:
        return None
    memory = policy_kwargs.get("memory", "window")
    seen = (HORIZON + 1) / 2 if memory == "full" else policy_kwargs["context_length"]
    n_features = 17 + 6 + 2
    forward = encoder_operations(seen, n_features=n_features, memory=memory, **SIZES)
    n_transitions = N_ENVS * N_STEPS
    # A backward pass takes twice the operations of the forward pass
    return n_transitions * ((3 * N_EPOCHS + 1) * forward / rate + physics)


def physics_seconds() -> float:
    """Return the seconds for one simulation step of Gymnasium's HalfCheetah-v5."""
    env = gym.make("HalfCheetah-v5")
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (500, 6))
    start = time.perf_counter()
    for action in actions:
        env.unwrapped.do_simulation(action, env.unwrapped.frame_skip)  # type: ignore[attr-defined]
    return (time.perf_counter() - start) / len(actions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    parser.add_argument("--threads", type=int, default=th.get_num_threads())
    args = parser.parse_args()
    th.set_num_threads(args.threads)
    th.set_float32_matmul_precision(args.precision)
    sides = {name: make_side(name, args.device) for name in args.sides}

    def iterate(model: BaseAlgorithm, watch: Stopwatch) -> dict[str, float]:
        watch.seconds.clear()
        start = time.perf_counter()
        model.learn(N_ENVS * N_STEPS, reset_num_timesteps=False)
        total = time.perf_counter() - start
        rate = matrix_product_rate(args.device)
        return {**watch.seconds, "other": total - sum(watch.seconds.values()), "total": total, "rate": rate}

    runs = interleaved({name: lambda side=side: iterate(*side) for name, side in sides.items()}, args.iterations)  # type: ignore[misc]
    physics = physics_seconds()
    rate = statistics.median(run["rate"] for side in runs.values() for run in side)
    baseline = "RecurrentPPO actor LSTM, 250"
    rows = []
    for name, side in runs.items():
        total = [run["total"] for run in side]
        row: dict[str, Any] = {"side": name, "steps_per_s": N_ENVS * N_STEPS / statistics.median(total)}
        if baseline in runs:
            row["times_recurrent"] = median_ratio([run["total"] for run in runs[baseline]], total)
        limit = limit_in_seconds(name, rate, physics)
        if limit:
            row["share_of_limit"] = limit / statistics.median(total)
        for section in ("environment", "inference", "buffer", "update", "other"):
            row[f"{section}_s"] = statistics.median(run.get(section, 0.0) for run in side)
        rows.append(row)
    save(
        variant("learn", args.device, args.precision),
        rows,
        args.device,
        gflops=rate / 1e9,
        physics_us=physics * 1e6,
        iterations=args.iterations,
    )


if __name__ == "__main__":
    main()
