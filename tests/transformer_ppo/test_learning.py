"""Agents that learn, for minutes: `make test-slow`. Settings are those of hyperparams/, through the command line."""

from pathlib import Path

import numpy as np
import pytest
import rl_zoo3.import_envs  # noqa: F401  (registers CartPoleNoVel-v1)
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_trmrl import TransformerPPO
from tests.helpers.zoo import train

pytestmark = pytest.mark.slow


def test_cartpole_without_velocities_needs_memory(tmp_path: Path) -> None:
    """TransformerPPO balances for 400 of 500 steps or more; PPO with as many steps and the same settings does not."""
    env_id, n_steps = "CartPoleNoVel-v1", 60_000
    run = train(tmp_path, "--seed", "0", "-n", str(n_steps), "--eval-freq", "-1", params=[], env=env_id)

    def evaluation_env() -> VecEnv:
        return make_vec_env(env_id, 4, seed=1_000)

    held = VecNormalize.load(str(run / env_id / "vecnormalize.pkl"), evaluation_env())
    held.training = held.norm_reward = False
    memory, _ = evaluate_policy(TransformerPPO.load(run / f"{env_id}.zip"), held, n_eval_episodes=40)

    training = VecNormalize(make_vec_env(env_id, 8, seed=0), gamma=0.99)
    ppo = PPO("MlpPolicy", training, n_steps=128, batch_size=256, n_epochs=10, learning_rate=3e-4, seed=0)
    ppo.learn(n_steps)
    reactive_env = VecNormalize(evaluation_env(), training=False, norm_reward=False)
    reactive_env.obs_rms = training.obs_rms
    reactive, _ = evaluate_policy(ppo, reactive_env, n_eval_episodes=40)

    print(f"CartPoleNoVel-v1 after {n_steps} steps: TransformerPPO {memory:.0f}, PPO {reactive:.0f}")
    assert memory >= 400
    assert reactive < 200


def bandit_returns(model: TransformerPPO, n_tasks: int, deterministic: bool) -> np.ndarray:
    """
    :param model: Agent
    :param n_tasks: Number of tasks, a multiple of 1,000; the same ones at each call
    :param deterministic: Whether to take the likeliest arm
    :return: Return of one trial of 10 pulls on each task, (n_tasks,)
    """
    env = make_vec_env("BernoulliBandit-v0", 1_000, seed=1_000_000)
    returns = []
    for _ in range(n_tasks // 1_000):
        observations, state, starts, total = env.reset(), None, np.ones(1_000, dtype=bool), np.zeros(1_000)
        for _ in range(10):
            actions, state = model.predict(observations, state, starts, deterministic)
            observations, rewards, starts, _ = env.step(actions)
            total += rewards
        assert starts.all()
        returns.append(total)
    env.close()
    return np.concatenate(returns)


def test_bandit_beats_what_one_transition_can_tell(tmp_path: Path) -> None:
    """Sampled actions, 20,000 tasks: 6.4 or more (random 5.0, optimum 6.66), with a standard error of 0.017."""
    run = train(tmp_path, "--seed", "0", "--eval-freq", "-1", params=[], env="BernoulliBandit-v0")
    model = TransformerPPO.load(run / "BernoulliBandit-v0.zip")
    sampled, greedy = (bandit_returns(model, 20_000, deterministic).mean() for deterministic in (False, True))
    print(f"BernoulliBandit-v0, 20,000 tasks: sampled {sampled:.3f}, greedy {greedy:.3f}")
    assert sampled >= 6.4
