"""
Steps per second of ``learn()`` on standard environments with default settings and each kind of memory, for users who
replace PPO or RecurrentPPO by TransformerPPO.

    python benchmarks/stock.py
"""

import argparse
import statistics
import time

from harness import interleaved, matrix_product_rate, median_ratio, save
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO

from sb3_trmrl import TransformerPPO

N_STEPS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        models = {
            "window": TransformerPPO(
                "TrMRLPolicy", env_id, n_steps=N_STEPS, seed=0, device="cpu", policy_kwargs=dict(memory="window")
            ),
            # The stored figures were measured without positions
            "full": TransformerPPO(
                "TrMRLPolicy",
                env_id,
                n_steps=N_STEPS,
                seed=0,
                device="cpu",
                policy_kwargs=dict(memory="full", positional_encoding="none"),
            ),
            # Each algorithm has its default minibatch size: 128 for RecurrentPPO, 64 for TransformerPPO and PPO
            "recurrent": RecurrentPPO("MlpLstmPolicy", env_id, n_steps=N_STEPS, seed=0, device="cpu"),
            "ppo": PPO("MlpPolicy", env_id, n_steps=N_STEPS, seed=0, device="cpu"),
        }

        def learn(model: TransformerPPO | RecurrentPPO | PPO) -> float:
            start = time.perf_counter()
            model.learn(N_STEPS, reset_num_timesteps=False)
            return time.perf_counter() - start

        seconds = interleaved({name: lambda m=model: learn(m) for name, model in models.items()}, args.iterations)  # type: ignore[misc]
        rows += [
            {
                "env": env_id,
                "side": name,
                "steps_per_s": N_STEPS / statistics.median(taken),
                "times_recurrent": median_ratio(seconds["recurrent"], taken),
            }
            for name, taken in seconds.items()
        ]
    save("stock", rows, gflops=matrix_product_rate() / 1e9, iterations=args.iterations)


if __name__ == "__main__":
    main()
