"""
Steps per second with random actions: MetaWorld's own environments compared with those of this package, which return
identical observations and rewards.

    OMP_NUM_THREADS=1 python benchmarks/metaworld_steps.py
"""

import argparse
import pickle
import statistics
from typing import Any

import gymnasium as gym
import metaworld
import numpy as np
from harness import interleaved, median_ratio, save, seconds_of
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

import sb3_trmrl  # noqa: F401 (registers the environments)

N_STEPS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    actions = np.random.default_rng(0).uniform(-1, 1, (N_STEPS, 4)).astype(np.float32)

    def play(env: Any) -> None:
        env.reset()
        for action in actions:
            env.step(action)

    rows = []
    for name in ("reach-v3", "push-v3", "pick-place-v3", "door-open-v3"):
        ours: Any = gym.make("MetaWorldML1-v0", task_name=name, previous_transition=False).unwrapped
        task = ours.get_task()
        theirs = ALL_V3_ENVIRONMENTS[name]()
        data = {"rand_vec": np.array(task.rand_vec), "env_cls": type(theirs), "partially_observable": True}
        theirs.set_task(metaworld.Task(name, pickle.dumps(data)))
        sides = {"ours": seconds_of(lambda env=ours: play(env)), "MetaWorld": seconds_of(lambda env=theirs: play(env))}  # type: ignore[misc]
        seconds = interleaved(sides, args.repeats)
        rows.append(
            {
                "class": name,
                **{f"{side} steps_per_s": N_STEPS / statistics.median(taken) for side, taken in seconds.items()},
                "ratio": median_ratio(seconds["MetaWorld"], seconds["ours"]),
            }
        )
    save("metaworld_steps", rows, repeats=args.repeats)


if __name__ == "__main__":
    main()
