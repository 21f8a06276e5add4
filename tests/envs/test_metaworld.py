"""MetaWorld's environments against MetaWorld itself: episodes, shared models, pictures, resources."""

import copy
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

import sb3_trmrl.envs
from tests.helpers.registered import assert_checkers_pass, finish, finish_rendering, start_without_the_agent

metaworld = pytest.importorskip("metaworld")
# Without MetaWorld these could not be imported
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402

from sb3_trmrl.envs.metaworld_simulation import ALL_V3_ENVIRONMENTS, new_simulation  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_goals")

# Some that move parts of the model at a reset, and some that do not
MOVING = ["basketball-v3", "box-close-v3", "drawer-close-v3", "pick-place-v3"]


def bare(task: Any, version: str = "v2") -> Any:
    """MetaWorld's own environment with this task, new."""
    env = ALL_V3_ENVIRONMENTS[task.name](reward_function_version=version)
    data = {"rand_vec": np.array(task.rand_vec), "env_cls": type(env), "partially_observable": True}
    env.set_task(metaworld.Task(task.name, pickle.dumps(data)))
    return env


def play_steps(env: Any, n_steps: int | None, seed: int) -> Any:
    """Play random actions after a reset: yields before each step, and at last the numbers of the whole trajectory."""
    rng = np.random.default_rng(seed)
    numbers = [env.reset()[0]]
    for action in rng.uniform(-1, 1, size=(n_steps, 4)).astype(np.float32):
        yield None
        observation, reward, _, _, info = env.step(action)
        numbers += [observation, reward, *(float(info[key]) for key in ("success", "obj_to_target", "grasp_success"))]
    yield np.hstack(numbers)


def trajectory(env: Any, n_steps: int | None, seed: int) -> Any:
    return [*play_steps(env, n_steps, seed)][-1]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", ["reach-v3", "push-v3", "door-open-v3"])
def test_an_episode_is_metaworlds(name: str, version: str) -> None:
    env = gym.make("MetaWorldML1-v0", task_name=name, reward_function_version=version, episodes_per_trial=1).unwrapped
    task = env.split_tasks("test")[7]
    env.set_task(task)
    np.testing.assert_array_equal(trajectory(env, 60, 0), trajectory(bare(task, version), 60, 0))
    env.close()


def test_goals_are_hidden_and_spaces_are_metaworlds() -> None:
    env = gym.make("MetaWorldML1-v0", episodes_per_trial=1).unwrapped
    theirs = bare(env.get_task())
    assert env.observation_space.dtype == theirs.observation_space.dtype
    for ours, bounds in (("low", theirs.sawyer_observation_space.low), ("high", theirs.sawyer_observation_space.high)):
        np.testing.assert_array_equal(getattr(env.observation_space, ours)[:36], bounds[:36])
    assert env.action_space == theirs.action_space
    observations = [env.reset(seed=0)[0], *(env.step(env.action_space.sample())[0] for _ in range(20))]
    for observation in observations:
        assert observation.dtype == np.float64 and observation.shape == (39,)
        assert not observation[36:].any() and env.observation_space.contains(observation)
    env.close()


def test_trials_successes_and_ends() -> None:
    env = gym.make("MetaWorldML1-v0", episodes_per_trial=2, horizon=90)
    _, info = env.reset(seed=1)
    goal = np.array(info["task"].rand_vec[3:])
    first_steps = []
    for step in range(180):
        hand = env.unwrapped._simulation.tcp_center
        _, _, terminated, truncated, info = env.step(
            np.append(np.clip(20 * (goal - hand), -1, 1), 0).astype(np.float32)
        )
        near = np.linalg.norm(env.unwrapped._simulation.tcp_center - goal) <= 0.05
        if step not in (89, 179):  # after the first the hand is back
            assert info["success"] == float(near) and info["is_success"] is bool(near)
        first_steps += [step] if info["is_success"] else []
        assert (terminated, truncated) == (False, step == 179)
        assert info["new_episode"] == (step == 89)
    assert first_steps and info["episode_successes"] == (True, True) and info["episode_lengths"] == (90, 90)
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(np.zeros(4, dtype=np.float32))
    env.close()
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(np.zeros(4, dtype=np.float32))
    env.unwrapped.reset()
    with pytest.raises(ValueError, match="4 finite numbers"):
        env.unwrapped.step(np.zeros(3, dtype=np.float32))
    env.close()


