"""
Copies of the small problems in a BatchedVecEnv compared with a DummyVecEnv: steps per second with random actions that
were drawn beforehand, and the seconds of an iteration of TransformerPPO with the recommended settings of GridNavi.

    OMP_NUM_THREADS=1 python benchmarks/batched.py
"""

import argparse
import pathlib
import statistics
from typing import Any

import numpy as np
import yaml
from harness import Stopwatch, interleaved, median_ratio, save, seconds_of
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_trmrl import TransformerPPO
from sb3_trmrl.envs.batched_vec_env import BatchedVecEnv

SIDES = {"dummy": DummyVecEnv, "batched": BatchedVecEnv}
PROBLEMS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("GridNavi-v0", 100, {}),
    ("DarkKeyToDoor-v0", 100, {}),
    ("SparsePointRobot-v0", 100, {}),
    ("TabularMDP-v0", 100, {}),
    ("BernoulliBandit-v0", 100, {}),
    ("BernoulliBandit-v0", 100, {"n_pulls": 100}),
    ("GridNavi-v0", 2, {}),
    ("GridNavi-v0", 10, {}),
    ("GridNavi-v0", 400, {}),
)
HYPERPARAMS = pathlib.Path(__file__).resolve().parent.parent / "hyperparams" / "trmrl.yml"


def stepping(env: VecEnv, n_steps: int) -> Any:
    """Return a function that steps all copies ``n_steps`` times and returns the steps per second."""
    env.action_space.seed(0)
    actions = [np.array([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(n_steps)]
    env.reset()

    def step() -> None:
        for action in actions:
            env.step(action)

    measure = seconds_of(step)
    return lambda: n_steps * env.num_envs / measure()


def learning(env_id: str, kind: type[DummyVecEnv]) -> Any:
    """Return a function that learns for one iteration and returns its seconds, and those in the environments."""
    settings = yaml.safe_load(HYPERPARAMS.read_text())[env_id]
    n_envs, _ = settings.pop("n_envs"), settings.pop("n_timesteps")
    settings["learning_rate"] = float(settings["learning_rate"].removeprefix("lin_"))
    env = make_vec_env(env_id, n_envs, seed=0, vec_env_cls=kind)
    model = TransformerPPO(env=env, seed=0, device="cpu", **settings)

    def iterate() -> tuple[float, float]:
        watch = Stopwatch()
        original = env.step_wait
        watch.wrap(env, "step_wait", "environment")
        with watch.section("rest"):
            model.learn(n_envs * settings["n_steps"], reset_num_timesteps=False)
        env.step_wait = original  # type: ignore[method-assign]
        return sum(watch.seconds.values()), watch.seconds["environment"]

    return iterate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=5)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for env_id, n_envs, env_kwargs in PROBLEMS:
        sides = {
            name: stepping(make_vec_env(env_id, n_envs, seed=0, env_kwargs=env_kwargs, vec_env_cls=kind), 200)
            for name, kind in SIDES.items()
        }
        interleaved(sides, 1)
        rates = interleaved(sides, args.repeats)
        arguments = ", ".join(f"{key} {value}" for key, value in env_kwargs.items())
        rows.append(
            {
                "env": " ".join([env_id, *([arguments] if arguments else [])]),
                "n_envs": n_envs,
                **{f"{side}_steps_per_s": statistics.median(measured) for side, measured in rates.items()},
                "times_dummy": median_ratio(rates["batched"], rates["dummy"]),
            }
        )
    seconds = interleaved({name: learning("GridNavi-v0", kind) for name, kind in SIDES.items()}, args.iterations)
    for name, measured in seconds.items():
        whole, environment = (statistics.median(values) for values in zip(*measured, strict=True))
        rows.append({"iteration of GridNavi-v0": name, "seconds": whole, "environment_s": environment})
    save("batched", rows, repeats=args.repeats, iterations=args.iterations)


if __name__ == "__main__":
    main()
