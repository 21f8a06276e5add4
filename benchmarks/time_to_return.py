"""
Wall time to a return of -60 on HalfCheetahVel.

The return is the mean over both episodes of a trial and over 20 validation tasks, with deterministic actions. It is
evaluated every 20,000 steps; evaluations do not count as time. All sides use the environment, the normalisation and the
PPO arguments of hyperparams/trmrl.yml, except the full memory, whose minibatches are whole episodes.

    python benchmarks/time_to_return.py --seeds 0
"""

import argparse
import itertools
import pathlib
import time
from typing import Any

import yaml
from harness import matrix_product_rate, save
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

from sb3_trmrl import TransformerPPO
from sb3_trmrl.trials.held_out import share_tasks
from sb3_trmrl.zoo.schedules import schedule_from_string

ENV = "HalfCheetahVel-v0"
SETTINGS = yaml.safe_load((pathlib.Path(__file__).parent.parent / "hyperparams" / "trmrl.yml").read_text())[ENV]
PPO_ARGUMENTS = ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "clip_range")
#: Policy arguments of each kind of memory; the others are those of the yml file
MEMORIES: dict[str, dict[str, Any]] = {
    "window": dict(context_length=5),
    "full": dict(memory="full", positional_encoding="none"),
}
#: PPO arguments that differ from the yml file, by side
OWN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "full": dict(batch_size=800, learning_rate=schedule_from_string("lin_3e-4")),
}


def normalized(env: VecEnv, training: bool = True) -> VecNormalize:
    """Standardise the states and rewards of the tokens, as rl-zoo3 does with the yml file."""
    return VecNormalize(env, training=training, norm_reward=False, norm_obs_keys=["observation", "prev_reward"])


def make_model(side: str, seed: int) -> BaseAlgorithm:
    """Return the model of the side ``"window"``, ``"full"`` or ``"recurrent"``, with normalised environments."""
    env = make_vec_env(ENV, SETTINGS["n_envs"], seed=seed, env_kwargs=SETTINGS["env_kwargs"])
    env = normalized(env)
    arguments: dict[str, Any] = {name: SETTINGS[name] for name in PPO_ARGUMENTS}
    arguments |= dict(learning_rate=schedule_from_string(SETTINGS["learning_rate"]), seed=seed, device="cpu")
    arguments |= OWN_ARGUMENTS.get(side, {})
    if side == "recurrent":
        policy_kwargs = dict(enable_critic_lstm=False, log_std_init=SETTINGS["policy_kwargs"]["log_std_init"])
        return RecurrentPPO("MultiInputLstmPolicy", env, policy_kwargs=policy_kwargs, **arguments)
    common = {key: value for key, value in SETTINGS["policy_kwargs"].items() if key not in ("memory", "context_length")}
    policy_kwargs = {**common, **MEMORIES[side]}
    arguments["vf_learning_rate"] = SETTINGS["vf_learning_rate"]
    return TransformerPPO("TrMRLPolicy", env, policy_kwargs=policy_kwargs, **arguments)


class Clock(BaseCallback):
    """
    Evaluates the return at regular intervals with the clock stopped, and ends training when it reaches a threshold.

    :param threshold: Return per episode to reach
    :param every: Number of steps between evaluations
    :param limit: Seconds of training after which to stop
    :param env: Evaluation environment
    """

    def __init__(self, threshold: float, every: int, limit: float, env: VecNormalize) -> None:
        super().__init__()
        self.threshold, self.every, self.limit, self.env = threshold, every, limit, env
        self.seconds, self.best, self.next = 0.0, -float("inf"), every

    def _on_training_start(self) -> None:
        self.since = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps < self.next:
            return True
        self.seconds += time.perf_counter() - self.since
        self.next += self.every
        sync_envs_normalization(self.training_env, self.env)
        mean, _ = evaluate_policy(self.model, self.env, n_eval_episodes=20)
        self.best = max(self.best, float(mean) / 2)  # a trial is two episodes
        print(f"  {self.num_timesteps} steps, {self.seconds:.0f} s: {float(mean) / 2:.1f}", flush=True)
        self.since = time.perf_counter()
        return self.best < self.threshold and self.seconds < self.limit


def time_to(threshold: float, side: str, seed: int, n_steps: int, every: int, limit: float) -> dict[str, Any]:
    """Train one side until it reaches the threshold, and return its steps, seconds and best return."""
    print(f"{side}, seed {seed}", flush=True)
    model = make_model(side, seed)
    held_out = make_vec_env(ENV, 20, seed=seed, env_kwargs={**SETTINGS["env_kwargs"], "split": "validation"})
    clock = Clock(threshold, every, limit, normalized(share_tasks(held_out), training=False))
    model.learn(n_steps, callback=clock)
    reached = clock.best >= threshold
    return dict(
        side=side, seed=seed, reached=reached, steps=model.num_timesteps, seconds=clock.seconds, best=clock.best
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threshold", type=float, default=-60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sides", nargs="+", default=["window", "full", "recurrent"])
    parser.add_argument("--n-steps", type=int, default=750_000)
    parser.add_argument("--every", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=900.0, help="stop after this much training")
    parser.add_argument("--name", default="time_to_return", help="name of the JSON file")
    args = parser.parse_args()
    rows = []
    for seed, side in itertools.product(args.seeds, args.sides):
        rows.append(time_to(args.threshold, side, seed, args.n_steps, args.every, args.seconds))
        save(args.name, rows, gflops=matrix_product_rate() / 1e9)


if __name__ == "__main__":
    main()
