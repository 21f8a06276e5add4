"""The registered families of tasks: rewards against the formulas on stored physics, tasks, splits, small problems."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

import sb3_trmrl.envs
from sb3_trmrl.envs.tabular_mdp import TabularMDPTask

LOCOMOTION = ["HalfCheetahVel-v0", "HalfCheetahDir-v0", "AntDir-v0"]
IDS = [*LOCOMOTION, "BernoulliBandit-v0", "TabularMDP-v0"]
EPISODES_PER_TRIAL = dict(zip(IDS, (2, 2, 2, 1, 10), strict=True))
HORIZON = dict(zip(IDS, (200, 200, 200, 10, 10), strict=True))


def play(env, n_steps, seed=0, actions_seed=0):
    """Every number a run shows, resetting at each end of a trial."""
    env.action_space.seed(actions_seed)
    observation, info = env.reset(seed=seed)
    log = [(observation, info)]
    for _ in range(n_steps):
        step = env.step(env.action_space.sample())
        log.append(step)
        if step[2] or step[3]:
            log.append(env.reset())
    return log


def tasks_of(env, n_trials, seed=None):
    return [env.reset(seed=seed if i == 0 else None)[1]["task"] for i in range(n_trials)]


# --- rewards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env_id, task, kwargs, direction",
    [
        ("HalfCheetahVel-v0", 2.3, {}, None),
        ("HalfCheetahDir-v0", 1, {}, 1.0),
        ("HalfCheetahDir-v0", -1, {}, -1.0),
        ("AntDir-v0", 1, {}, (1.0, 0.0)),
        ("AntDir-v0", -1, {}, (-1.0, 0.0)),
        ("AntDir-v0", 1, {"legacy_angles": True}, (0.5403, 0.8415)),
        ("AntDir-v0", -1, {"legacy_angles": True}, (0.5403, -0.8415)),
    ],
)
def test_rewards_equal_the_formulas_on_stored_physics(env_id, task, kwargs, direction):
    env = gym.make(env_id, episodes_per_trial=2, horizon=60, **kwargs)
    physics = env.unwrapped
    env.reset(seed=1, options={"task": task})
    rng = np.random.default_rng(2)
    ended, n_steps = False, 0
    while not ended:
        before = physics.data.qpos[0], physics.data.body("torso").xpos.copy()
        # Gentle enough for the ant to stay healthy for a while.
        action = rng.uniform(-0.3, 0.3, size=env.action_space.shape).astype(np.float32)
        _, reward, terminated, truncated, info = env.step(action)
        n_steps += 1
        ended = terminated or truncated
        if info["new_episode"]:
            continue  # the physics have been reset
        effort = np.sum(action.astype(np.float64) ** 2)
        if env_id == "AntDir-v0":
            velocity = (physics.data.body("torso").xpos - before[1])[:2] / physics.dt
            contact = np.sum(np.clip(physics.data.cfrc_ext, -1, 1) ** 2)
            expected = np.dot(velocity, direction) - 0.5 * effort - 5e-4 * contact + 1.0
            tolerance = 1e-6 if not kwargs else 1e-3  # the angles above are rounded
        else:
            velocity = (physics.data.qpos[0] - before[0]) / physics.dt
            expected = (-abs(velocity - task) if direction is None else direction * velocity) - 0.05 * effort
            tolerance = 1e-6
        assert reward == pytest.approx(expected, abs=tolerance)
    assert n_steps == sum(info["episode_lengths"]) > 60
    env.close()


def test_the_ant_is_paid_for_the_step_that_ends_its_episode():
    env = gym.make("AntDir-v0", episodes_per_trial=1, trial_end="truncated")
    env.reset(seed=0)
    env.unwrapped.data.qpos[2] = 2.0
    _, reward, terminated, truncated, info = env.step(np.zeros(8, dtype=np.float32))
    assert (terminated, truncated) == (False, True)
    assert info["episode_lengths"] == (1,)
    assert reward == pytest.approx(env.unwrapped.get_task() * info["x_velocity"] + info["reward_contact"] + 1.0)
    env.close()


def test_observations_have_the_published_sizes():
    sizes = {"HalfCheetahVel-v0": (17, 6), "HalfCheetahDir-v0": (17, 6), "AntDir-v0": (27, 8)}
    for env_id, (observation, action) in sizes.items():
        env = gym.make(env_id)
        assert env.observation_space["observation"].shape == (observation,)
        assert env.observation_space["prev_action"].shape == (action,)
        physics = env.unwrapped
        skipped = physics.observation_structure["skipped_qpos"]
        seen = env.reset(seed=0)[0]["observation"]
        np.testing.assert_array_equal(seen, np.concatenate([physics.data.qpos[skipped:], physics.data.qvel]))
        env.close()


def test_random_velocities_and_actions_give_the_known_return():
    # Measured elsewhere on Gymnasium's HalfCheetah-v5: -354 over 60 tasks, with a standard error of 21.
    env = gym.make("HalfCheetahVel-v0", episodes_per_trial=1)
    env.action_space.seed(0)
    returns = []
    for trial in range(30):
        env.reset(seed=5 if trial == 0 else None)
        returns.append(sum(env.step(env.action_space.sample())[1] for _ in range(200)))
    assert abs(np.mean(returns) + 354) < 4 * np.hypot(21, np.std(returns) / np.sqrt(30))
    env.close()


# --- tasks, trials, seeds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_the_task_is_constant_in_a_trial_and_new_in_the_next(env_id):
    kwargs = {"horizon": 5} if env_id in LOCOMOTION else {}
    env = gym.make(env_id, **kwargs)
    tasks = []
    for trial in range(12):
        _, info = env.reset(seed=3 if trial == 0 else None)
        task, ended = info["task"], False
        while not ended:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            ended = terminated or truncated
            assert env.unwrapped.get_task() == task
            assert info.get("task", task) == task
        assert len(info["episode_lengths"]) == EPISODES_PER_TRIAL[env_id]
        assert info["task"] == task
        tasks.append(task)
    n_different = len(set(tasks))
    assert n_different == 2 if env_id.endswith("Dir-v0") else n_different == 12
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_default_trial_lengths(env_id):
    env = gym.make(env_id)
    env.reset(seed=0)
    lengths = ()
    while not lengths or len(lengths) < EPISODES_PER_TRIAL[env_id]:
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, env.action_space.dtype))
        lengths = info.get("episode_lengths", lengths)
    assert all(length <= HORIZON[env_id] for length in lengths)
    if env_id != "AntDir-v0":
        assert lengths == (HORIZON[env_id],) * EPISODES_PER_TRIAL[env_id]
        # A bandit and an MDP of a given length end, locomotion is cut off.
        assert (terminated, truncated) == ((False, True) if env_id in LOCOMOTION else (True, False))
    env.close()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_same_seed_same_run_bit_for_bit_and_different_seeds_differ(env_id, split):
    kwargs = {"split": split, **({"horizon": 20} if env_id in LOCOMOTION else {})}
    envs = [gym.make(env_id, **kwargs) for _ in range(2)]
    play(envs[1], 37, seed=11)
    first, second = play(envs[0], 100, seed=4), play(envs[1], 100, seed=4)
    assert pickle.dumps(first) == pickle.dumps(second)
    assert pickle.dumps(play(envs[0], 100, seed=5)) != pickle.dumps(first)
    for env in envs:
        env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_held_out_tasks_are_fixed_disjoint_and_visited_in_turn(env_id):
    kwargs = {"horizon": 2} if env_id in LOCOMOTION else {}
    visited = {}
    for split in ("validation", "test"):
        env = gym.make(env_id, split=split, **kwargs)
        visited[split] = tasks_of(env, 20, seed=1)
        assert tasks_of(env, 20) == visited[split]
        other = gym.make(env_id, split=split, **kwargs)
        assert tasks_of(other, 20, seed=2) == tasks_of(other, 20) == visited[split]
    if env_id.endswith("Dir-v0"):
        # There are only two tasks: each as often as the other.
        assert visited["validation"] == visited["test"] == [1, -1] * 10
    else:
        train = tasks_of(gym.make(env_id, **kwargs), 100, seed=0)
        assert len({*visited["validation"], *visited["test"], *train}) == 140


def test_the_range_of_tasks_is_an_argument():
    tasks = tasks_of(gym.make("HalfCheetahVel-v0"), 200, seed=0)
    assert min(tasks) >= 0.0 and max(tasks) <= 3.0
    assert np.mean(tasks) == pytest.approx(1.5, abs=4 * 3 / np.sqrt(12 * 200))
    for split in ("train", "test"):
        tasks = tasks_of(gym.make("HalfCheetahVel-v0", velocity_range=(3.0, 4.0), split=split), 20, seed=0)
        assert all(3.0 <= task <= 4.0 for task in tasks)
    assert set(tasks_of(gym.make("AntDir-v0", directions=(-1,)), 5, seed=0)) == {-1}
    bandit = gym.make("BernoulliBandit-v0", n_arms=3, mean_range=(0.8, 0.9))
    assert all(0.8 <= mean <= 0.9 for task in tasks_of(bandit, 20, seed=0) for mean in task)
    mdp = gym.make("TabularMDP-v0", reward_prior=(-5.0, 0.0))
    assert (tasks_of(mdp, 1, seed=0)[0].mean_rewards == -5.0).all()


@pytest.mark.parametrize("env_id", IDS)
def test_common_arguments_reach_the_wrappers(env_id):
    env = gym.make(env_id, episodes_per_trial=3, horizon=2, trial_end="truncated", across_episodes="zero")
    observation, _ = env.reset(seed=0)
    rows = []
    for _ in range(6):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        zero = not (observation["prev_action"].any() or observation["prev_reward"].any())
        rows.append((zero, float(observation["prev_done"][0]), terminated, truncated))
    assert info["episode_lengths"] == (2, 2, 2)
    middle, boundary, end = (False, 0.0, False, False), (True, 1.0, False, False), (False, 0.0, False, True)
    if env_id == "BernoulliBandit-v0":  # a one-hot action is never zero
        assert [row[1:] for row in rows] == [row[1:] for row in (middle, boundary, middle, boundary, middle, end)]
        assert rows[1][0]
    else:
        assert rows == [middle, boundary, middle, boundary, middle, end]
    env.close()


# --- under Gymnasium and Stable-Baselines3 ------------------------------------------------------------------------

# What Gymnasium's own HalfCheetah-v5 gets too: about unbounded observations, and about `gym.make` adding a wrapper.
UNAVOIDABLE = (
    "minimum value is -infinity",
    "maximum value is infinity",
    "is different from the unwrapped version",
)


@pytest.mark.parametrize("env_id", IDS)
def test_both_env_checkers_pass_without_warnings(env_id):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Rendering needs a display or EGL for MuJoCo.
        gymnasium_check_env(gym.make(env_id, disable_env_checker=True), skip_render_check=env_id in LOCOMOTION)
        sb3_check_env(gym.make(env_id))
    ours = [str(w.message) for w in caught if not any(words in str(w.message) for words in UNAVOIDABLE)]
    assert ours == []


@pytest.mark.parametrize("env_id", IDS)
def test_specs_and_copies(env_id):
    for split in ("train", "test"):
        env = gym.make(env_id, split=split)
        again = gym.make(pickle.loads(pickle.dumps(env.spec)))
        assert again.spec == env.spec
        assert tasks_of(again, 2, seed=0) == tasks_of(env, 2, seed=0)
        assert gym.spec(env_id).make(split=split).spec.kwargs == env.spec.kwargs
    bare = pickle.loads(pickle.dumps(env.unwrapped))
    assert type(bare) is type(env.unwrapped)
    assert bare.observation_space == env.unwrapped.observation_space


@pytest.mark.parametrize("env_id", IDS)
def test_monitor_in_a_vec_env_sees_whole_trials(env_id):
    horizon, n_episodes = 4, 3
    kwargs = {"horizon": horizon, "episodes_per_trial": n_episodes}
    venv = make_vec_env(env_id, n_envs=2, seed=0, env_kwargs=kwargs)
    keys = [k for k in ("observation", "prev_reward") if env_id != "TabularMDP-v0" or k == "prev_reward"]
    venv = VecNormalize(venv, norm_obs_keys=keys)
    assert all(spec.max_episode_steps is None for spec in venv.get_attr("spec"))
    venv.reset()
    for step in range(1, 2 * n_episodes * horizon + 1):
        actions = np.array([venv.action_space.sample() * 0 for _ in range(2)])
        observations, _, dones, infos = venv.step(actions)
        trial_over = step % (n_episodes * horizon) == 0
        assert dones.tolist() == [trial_over] * 2
        boundary = step % horizon == 0 and not trial_over
        assert (observations["prev_done"] == float(boundary)).all()
        for info in infos:
            if trial_over:
                assert info["episode"]["l"] == n_episodes * horizon
                assert info["episode"]["r"] == pytest.approx(sum(info["episode_returns"]), abs=1e-4)
                assert info["terminal_observation"]["prev_done"][0] == (0.0 if env_id in LOCOMOTION else 1.0)
                assert info["TimeLimit.truncated"] == (env_id in LOCOMOTION)
            else:
                assert "episode" not in info
    venv.close()


def test_subprocesses_find_the_environment_by_its_module():
    kwargs = {"n_envs": 2, "seed": 3, "env_kwargs": {"episodes_per_trial": 2}}
    runs = []
    for vec_env_cls in (SubprocVecEnv, None):
        venv = make_vec_env("sb3_trmrl:BernoulliBandit-v0", vec_env_cls=vec_env_cls, **kwargs)
        runs.append([{k: v.tolist() for k, v in venv.reset().items()}])
        runs[-1].append([info["task"] for info in venv.reset_infos])
        for step in range(25):
            observations, rewards, dones, infos = venv.step(np.array([step % 5, 0]))
            runs[-1].append([{k: v.tolist() for k, v in observations.items()}, rewards.tolist(), dones.tolist()])
            runs[-1].append([info.get("episode_returns") for info in infos])
        venv.close()
    assert runs[0] == runs[1]


@pytest.mark.parametrize("env_id", IDS)
def test_infos_are_small(env_id):
    env = gym.make(env_id)
    infos = [entry[-1] for entry in play(env, 450) if len(entry) == 5]
    assert any("task" in info for info in infos)
    # Copied as vectorised environments do; a task of TabularMDP is shared, being immutable.
    for info in infos:
        copied = copy.deepcopy(info)
        assert copied == info
        without_task = {key: value for key, value in copied.items() if key != "task"}
        assert len(pickle.dumps(without_task)) < 400
        assert all(type(value) in (bool, int, float, tuple) for value in without_task.values())
        if isinstance(info.get("task"), TabularMDPTask):
            assert copied["task"] is info["task"]
    env.close()


def run_without_the_agent(code, **environment):
    """Run Python code in a new process where ``import sb3_trmrl.envs`` does not import the agent."""
    start = (
        "import sys, types\n"
        "package = types.ModuleType('sb3_trmrl'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['sb3_trmrl'] = package\n"
        "import gymnasium as gym, sb3_trmrl.envs\n"
    )
    folder = os.path.dirname(os.path.dirname(sb3_trmrl.envs.__file__))
    command = [sys.executable, "-c", start + code, folder]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def test_importing_the_environments_needs_neither_torch_nor_mujoco():
    # The package itself imports the agent; the modules of the environments do not depend on it.
    code = (
        "assert not {'torch', 'mujoco', 'stable_baselines3'} & set(sys.modules)\n"
        "gym.make('BernoulliBandit-v0').reset(); gym.make('HalfCheetahVel-v0').reset()\n"
        "assert not {'torch', 'stable_baselines3'} & set(sys.modules)\n"
    )
    result = run_without_the_agent(code)
    assert result.returncode == 0, result.stderr


# --- the small problems -------------------------------------------------------------------------------------------


def bandit_totals(policy, n_tasks):
    """Total reward of each task; ``policy(rng, last_arm, last_reward)`` sees the last transition only."""
    env = gym.make("BernoulliBandit-v0", disable_env_checker=True)
    rng = np.random.default_rng(0)
    totals = []
    for i in range(n_tasks):
        observation, _ = env.reset(seed=1 if i == 0 else None)
        total, over = 0.0, False
        while not over:
            last = int(np.argmax(observation["prev_action"])) if observation["prev_action"].any() else None
            arm = policy(rng, last, observation["prev_reward"][0])
            observation, reward, over, _, _ = env.step(arm)
            total += reward
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize(
    "policy, expected",
    [
        (lambda rng, last, reward: int(rng.integers(5)), 5.0),
        (lambda rng, last, reward: 0 if last is None else (last + int(reward == 0.0)) % 5, 6.44),
    ],
    ids=["random", "stay on a win, next arm on a loss"],
)
def test_known_values_of_the_bandit(policy, expected):
    totals = bandit_totals(policy, n_tasks=4000)
    standard_error = totals.std() / np.sqrt(len(totals))
    # 6.44 is itself rounded to 0.005.
    assert abs(totals.mean() - expected) < 3 * standard_error + 0.005
    assert standard_error < 0.05


def test_each_arm_pays_with_its_probability():
    task = (0.0, 0.2, 0.5, 0.9, 1.0)
    env = gym.make("BernoulliBandit-v0", n_pulls=3000)
    for arm, mean in enumerate(task):
        env.reset(seed=arm, options={"task": task})
        rewards = np.array([env.step(arm)[1] for _ in range(3000)])
        assert set(rewards) <= {0.0, 1.0}
        assert abs(rewards.mean() - mean) <= 4 * np.sqrt(mean * (1 - mean) / 3000)


def test_transitions_and_rewards_of_a_tabular_mdp_follow_the_task():
    n_steps = 20_000
    env = gym.make("TabularMDP-v0", n_states=4, n_actions=2, horizon=n_steps, episodes_per_trial=1).unwrapped
    env.set_task(env.sample_tasks(1)[0])
    task, state = env.get_task(), env.reset(seed=0)[0]
    assert state == 0
    rng = np.random.default_rng(1)
    counts, rewards = np.zeros((4, 2, 4)), [[[] for _ in range(2)] for _ in range(4)]
    for action in rng.integers(2, size=n_steps):
        next_state, reward, *_ = env.step(action)
        counts[state, action, next_state] += 1
        rewards[state][action].append(reward)
        state = next_state
    visits = counts.sum(-1)
    assert visits.min() > 200
    frequencies = counts / visits[..., None]
    error = np.sqrt(task.transitions * (1 - task.transitions) / visits[..., None])
    assert (np.abs(frequencies - task.transitions) < 4.5 * error + 1e-3).all()
    for state in range(4):
        for action in range(2):
            seen = np.array(rewards[state][action])
            assert abs(seen.mean() - task.mean_rewards[state, action]) < 4.5 / np.sqrt(len(seen))
            assert seen.std() == pytest.approx(1.0, abs=4.5 / np.sqrt(2 * len(seen)))


def test_the_distribution_of_tabular_mdps():
    tasks = gym.make("TabularMDP-v0").unwrapped.draw_tasks(400, np.random.default_rng(0))
    transitions = np.array([task.transitions for task in tasks])
    means = np.array([task.mean_rewards for task in tasks])
    assert transitions.shape == (400, 10, 5, 10)
    assert np.allclose(transitions.sum(-1), 1.0)
    # Flat Dirichlet over 10 states: each probability has mean 1/10 and variance (1/10)(9/10)/11.
    assert transitions.mean((0, 1, 2)) == pytest.approx(np.full(10, 0.1), abs=0.005)
    assert transitions.var() == pytest.approx(0.09 / 11, rel=0.05)
    assert (means.mean(), means.std()) == pytest.approx((1.0, 1.0), abs=0.05)


def test_tabular_tasks_compare_by_value_and_cannot_be_changed():
    one, two = gym.make("TabularMDP-v0").unwrapped.draw_tasks(2, np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(one))
    assert one == again and hash(one) == hash(again) and again is not one
    assert one != two and one != "task" and len({one, again, two}) == 2
    for task in (one, again):
        with pytest.raises(ValueError, match="read-only"):
            task.mean_rewards[0, 0] = 3.0


@pytest.mark.parametrize("number", [0.0, 1.0 / 3.0, np.nextafter(1.0, 0.0)])
def test_impossible_states_are_never_entered(number):
    # States 0 and 11 have probability zero; ten times 0.1 sums to less than 1, which must not open the last one.
    row = np.array([0.0] + [0.1] * 10 + [0.0])
    assert np.cumsum(row)[-1] < 1.0
    env = gym.make("TabularMDP-v0", n_states=12, n_actions=1).unwrapped
    env.set_task(TabularMDPTask(np.broadcast_to(row, (12, 1, 12)), np.zeros((12, 1))))
    env.reset(seed=0)

    class OneNumber(np.random.Generator):
        def random(self, *args, **kwargs):
            return number

    env.np_random = OneNumber(np.random.PCG64(0))
    assert env.step(0)[0] == 1 + int(number * 10)


@pytest.mark.parametrize("env_id", ["BernoulliBandit-v0", "TabularMDP-v0"])
def test_small_problems_print_and_draw(env_id, capsys):
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    env.step(2)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("new episode") and "2 pays" in last
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for action in range(3):
        env.step(action)
        frames.append(env.render())
    assert frames[0].dtype == np.uint8 and frames[0].ndim == 3 and frames[0].shape[2] == 3
    assert any((a != b).any() for a, b in pairwise(frames))


def test_the_camera_follows_the_robots():
    # In a process of its own: MuJoCo reads MUJOCO_GL once. Robots are brown, the floor is not.
    code = (
        "for name in ('HalfCheetahVel-v0', 'HalfCheetahDir-v0', 'AntDir-v0'):\n"
        "    env = gym.make(name, render_mode='rgb_array')\n"
        "    env.reset(seed=0)\n"
        "    sizes = []\n"
        "    for _ in range(2):\n"
        "        env.step(env.action_space.sample())\n"
        "        frame = env.render()\n"
        "        assert frame.shape == (480, 480, 3)\n"
        "        sizes.append((frame[..., 0] > frame[..., 2].astype(int) + 40).sum())\n"
        "        env.unwrapped.data.qpos[0] += 10\n"
        "    env.close()\n"
        "    assert sizes[0] > 1_000 and sizes[1] > sizes[0] / 2, (name, sizes)\n"
    )
    result = run_without_the_agent(code, MUJOCO_GL="egl")
    if result.returncode != 0 and "EGL" in result.stderr:
        pytest.skip("no EGL on this machine")
    assert result.returncode == 0, result.stderr