def test_seeds_choose_the_tasks() -> None:
    envs = [gym.make("MetaWorldML1-v0", horizon=3) for _ in range(2)]
    tasks = [[env.reset(seed=seed if i == 0 else None)[1]["task"] for i in range(8)] for env in envs for seed in (0, 1)]
    assert tasks[0] == tasks[2] and tasks[1] == tasks[3] and tasks[0] != tasks[1]
    assert len(set(tasks[0])) > 4
    for env in envs:
        env.close()


@pytest.mark.parametrize("task_name", ["reach-v3", "push-v3", "pick-place-v3"])
def test_recombined_tasks(task_name: str) -> None:
    """Each coordinate is one of MetaWorld's, independent of the others. What is held out stays MetaWorld's."""
    env, plain = (
        gym.make("MetaWorldML1-v0", task_name=task_name, **kwargs).unwrapped
        for kwargs in ({"recombine_tasks": True}, {})
    )
    vectors = np.array([task.rand_vec for task in plain.split_tasks("train")])
    tasks = env.split_tasks("train")
    found = np.array([task.rand_vec for task in tasks])
    assert len(set(tasks)) == len(tasks) == 5_000 and {task.name for task in tasks} == {task_name}
    assert (np.hypot(*(found[:, :2] - found[:, 3:5]).T) >= 0.15).all()
    for own, drawn in zip(vectors.T, found.T, strict=True):
        assert set(drawn) == set(own)  # all of them occur
    # No correlation, except where MetaWorld wants a distance: along the second axis of object and goal
    varied = [index for index in range(6) if np.ptp(found[:, index]) > 1e-3]
    correlations = np.corrcoef(found[:, varied].T) - np.eye(len(varied))
    correlations[varied.index(1), varied.index(4)] = correlations[varied.index(4), varied.index(1)] = 0
    assert np.abs(correlations).max() < 0.1
    for split in ("validation", "test"):
        assert env.split_tasks(split) == plain.split_tasks(split)
    for task in (*tasks[:: len(tasks) // 3], plain.split_tasks("train")[7]):
        env.set_task(task)
        np.testing.assert_array_equal(env.reset()[0], bare(task).reset()[0])
    env.close()


@pytest.mark.filterwarnings("ignore:several copies of an environment visit the same tasks")
@pytest.mark.parametrize("env_id", ["MetaWorldML1-v0", "MetaWorldML1Push-v0", "MetaWorldML10-v0"])
def test_checkers_specs_and_copies(env_id: str) -> None:
    assert_checkers_pass(env_id)
    env = gym.make(env_id, split="test", reward_function_version="v1", benchmark_seed=0)
    env.reset(seed=0)
    again = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert again.spec.kwargs == dict(split="test", reward_function_version="v1", benchmark_seed=0)
    assert again.reset()[1]["task"] == env.reset(seed=0)[1]["task"]
    for copied in (pickle.loads(pickle.dumps(env.unwrapped)), copy.deepcopy(env.unwrapped)):
        assert copied.reward_function_version == "v1" and copied._simulation is not env.unwrapped._simulation
        np.testing.assert_array_equal(copied.reset()[0], env.unwrapped.reset()[0])
        copied.close()
    env.close()


def test_two_threads_with_one_model() -> None:
    """Each has the physics of its own task, as one after the other."""
    envs = [gym.make("MetaWorldML1-v0", task_name="door-open-v3").unwrapped for _ in range(2)]
    for env, index in zip(envs, (0, 5), strict=True):
        env.set_task(env.split_tasks("train")[index])
    alone = [trajectory(env, 150, 0) for env in envs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda env: trajectory(env, 150, 0), envs))
    np.testing.assert_array_equal(together, alone)
    for env in envs:
        env.close()


def test_infos_are_small() -> None:
    env = gym.make("MetaWorldML1-v0", horizon=4)
    env.reset(seed=0)
    for _ in range(8):
        info = env.step(env.action_space.sample())[-1]
        info.pop("task", None)
        assert len(pickle.dumps(info)) < 400
        assert all(type(value) in (bool, int, float, tuple) for value in info.values())
    env.close()


@pytest.mark.parametrize("name", MOVING)
def test_nothing_is_left_of_other_episodes_tasks_and_environments(name: str) -> None:
    """Bit for bit as in MetaWorld's environment when it is new."""
    envs = [gym.make("MetaWorldML1-v0", task_name=name).unwrapped for _ in range(2)]
    tasks = envs[0].split_tasks("train")[:3]
    expected = [trajectory(bare(task), 40, seed) for seed, task in enumerate(tasks)]
    for seeds in ((0, 1), (1, 2), (2, 2), (2, 0)):
        for env, seed in zip(envs, seeds, strict=True):
            env.set_task(tasks[seed])
        turns = zip(*(play_steps(env, 40, seed) for env, seed in zip(envs, seeds, strict=True)), strict=True)
        for seed, numbers in zip(seeds, [*turns][-1], strict=True):
            np.testing.assert_array_equal(numbers, expected[seed])
    assert envs[0]._simulation.model is envs[1]._simulation.model
    for env in envs:
        env.close()


def test_an_environment_holds_one_simulation() -> None:
    env = gym.make("MetaWorldML10-v0", horizon=2).unwrapped
    by_name = {task.name: task for task in env.split_tasks("train")}
    env.set_task(by_name["reach-v3"])
    env.reset()
    first = weakref.ref(env._simulation)
    env.set_task(by_name["push-v3"])
    env.step(np.zeros(4, dtype=np.float32))
    assert env._simulation is first()  # the episode continues unchanged
    env.reset()
    assert env._simulation.class_name == "push-v3" and first() is None
    env.close()
    env.close()
    assert env._simulation is None


@pytest.mark.filterwarnings("ignore:Constant.s. may be too high")  # of the scripted policies
@pytest.mark.parametrize("name", ["push-v3", "pick-place-v3", "soccer-v3"])
def test_contacts_are_found_as_metaworld_finds_them(name: str) -> None:
    """Fingers around the object, then near misses: the loop of MetaWorld and the vectorised test always agree."""
    env = gym.make("MetaWorldML1-v0", task_name=name).unwrapped
    simulation = new_simulation(name, "v2")
    simulation.set_goal(env.split_tasks("train")[0])
    observation, _ = simulation.reset()
    policy, rng = ENV_POLICY_MAP[name](), np.random.default_rng(0)
    seen, geom = set(), simulation._get_id_main_object()
    loop = metaworld.sawyer_xyz_env.SawyerXYZEnv.touching_object
    for _ in range(120):
        told = np.append(observation[:36], simulation._target_pos)  # the scripted policies read the goal
        action = np.clip(policy.get_action(told) + rng.normal(0, 0.1, 4), -1, 1)
        observation, *_ = simulation.step(action.astype(np.float32))
        for other in (geom, simulation.data.geom("leftpad_geom").id, 0):
            assert simulation.touching_object(other) is bool(loop(simulation, other))
        seen.add(simulation.touching_main_object)
    assert seen == ({True, False} if name != "soccer-v3" else {False} | seen)


@pytest.mark.parametrize("name", sorted(ALL_V3_ENVIRONMENTS))
def test_observations_of_all_classes_are_metaworlds(name: str) -> None:
    """Also after the objects have turned in any direction"""
    simulation, theirs, rng = new_simulation(name, "v2"), ALL_V3_ENVIRONMENTS[name](), np.random.default_rng(0)
    for _ in range(20):
        positions, velocities = theirs.init_qpos + rng.normal(size=len(theirs.init_qpos)), theirs.init_qvel
        for env in (simulation, theirs):
            env.set_state(positions, velocities)
        ours = simulation._get_curr_obs_combined_no_goal()
        np.testing.assert_array_equal(ours, theirs._get_curr_obs_combined_no_goal())


def test_pictures_are_the_right_way_up() -> None:
    # A point above another one must be higher in the picture
    code = (
        "import numpy as np, mujoco\n"
        "for name in ('corner', 'corner3'):\n"
        "    env = gym.make('MetaWorldML1-v0', render_mode='rgb_array', camera_name=name)\n"
        "    env.reset(seed=0)\n"
        "    frame = env.render()\n"
        "    assert frame.shape == (480, 480, 3) and frame.dtype == np.uint8 and frame.std() > 0, name\n"
        "    simulation = env.unwrapped._simulation\n"
        "    site = simulation.model.site('goal')\n"
        "    rows = []\n"
        "    for height in (0.1, 0.4):\n"
        "        site.pos, site.size, site.rgba = (0, 0.7, height), (0.05,) * 3, (1, 0, 1, 1)\n"
        "        mujoco.mj_forward(simulation.model, simulation.data)\n"
        "        picture = env.render().astype(int)\n"
        "        pink = (picture[..., 0] - picture[..., 1] > 80) & (picture[..., 2] - picture[..., 1] > 80)\n"
        "        rows.append(np.argwhere(pink)[:, 0].mean())\n"
        "    assert rows[1] < rows[0] - 20, (name, rows)\n"
        "    env.close()\n"
    )
    finish_rendering(code)


def test_without_metaworld_it_says_what_to_install() -> None:
    process = start_without_the_agent("sys.modules['metaworld'] = None\ngym.make('MetaWorldML1-v0')\n")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "DependencyNotInstalled" in errors and 'pip install "sb3_trmrl[metaworld]"' in errors


@pytest.mark.slow  # MetaWorld takes half a minute to make the list
def test_ml45_starts_at_once_and_45_environments_fit_in_2_gb(tmp_path: Path) -> None:
    make = "start = time.process_time(); gym.make('MetaWorldML45-v0'); print(time.process_time() - start)\n"
    fill = (
        "import numpy as np\n"
        "from stable_baselines3.common.env_util import make_vec_env\n"
        "env = make_vec_env('MetaWorldML45Train-v0', 45, env_kwargs=dict(horizon=2, episodes_per_trial=1), seed=0)\n"
        "env.reset()\n"
        "for _ in range(20): env.step(np.zeros((45, 4)))\n"  # ten tasks each
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)\n"
    )
    for code in (make, make + fill):
        process = start_without_the_agent("import time\n" + code, SB3_TRMRL_CACHE=str(tmp_path))
        output, _ = finish(process, timeout=500)
    seconds, gigabytes = map(float, output.split())
    assert seconds < 3 and gigabytes < 2


def test_the_paper_file_has_the_released_numbers() -> None:
    path = Path(sb3_trmrl.envs.__file__).parents[2] / "hyperparams" / "trmrl_paper.yml"
    released = {key: entry for key, entry in yaml.safe_load(path.read_text()).items() if key.startswith("MetaWorld")}
    assert set(released) == {"MetaWorldML1-v0", "MetaWorldML1Push-v0", "MetaWorldML45Train-v0"}
    for env_id, entry in released.items():
        kwargs = entry["policy_kwargs"]
        sizes = dict(n_layers=4, n_heads=4, d_model=32, dim_feedforward=128, context_length=5, log_std_init=0.0)
        assert {key: kwargs[key] for key in sizes} == sizes
        assert (entry["n_envs"], entry["n_steps"], entry["batch_size"], entry["n_epochs"]) == (25, 10 * 500, 32, 10)
        assert (entry["gamma"], entry["gae_lambda"], entry["clip_range"]) == (0.9, 0.95, 0.2)
        assert entry["learning_rate"] == entry["vf_learning_rate"] == 5e-5
        assert gym.spec(env_id).entry_point
