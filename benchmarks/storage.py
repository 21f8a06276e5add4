"""
Memory of the rollout buffer: its size in bytes compared with storing every window, and the peak memory of a process
that learns for one iteration.

    python benchmarks/storage.py
"""

import argparse
import multiprocessing
import resource
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from harness import save
from stable_baselines3.common.env_util import make_vec_env

from sb3_trmrl import TransformerPPO
from sb3_trmrl.memory.working_memory import map_tokens


class Images(gym.Env):
    """Random images of 36 x 36 x 3 in episodes of 100 steps; only their size matters."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation_space.sample(), 0.0, self.steps == 100, False, {}


def learn_once(env_id: str, n_envs: int, n_steps: int, policy_kwargs: dict[str, Any], results: Any) -> None:
    """Put the bytes of the tokens, the bytes of stored windows and the kilobytes of the process into a queue."""
    env = make_vec_env(Images if env_id == "images" else env_id, n_envs, seed=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings: dict[str, Any] = dict(n_steps=n_steps, batch_size=256, n_epochs=1, device="cpu")
    model = TransformerPPO("TrMRLPolicy", env, policy_kwargs=policy_kwargs, **settings).learn(n_envs * n_steps)
    sizes: list[int] = []
    map_tokens(lambda tokens: sizes.append(tokens.nbytes), model.rollout_buffer.tokens)
    per_token = sum(sizes) / ((model.rollout_buffer.n_carried + n_steps) * n_envs)
    windows = per_token * n_envs * n_steps * model.policy.context_length
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.put((sum(sizes), windows, peak - before))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import sb3_trmrl  # noqa: F401

    rows = []
    context = multiprocessing.get_context("spawn")
    for env_id, n_envs, n_steps, length in (
        ("HalfCheetahVel-v0", 20, 400, 5),
        ("HalfCheetahVel-v0", 20, 400, 50),
        ("images", 8, 128, 16),
    ):
        results = context.Queue()
        arguments = (env_id, n_envs, n_steps, dict(context_length=length), results)
        process = context.Process(target=learn_once, args=arguments)
        process.start()
        stored, windows, peak = results.get(timeout=600)
        process.join()
        row: dict[str, Any] = dict(env=env_id, n_envs=n_envs, n_steps=n_steps, context_length=length)
        row |= dict(
            tokens_mb=stored / 1e6, every_window_mb=windows / 1e6, ratio=windows / stored, process_mb=peak / 1e3
        )
        rows.append(row)
    save("storage", rows)


if __name__ == "__main__":
    main()
