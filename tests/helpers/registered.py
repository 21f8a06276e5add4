"""The registered families of tasks but MetaWorld's, and what several tests do with an environment."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_trmrl
from sb3_trmrl.envs.bandit import BernoulliBanditEnv
from sb3_trmrl.envs.grid import DarkKeyToDoorEnv, GridNaviEnv
from sb3_trmrl.envs.locomotion import AntDirEnv, HalfCheetahDirEnv, HalfCheetahVelEnv
from sb3_trmrl.envs.sparse_point_robot import SparsePointRobotEnv
from sb3_trmrl.envs.tabular_mdp import TabularMDPEnv

LOCOMOTION: dict[str, Any] = {
    "HalfCheetahVel-v0": HalfCheetahVelEnv,
    "HalfCheetahDir-v0": HalfCheetahDirEnv,
    "AntDir-v0": AntDirEnv,
}
SMALL: dict[str, Any] = {
    "BernoulliBandit-v0": BernoulliBanditEnv,
    "TabularMDP-v0": TabularMDPEnv,
    "GridNavi-v0": GridNaviEnv,
    "DarkKeyToDoor-v0": DarkKeyToDoorEnv,
    "SparsePointRobot-v0": SparsePointRobotEnv,
}
FAMILIES = {**LOCOMOTION, **SMALL}
EPISODES_PER_TRIAL = dict(zip(FAMILIES, (2, 2, 2, 1, 10, 4, 4, 4), strict=True))
HORIZON = dict(zip(FAMILIES, (200, 200, 200, 10, 10, 15, 50, 20), strict=True))

#: Warnings about Gymnasium's own environments too: unbounded observations, and a wrapper that `gym.make` adds
UNAVOIDABLE = ("minimum value is -infinity", "maximum value is infinity", "is different from the unwrapped version")


def visited_tasks(env: gym.Env, n_trials: int, seed: int | None = None) -> list[Any]:
    """Return the tasks of the next trials; only the first reset gets the seed."""
    return [env.reset(seed=seed if i == 0 else None)[1]["task"] for i in range(n_trials)]


def play(env: gym.Env, n_steps: int, seed: int) -> list[Any]:
    """Return everything that resets and random actions return; a trial that ends is followed by a reset."""
    env.action_space.seed(0)
    log: list[Any] = [env.reset(seed=seed)]
    for _ in range(n_steps):
        step = env.step(env.action_space.sample())
        log.append(step)
        if step[2] or step[3]:
            log.append(env.reset())
    return log


def assert_checkers_pass(env_id: str, **kwargs: Any) -> None:
    """Gymnasium's and SB3's checkers find nothing; rendering of simulators would need a display or EGL."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = gym.make(env_id, disable_env_checker=True, **kwargs)
        gymnasium_check_env(env, skip_render_check=env_id not in SMALL)
        sb3_check_env(gym.make(env_id, **kwargs))
    assert [str(w.message) for w in caught if not any(words in str(w.message) for words in UNAVOIDABLE)] == []


def start_without_the_agent(code: str, **environment: str) -> subprocess.Popen[str]:
    """Run code in a new process in which ``import sb3_trmrl.envs`` does not import the agent."""
    start = (
        "import sys, types\n"
        "package = types.ModuleType('sb3_trmrl'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['sb3_trmrl'] = package\n"
        "import gymnasium as gym, sb3_trmrl.envs\n"
    )
    command = [sys.executable, "-c", start + code, str(Path(sb3_trmrl.__file__).parent)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=pipe, stderr=pipe, text=True)


def finish_rendering(code: str) -> None:
    """Run code that renders with EGL, in a process of its own because MuJoCo reads MUJOCO_GL only once."""
    process = start_without_the_agent(code, MUJOCO_GL="egl")
    _, errors = process.communicate(timeout=300)
    if process.returncode != 0 and "EGL" in errors:
        pytest.skip("no EGL on this machine")
    assert process.returncode == 0, errors


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[str, str]:
    """Return output and errors of a process that must succeed."""
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, errors
    return output, errors
