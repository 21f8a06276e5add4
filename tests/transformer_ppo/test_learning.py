"""Agents trained from the command line, with the settings of hyperparams/. They take minutes: `make test-slow`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rl_zoo3.import_envs  # noqa: F401  (registers CartPoleNoVel-v1)
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from tests.helpers.learning import play
from tests.helpers.zoo import train

pytestmark = pytest.mark.slow


def test_cartpole_without_velocities_needs_memory(tmp_path: Path) -> None:
    """TransformerPPO balances for at least 400 of 500 steps. PPO does not, with the same steps and settings."""
    env_id, n_steps = "CartPoleNoVel-v1", 60_000
    run = train(tmp_path, "--seed", "0", "-n", str(n_steps), "--eval-freq", "-1", params=[], env=env_id)

    def evaluation_env() -> VecEnv:
        return make_vec_env(env_id, 4, seed=1_000)

    held = VecNormalize.load(str(run / env_id / "vecnormalize.pkl"), evaluation_env())
    held.training = held.norm_reward = False
    memory: Any = evaluate_policy(TransformerPPO.load(run / f"{env_id}.zip"), held, n_eval_episodes=40)[0]

    training = VecNormalize(make_vec_env(env_id, 8, seed=0), gamma=0.99)
    ppo = PPO("MlpPolicy", training, n_steps=128, batch_size=256, n_epochs=10, learning_rate=3e-4, seed=0)
    ppo.learn(n_steps)
    reactive_env = VecNormalize(evaluation_env(), training=False, norm_reward=False)
    reactive_env.obs_rms = training.obs_rms
    reactive: Any = evaluate_policy(ppo, reactive_env, n_eval_episodes=40)[0]

    print(f"CartPoleNoVel-v1 after {n_steps} steps: TransformerPPO {memory:.0f}, PPO {reactive:.0f}")
    assert memory >= 400
    assert reactive < 200


def bandit_returns(model: TransformerPPO, n_tasks: int, deterministic: bool) -> np.ndarray:
    """Return the return of one trial of 10 pulls on each task, (n_tasks,), a multiple of 1,000 of the same tasks."""
    env = make_vec_env("BernoulliBandit-v0", 1_000, seed=1_000_000)
    returns = []
    for _ in range(n_tasks // 1_000):
        steps = list(play(model, env, 10, deterministic))
        assert steps[-1].dones.all()
        returns.append(sum(step.rewards for step in steps))
    env.close()
    return np.concatenate(returns)


def test_bandit_needs_more_than_one_transition(tmp_path: Path) -> None:
    """
    Stochastic actions have a mean return of at least 6.4 on 20,000 tasks, with a standard error of 0.017. Random
    actions have 5.0, the optimum is 6.66.
    """
    run = train(tmp_path, "--seed", "0", "--eval-freq", "-1", params=[], env="BernoulliBandit-v0")
    model = TransformerPPO.load(run / "BernoulliBandit-v0.zip")
    stochastic, greedy = (bandit_returns(model, 20_000, deterministic).mean() for deterministic in (False, True))
    print(f"BernoulliBandit-v0, 20,000 tasks: stochastic {stochastic:.3f}, deterministic {greedy:.3f}")
    assert stochastic >= 6.4
