"""
Gradient steps of TransformerSAC on HalfCheetahVel, with the settings in hyperparams/ and other memories: milliseconds
of one step with 256 transitions, of which "draw_ms" for the minibatch, on one thread.

The replay buffer has 12,000 transitions of random actions: 30 trials of 400 steps.

    python benchmarks/replay.py
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch as th
import yaml
from harness import interleaved, median_ratio, save
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl import TransformerSAC
from sb3_trmrl.zoo.hyperparams_files import hyperparams_folder

ENV_ID, N_STEPS, BATCH_SIZE = "HalfCheetahVel-v0", 12_000, 256
FULL = dict(memory="full", context_length=None)
DEFAULT = dict(d_model=64, n_layers=2, n_heads=4, dim_feedforward=256)
PAPER = dict(d_model=128, n_layers=4, n_heads=4, dim_feedforward=512)
#: What is changed in the policy and in the replay buffer. The first is the entry
SIDES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "window of 5, width 32, 1 layer": ({}, {}),
    "window of 40": (dict(context_length=40), {}),
    "full": (FULL, {}),
    "full, sequence_length 64": (FULL, dict(sequence_length=64)),
    "full, burn_in 64": (FULL, dict(burn_in=64)),
    "window of 5, one transformer": (dict(share_features_extractor=True), {}),
    "window of 5, width 64, 2 layers": (DEFAULT, {}),
    "full, width 64, 2 layers": ({**FULL, **DEFAULT}, {}),
    "window of 5, width 128, 4 layers": (PAPER, {}),
}


def make_model(name: str) -> TransformerSAC:
    """Return the model of one of ``SIDES``, whose replay buffer is filled."""
    changes, buffer_kwargs = SIDES[name]
    entry = yaml.safe_load((hyperparams_folder() / "trmrl_sac.yml").read_text())[ENV_ID]
    env = VecNormalize(make_vec_env(ENV_ID, entry["n_envs"], seed=0), norm_reward=False)
    model = TransformerSAC(
        entry["policy"],
        env,
        learning_starts=N_STEPS + 1,
        gamma=entry["gamma"],
        policy_kwargs={**entry["policy_kwargs"], **changes},
        replay_buffer_kwargs=buffer_kwargs,
        seed=0,
        device="cpu",
    )
    return model.learn(N_STEPS, log_interval=None)


def steps(model: TransformerSAC, n: int) -> tuple[float, float]:
    """Return the milliseconds of a gradient step, and of drawing its minibatch."""
    begin = time.perf_counter()
    model.train(n, BATCH_SIZE)
    middle = time.perf_counter()
    for _ in range(n):
        model.replay_buffer.sample(BATCH_SIZE, model.get_vec_normalize_env())
    return 1e3 * (middle - begin) / n, 1e3 * (time.perf_counter() - middle) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    th.set_num_threads(1)
    models = {name: make_model(name) for name in SIDES}
    sides: dict[str, Callable[[], Any]] = {name: lambda m=model: steps(m, 5) for name, model in models.items()}  # type: ignore[misc]
    taken = interleaved(sides, args.repeats + 1)
    step = {name: [each[0] for each in runs[1:]] for name, runs in taken.items()}
    first = next(iter(SIDES))
    rows = [
        {
            "memory": name,
            "times_first": median_ratio(step[name], step[first]),
            "gradient_step_ms": statistics.median(step[name]),
            "draw_ms": statistics.median(each[1] for each in taken[name][1:]),
        }
        for name in SIDES
    ]
    save("replay", rows, repeats=args.repeats)


if __name__ == "__main__":
    main()
