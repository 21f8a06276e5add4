"""
Steps per second of whole iterations of ``learn()``: one process with one or several threads, and as many processes
(ranks) with one thread each that train one model together.

    python benchmarks/ranks.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch as th
from harness import interleaved, median_ratio, save
from stable_baselines3.common.env_util import make_vec_env

import sb3_trmrl  # noqa: F401
from sb3_trmrl import TransformerPPO
from sb3_trmrl.distributed.collectives import is_main, share, world_size

#: Environment, number of environments in all, arguments of the algorithm, and of the policy
SETTINGS: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "paper, window of 5": (
        "HalfCheetahVel-v0",
        20,
        dict(n_steps=400, batch_size=250, n_epochs=10),
        dict(context_length=5, d_model=128, n_layers=4, n_heads=16, dim_feedforward=512, critic_input="token"),
    ),
    "paper, full memory": (
        "HalfCheetahVel-v0",
        20,
        dict(n_steps=400, batch_size=2000, n_epochs=10),
        dict(memory="full", d_model=128, n_layers=4, n_heads=4, dim_feedforward=512, critic_input="token"),
    ),
    "small, window of 5": (
        "HalfCheetahVel-v0",
        10,
        dict(n_steps=400, batch_size=400, n_epochs=10),
        dict(context_length=5, critic_input="token"),
    ),
    "default entry, full memory": (
        "HalfCheetahVel-v0",
        16,
        dict(n_steps=256, batch_size=512, n_epochs=10),
        dict(memory="full", reset_memory_on="trial", share_features_extractor=True),
    ),
    "default algorithm arguments, window of 16": ("CartPole-v1", 2, dict(n_steps=1024), dict(context_length=16)),
}


def measure_here(setting: str, iterations: int) -> None:
    """Print the steps per second of this process, or of all ranks together."""
    env_id, n_envs, arguments, policy_kwargs = SETTINGS[setting]
    env = make_vec_env(env_id, share("n_envs", n_envs), seed=0)
    model = TransformerPPO("TrMRLPolicy", env, seed=0, device="cpu", policy_kwargs=policy_kwargs, **arguments)
    n_steps = n_envs * model.n_steps
    model.learn(n_steps)
    start = time.perf_counter()
    model.learn(iterations * n_steps, reset_num_timesteps=False)
    if is_main():
        print(json.dumps(iterations * n_steps / (time.perf_counter() - start)))


def measure(setting: str, n_ranks: int, n_threads: int, iterations: int) -> float:
    """Return the steps per second of a run in new processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}"] if n_ranks > 1 else []
    command = [sys.executable, *launcher, __file__, "--measure", setting, "--iterations", str(iterations)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(result.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=th.get_num_threads())
    parser.add_argument("--measure", choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure_here(args.measure, args.iterations)
        return
    assert world_size() == 1, "this script starts the ranks itself"
    sides = {
        "1 process, 1 thread": (1, 1),
        f"1 process, {args.cores} threads": (1, args.cores),
        f"{args.cores} ranks, 1 thread each": (args.cores, 1),
    }
    rows = []
    for setting in SETTINGS:
        speeds = interleaved(
            {name: lambda s=setting, n=numbers: measure(s, *n, args.iterations) for name, numbers in sides.items()},  # type: ignore[misc]
            args.repeats,
        )
        one, threads, _ = speeds.values()
        rows += [
            {
                "setting": setting,
                "side": name,
                "steps_per_s": statistics.median(found),
                "times_one_thread": median_ratio(found, one),
                "times_all_threads": median_ratio(found, threads),
            }
            for name, found in speeds.items()
        ]
    save("ranks", rows, iterations=args.iterations, repeats=args.repeats)


if __name__ == "__main__":
    main()
