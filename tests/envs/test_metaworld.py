"""MetaWorld's families of tasks, against MetaWorld itself: tasks, trajectories, sharing, evaluation."""

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_trmrl.envs
from sb3_trmrl.__main__ import main
from sb3_trmrl.evaluation.metaworld_protocol import ProtocolResult, metaworld_protocol
from tests.helpers.zoo import train

metaworld = pytest.importorskip("metaworld")
# Without MetaWorld these could not be imported.
from metaworld.evaluation import metalearning_evaluation  # noqa: E402
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402

from sb3_trmrl.envs import metaworld_tasks  # noqa: E402
from sb3_trmrl.envs.metaworld import _INFO_KEYS, MetaWorldEnv, ML45TrainEnv, _observation_space  # noqa: E402
from sb3_trmrl.envs.metaworld_simulation import ALL_V3_ENVIRONMENTS, new_simulation  # noqa: E402
from sb3_trmrl.envs.metaworld_tasks import MetaWorldTask, TaskLists, class_names, task_lists  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_goals")
N_GOALS = 20  # of few_goals
CLASSES = {"ML1": (1, 1), "ML10": (10, 5), "ML45": (45, 5)}


@pytest.fixture
def invented(monkeypatch, tmp_path):
    """Lists with MetaWorld's classes and made-up numbers, at once; in an empty folder, which it returns."""

    def make(benchmark, seed, task_name):
        rng = np.random.default_rng(seed)
        by_split = getattr(metaworld.env_dict, f"{benchmark}_V3")

        def invent(name):
            return MetaWorldTask(name, tuple(rng.uniform(size=3 + 3 * (name < "m")).tolist()))

        classes = [[task_name] if task_name else list(by_split[split]) for split in ("train", "test")]
        return TaskLists(*(tuple(invent(name) for name in names for _ in range(50)) for names in classes))

    monkeypatch.setattr(metaworld_tasks, "_make", make)
    monkeypatch.setenv("SB3_TRMRL_CACHE", str(tmp_path))
    task_lists.cache_clear()
    yield tmp_path
    task_lists.cache_clear()


def rand_vecs(tasks):
    return [(task.env_name, tuple(pickle.loads(task.data)["rand_vec"])) for task in tasks]


def bare(task, version="v2"):
    """MetaWorld's own environment with this task, new."""
    env = ALL_V3_ENVIRONMENTS[task.name](reward_function_version=version)
    data = {"rand_vec": np.array(task.rand_vec), "env_cls": type(env), "partially_observable": True}
    env.set_task(metaworld.Task(task.name, pickle.dumps(data)))
    return env


def trajectory(env, n_steps, seed):
    """Observations, rewards and MetaWorld's measures of random actions after a reset."""
    rng = np.random.default_rng(seed)
    numbers = [env.reset()[0]]
    for action in rng.uniform(-1, 1, size=(n_steps, 4)).astype(np.float32):
        observation, reward, _, _, info = env.step(action)
        numbers += [observation, reward, *(float(info[key]) for key in ("success", "obj_to_target", "grasp_success"))]
    return np.hstack(numbers)


# --- lists of tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark, task_name, seed", [("ML1", "push-v3", 3), ("ML10", None, 0)])
def test_lists_are_metaworlds_own(benchmark, task_name, seed):
    theirs = getattr(metaworld, benchmark)(*([task_name] if task_name else []), seed=seed)
    made = task_lists(benchmark, seed, task_name)
    assert list(made.train) == rand_vecs(theirs.train_tasks)
    assert list(made.test) == rand_vecs(theirs.test_tasks)
    task_lists.cache_clear()
    assert task_lists(benchmark, seed, task_name) == made  # from the disk
    # Nothing else differs between tasks, so nothing is lost.
    for task in theirs.train_tasks:
        data = pickle.loads(task.data)
        assert data.keys() == {"rand_vec", "env_cls", "partially_observable"}
        assert data["env_cls"] is ALL_V3_ENVIRONMENTS[task.env_name] and data["partially_observable"]


def test_making_lists_leaves_numpys_generator_alone():
    before = np.random.get_state()[1].copy()
    task_lists("ML1", 5, "reach-v3")
    assert (np.random.get_state()[1] == before).all()


def test_damaged_files_are_made_again(invented, monkeypatch):
    good = task_lists("ML1", 4, "reach-v3")
    (path,) = (invented / "metaworld").iterdir()
    text = path.read_text()
    content = json.loads(text)
    one_number_off = copy.deepcopy(content)
    one_number_off["tasks"]["train"][7][1][0] += 1e-9
    of_another = {**content, "key": "x"}
    damaged = ["", text[: len(text) // 2], "[]", "{}", json.dumps(one_number_off), json.dumps(of_another)]
    for some_bytes in (*(each.encode() for each in damaged), b"\xff\xfe"):
        path.write_bytes(some_bytes)
        task_lists.cache_clear()
        with pytest.warns(UserWarning, match="damaged"):
            assert task_lists("ML1", 4, "reach-v3") == good
        assert json.loads(path.read_text()) == content
    # Another version of MetaWorld makes its own file.
    monkeypatch.setattr(metaworld_tasks, "version", lambda _: "9.9.9")
    task_lists.cache_clear()
    task_lists("ML1", 4, "reach-v3")
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        path.name.replace(version("metaworld"), "9.9.9"),
    }


def test_without_a_place_to_write_it_works_and_says_so(invented, monkeypatch):
    (invented / "file").write_text("")
    monkeypatch.setenv("SB3_TRMRL_CACHE", str(invented / "file"))
    with pytest.warns(UserWarning, match="SB3_TRMRL_CACHE"):
        assert len(task_lists("ML1", 0, "reach-v3").train) == 50


def test_the_folder_is_the_users_cache(monkeypatch):
    assert metaworld_tasks.cache_folder() == Path(os.environ["SB3_TRMRL_CACHE"])
    monkeypatch.delenv("SB3_TRMRL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert metaworld_tasks.cache_folder() == Path("/somewhere/sb3_trmrl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    for platform, folder in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(sys, "platform", platform)
        assert metaworld_tasks.cache_folder() == Path.home() / folder / "sb3_trmrl"


def test_processes_that_start_at_once_get_the_same_lists(tmp_path):
    code = (
        "from sb3_trmrl.envs.metaworld_tasks import task_lists\n"
        "import hashlib\n"
        "print(hashlib.sha256(repr(task_lists('ML1', 9, 'reach-v3')).encode()).hexdigest())\n"
    )
    environment = {"SB3_TRMRL_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    processes = [start_without_the_agent(code, **environment) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    (file,) = (tmp_path / "metaworld").iterdir()  # and no temporary ones
    assert file.suffix == ".json"


# --- splits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", CLASSES)
def test_splits_have_nothing_in_common(benchmark, invented):
    n_train, n_test = CLASSES[benchmark]
    env = MetaWorldEnv(benchmark, task_name="push-v3" if benchmark == "ML1" else None)
    of = {split: env.split_tasks(split) for split in ("train", "validation", "test")}
    assert len({*of["train"], *of["validation"], *of["test"]}) == sum(map(len, of.values()))
    assert [len(class_names(tasks)) for tasks in of.values()] == [n_train, n_train, n_test]
    assert {task.name for task in of["validation"]} == {task.name for task in of["train"]}
    if benchmark != "ML1":
        assert not {task.name for task in of["test"]} & {task.name for task in of["train"]}
    drawn = env.draw_tasks(500, np.random.default_rng(0))
    assert set(drawn) <= set(of["train"])
    for split in ("validation", "test"):
        assert env.held_out_tasks(split, 20) == env.held_out_tasks(split) == env.held_out_tasks(split, 40)[:20]
        n_classes = len(class_names(of[split]))
        some = env.held_out_tasks(split, 2 * n_classes)
        assert len(set(some)) == 2 * n_classes
        assert [sum(task.name == name for task in some) for name in class_names(of[split])] == [2] * n_classes
        assert set(env.held_out_tasks(split, len(of[split]))) == set(of[split])
        with pytest.raises(ValueError, match=f"`n` must be at most {len(of[split])}"):
            env.held_out_tasks(split, len(of[split]) + 1)
    assert env.holds_tasks_out


def test_the_real_validation_goals_of_ml1_are_new():
    env = gym.make("MetaWorldML1-v0", benchmark_seed=3).unwrapped
    of = {split: env.split_tasks(split) for split in ("train", "validation", "test")}
    assert all(len(tasks) == N_GOALS for tasks in of.values())
    assert len({*of["train"], *of["validation"], *of["test"]}) == 3 * N_GOALS
    # The trap: one seed further, what was for tests is for training.
    assert gym.make("MetaWorldML1-v0", benchmark_seed=4).unwrapped.split_tasks("train") == of["test"]


def test_ml45_train_is_evaluated_on_its_training_tasks(invented):
    env = ML45TrainEnv("ML45")
    train, validation, test = (set(env.split_tasks(split)) for split in ("train", "validation", "test"))
    assert validation | test == train and not validation & test and len(validation) == len(test)
    assert not env.holds_tasks_out
    assert len({task.name for task in env.held_out_tasks("test", 45)}) == 45
    assert gym.make("MetaWorldML45Train-v0").unwrapped.holds_tasks_out is False
    for split in ("validation", "test"):
        in_turn = gym.make("MetaWorldML45Train-v0", split=split).get_wrapper_attr("tasks")
        assert len(in_turn) == 45 == len({task.name for task in in_turn})
        assert len(gym.make("MetaWorldML45-v0", split=split).get_wrapper_attr("tasks")) == 20


class Nothing:
    """In the place of a simulation, where only tasks matter."""

    def __init__(self, class_name, *_):
        self.class_name = class_name
        space = _observation_space()
        self.observation = np.clip(np.zeros(39), space.low, space.high)

    def set_goal(self, task):
        assert task.name == self.class_name

    def reset(self):
        return self.observation.copy(), {}

    def step(self, action):
        return self.observation.copy(), 0.0, False, False, dict.fromkeys(_INFO_KEYS, 0.0)


@pytest.mark.parametrize("arguments", [[], ["--n-eval-envs", "4"]], ids=["default", "fewer copies"])
def test_the_zoo_evaluates_ml45_train_once_on_each_class(arguments, invented, monkeypatch, capsys):
    """In validation during training, and in the report."""
    monkeypatch.setattr("sb3_trmrl.envs.metaworld.new_simulation", Nothing)
    env_id = "MetaWorldML45Train-v0"
    options = ["--env-kwargs", "horizon:1", "episodes_per_trial:2", "-n", "40", "--eval-freq", "20", *arguments]
    run = train(invented, "--algo", "ppo", *options, env=env_id)
    names = set(metaworld.env_dict.ML45_V3["train"])
    with np.load(run / "adaptation.npz") as history:
        visited = [text.split("'")[1] for text in history["task_names"]]
        assert history["returns"].shape == (2, 45, 2)  # two evaluations
        assert all(sorted(each) == list(range(45)) for each in history["tasks"])
    assert set(visited) == names and len(visited) == len(names) == 45

    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert "Returns on 45 test tasks" in capsys.readouterr().out
    (returns,) = json.loads((run / "report.json").read_text())["returns"].values()
    assert len(returns["first episode"]["each"]) == 45


def test_an_oracle_is_told_class_and_numbers(invented):
    env = MetaWorldEnv("ML10")
    longest = max(len(task.rand_vec) for task in env.split_tasks("train"))
    for task in (*env.split_tasks("train")[::50], *env.split_tasks("test")[::50]):
        features = env.task_features(task)
        assert features.shape == (15 + longest,) and features.dtype == np.float32
        assert features[:15].sum() == 1.0
        np.testing.assert_array_equal(features[15 : 15 + len(task.rand_vec)], np.float32(task.rand_vec))
        assert not features[15 + len(task.rand_vec) :].any()
    assert gym.make("MetaWorldML10-v0", reveal_task=True).observation_space["task"].shape == (15 + longest,)


def test_tasks_are_small_values():
    env = gym.make("MetaWorldML1-v0")
    task = env.reset(seed=0)[1]["task"]
    assert copy.deepcopy(task) is task and len(pickle.dumps(task)) < 300
    again = pickle.loads(pickle.dumps(task))
    assert again == task and hash(again) == hash(task) and task == (task.name, task.rand_vec)
    env.reset(options={"task": ("reach-v3", list(task.rand_vec))})
    assert env.unwrapped.get_task() == task
    env.close()


@pytest.mark.parametrize(
    "task, error",
    [
        ("fast", TypeError),
        (None, TypeError),
        (("reach-v3", "abc"), TypeError),
        (("reach-v3", 1.0), TypeError),
        # MetaWorld would look for a goal farther from the object for ever.
        (("reach-v3", (0.0, 0.6, 0.02, 0.0, 0.6, 0.1)), ValueError),
        (("push-v3", (0.0, 0.6, 0.02, 0.0, 0.9, 0.1)), ValueError),
    ],
)
def test_a_task_of_the_wrong_type_or_value(task, error):
    env = gym.make("MetaWorldML1-v0")
    with pytest.raises(error, match="task"):
        env.reset(options={"task": task})


# --- what happens in an episode -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", ["reach-v3", "push-v3", "door-open-v3"])
def test_an_episode_is_metaworlds(name, version):
    env = gym.make("MetaWorldML1-v0", task_name=name, reward_function_version=version, episodes_per_trial=1).unwrapped
    task = env.split_tasks("test")[7]
    env.set_task(task)
    np.testing.assert_array_equal(trajectory(env, 60, 0), trajectory(bare(task, version), 60, 0))
    env.close()


def test_goals_are_hidden_and_spaces_are_metaworlds():
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


def test_trials_successes_and_ends():
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


def test_seeds_choose_the_tasks():
    envs = [gym.make("MetaWorldML1-v0", horizon=3) for _ in range(2)]
    tasks = [[env.reset(seed=seed if i == 0 else None)[1]["task"] for i in range(8)] for env in envs for seed in (0, 1)]
    assert tasks[0] == tasks[2] and tasks[1] == tasks[3] and tasks[0] != tasks[1]
    assert len(set(tasks[0])) > 4
    for env in envs:
        env.close()


@pytest.mark.parametrize("env_id", ["MetaWorldML1-v0", "MetaWorldML1Push-v0", "MetaWorldML10-v0"])
def test_checkers_specs_and_copies(env_id):
    unavoidable = ("minimum value is -infinity", "maximum value is infinity", "different from the unwrapped version")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gymnasium_check_env(gym.make(env_id, disable_env_checker=True), skip_render_check=True)
        sb3_check_env(gym.make(env_id))
    assert [str(w.message) for w in caught if not any(words in str(w.message) for words in unavoidable)] == []
    env = gym.make(env_id, split="test", reward_function_version="v1", benchmark_seed=0)
    env.reset(seed=0)
    again = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert again.spec.kwargs == dict(split="test", reward_function_version="v1", benchmark_seed=0)
    assert again.reset()[1]["task"] == env.reset(seed=0)[1]["task"]
    for copied in (pickle.loads(pickle.dumps(env.unwrapped)), copy.deepcopy(env.unwrapped)):
        assert copied._simulation is None and copied.reward_function_version == "v1"
        copied.reset()
        copied.close()
    env.close()


def test_infos_are_small():
    env = gym.make("MetaWorldML1-v0", horizon=4)
    env.reset(seed=0)
    for _ in range(8):
        info = env.step(env.action_space.sample())[-1]
        info.pop("task", None)
        assert len(pickle.dumps(info)) < 400
        assert all(type(value) in (bool, int, float, tuple) for value in info.values())
    env.close()


# --- simulations share models -------------------------------------------------------------------------------------

# Some that move parts of the model at a reset, and some that do not
MOVING = ["basketball-v3", "box-close-v3", "drawer-close-v3", "pick-place-v3"]


@pytest.mark.parametrize("name", MOVING)
def test_nothing_is_left_of_other_episodes_tasks_and_environments(name):
    """Bit for bit as in MetaWorld's environment when it is new."""
    envs = [gym.make("MetaWorldML1-v0", task_name=name).unwrapped for _ in range(2)]
    tasks = envs[0].split_tasks("train")[:3]
    expected = [trajectory(bare(task), 40, seed) for seed, task in enumerate(tasks)]

    def steps(env, seed):
        """The trajectory, step by step"""
        env.set_task(tasks[seed])
        rng = np.random.default_rng(seed)
        numbers = [env.reset()[0]]
        for action in rng.uniform(-1, 1, size=(40, 4)).astype(np.float32):
            yield None
            observation, reward, _, _, info = env.step(action)
            numbers += [observation, reward, *(info[key] for key in ("success", "obj_to_target", "grasp_success"))]
        yield np.hstack(numbers)

    for seeds in ((0, 1), (1, 2), (2, 2), (2, 0)):
        # Turn by turn
        for seed, numbers in zip(seeds, list(zip(*map(steps, envs, seeds), strict=True))[-1], strict=True):
            np.testing.assert_array_equal(numbers, expected[seed])
    assert envs[0]._simulation.model is envs[1]._simulation.model
    for env in envs:
        env.close()


def test_an_environment_holds_one_simulation():
    env = gym.make("MetaWorldML10-v0", horizon=2).unwrapped
    by_name = {task.name: task for task in env.split_tasks("train")}
    env.set_task(by_name["reach-v3"])
    env.reset()
    first = weakref.ref(env._simulation)
    env.set_task(by_name["push-v3"])
    env.step(np.zeros(4, dtype=np.float32))
    assert env._simulation is first()  # the episode goes on as it was
    env.reset()
    assert env._simulation.class_name == "push-v3" and first() is None
    env.close()
    env.close()
    assert env._simulation is None


@pytest.mark.parametrize("name", ["push-v3", "pick-place-v3", "soccer-v3"])
def test_contacts_are_found_as_metaworld_finds_them(name):
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


# --- pictures -----------------------------------------------------------------------------------------------------


def test_pictures_are_the_right_way_up():
    # In a process of its own: MuJoCo reads MUJOCO_GL once. The gripper hangs above the table: a point above it must be
    # higher in the picture.
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
    process = start_without_the_agent(code, MUJOCO_GL="egl")
    _, errors = process.communicate(timeout=120)
    if process.returncode != 0 and "EGL" in errors:
        pytest.skip("no EGL on this machine")
    assert process.returncode == 0, errors


# --- resources ----------------------------------------------------------------------------------------------------


def start_without_the_agent(code, **environment):
    """Run Python code in a new process where ``import sb3_trmrl.envs`` does not import the agent."""
    start = (
        "import sys, types\n"
        "package = types.ModuleType('sb3_trmrl'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['sb3_trmrl'] = package\n"
        "import gymnasium as gym, sb3_trmrl.envs\n"
    )
    command = [sys.executable, "-c", start + code, str(Path(sb3_trmrl.envs.__file__).parents[1])]
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_without_metaworld_it_says_what_to_install():
    code = "sys.modules['metaworld'] = None\ngym.make('MetaWorldML1-v0')\n"
    process = start_without_the_agent(code)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "DependencyNotInstalled" in errors and 'pip install "sb3_trmrl[metaworld]"' in errors


@pytest.mark.slow  # MetaWorld takes half a minute to make the list
def test_ml45_starts_at_once_and_45_environments_fit_in_2_gb(tmp_path):
    make = "start = time.time(); gym.make('MetaWorldML45-v0'); print(time.time() - start)\n"
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
        output, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    seconds, gigabytes = map(float, output.split())
    assert seconds < 3 and gigabytes < 2


# --- MetaWorld's protocol -----------------------------------------------------------------------------------------

# Ten places to try, among the goals of reach-v3, which fill (-0.1, 0.1) x (0.8, 0.9) x (0.05, 0.3)
PLACES = np.array([(x, 0.85, z) for x in (-0.05, 0.05) for z in (0.08, 0.13, 0.18, 0.23, 0.28)])


class Explorer:
    """
    Learns without seeing a goal: goes to another place in each of ten episodes, then always to the one with the highest
    reward at the end of its episode.
    """

    def __init__(self) -> None:
        self.paid = np.full(len(PLACES), -np.inf)
        self.episode = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        place = PLACES[self.episode] if self.episode < len(PLACES) else PLACES[self.paid.argmax()]
        return np.append(np.clip(15 * (place - observation[:3]), -1, 1), 0.0).astype(np.float32)

    def learn(self, reward: float, ended: bool) -> None:
        if self.episode < len(PLACES):
            self.paid[self.episode] = reward
        self.episode += ended


class SB3Explorer:
    """The same as a model of SB3."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        n = len(episode_start)
        state = [None] * n if state is None else list(state)
        actions = np.zeros((n, 4), dtype=np.float32)
        for i in range(n):
            if episode_start[i]:
                state[i] = Explorer()
            else:
                state[i].learn(observation["prev_reward"][i, 0], observation["prev_done"][i, 0] == 1)
            actions[i] = state[i].act(observation["observation"][i])
        return actions, tuple(state)


class MetaWorldExplorer:
    """The same as an agent of ``metaworld.evaluation``."""

    def init(self) -> None:
        self.explorers: dict[int, Explorer] = {}

    def adapt_action(self, observations: Any) -> Any:
        return self.eval_action(observations), {}

    def eval_action(self, observations: Any) -> Any:
        return np.array([self.explorers.setdefault(i, Explorer()).act(row) for i, row in enumerate(observations)])

    def step(self, timestep: Any) -> None:
        for i, (reward, ended) in enumerate(zip(timestep.reward, timestep.truncated, strict=True)):
            self.explorers[i].learn(np.float32(reward), bool(ended))

    def adapt(self) -> None:
        assert all(explorer.episode == 10 for explorer in self.explorers.values())

    def reset(self, env_mask: Any) -> None:
        pass


def test_the_protocol_equals_metaworlds_own():
    n_goals, horizon = 5, 50
    envs = metaworld.make_ml_envs(
        "reach-v3",
        seed=0,
        meta_batch_size=1,
        total_tasks_per_cls=n_goals,
        split="test",
        task_select="pseudorandom",
        max_episode_steps=horizon,
    )
    # Its goals are shuffled, and each is visited once
    success, mean_return, per_class = metalearning_evaluation(MetaWorldExplorer(), envs, num_evals=n_goals)
    envs.close()
    assert 0 < success < 1  # or the comparison would say little
    result = metaworld_protocol(
        SB3Explorer(), "MetaWorldML1-v0", n_goals=n_goals, env_kwargs={"horizon": horizon}, n_envs=4
    )
    assert result.adaptation.rewards.shape == (n_goals, 13, horizon)
    assert result.mean_success == pytest.approx(success) and result.success_per_class == pytest.approx(per_class)
    assert result.mean_return == pytest.approx(mean_return, rel=1e-5)
    # Not the mean over all episodes: it has adapted
    assert result.mean_success > result.adaptation.successes[:, :10].mean()


def test_classes_count_alike():
    class Still:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any:
            return np.zeros((len(episode_start), 4), dtype=np.float32), None

    options = dict(n_goals=2, n_adaptation_episodes=1, n_evaluation_episodes=1, env_kwargs={"horizon": 2})
    result = metaworld_protocol(Still(), "MetaWorldML10-v0", **options)
    assert set(result.success_per_class) == {
        task.name for task in gym.make("MetaWorldML10-v0").unwrapped.split_tasks("test")
    }
    assert len(result.adaptation.tasks) == 10 and result.adaptation.held_out
    # By hand
    successes = result.adaptation.successes.copy()
    successes[:, -1] = [task.name == "door-close-v3" and i % 2 for i, task in enumerate(result.adaptation.tasks)]
    changed = ProtocolResult(
        type(result.adaptation)(**{**vars(result.adaptation), "successes": successes}), n_evaluated=1
    )
    hits = sum(successes[:, -1])
    assert changed.success_per_class["door-close-v3"] == hits / 2
    assert changed.mean_success == pytest.approx(hits / 2 / 5)


# --- hyperparameters ----------------------------------------------------------------------------------------------


def test_the_paper_file_has_the_released_numbers():
    th = pytest.importorskip("torch")
    path = Path(sb3_trmrl.envs.__file__).parents[2] / "hyperparams" / "trmrl_paper.yml"
    released = {key: entry for key, entry in yaml.safe_load(path.read_text()).items() if key.startswith("MetaWorld")}
    assert set(released) == {"MetaWorldML1-v0", "MetaWorldML1Push-v0", "MetaWorldML45Train-v0"}
    for env_id, entry in released.items():
        kwargs = eval(entry["policy_kwargs"], {"th": th})
        sizes = dict(n_layers=4, n_heads=4, d_model=32, dim_feedforward=128, context_length=5, log_std_init=0.0)
        assert {key: kwargs[key] for key in sizes} == sizes
        assert (entry["n_envs"], entry["n_steps"], entry["batch_size"], entry["n_epochs"]) == (25, 10 * 500, 32, 10)
        assert (entry["gamma"], entry["gae_lambda"], entry["clip_range"]) == (0.9, 0.95, 0.2)
        assert entry["learning_rate"] == entry["vf_learning_rate"] == 5e-5
        assert gym.spec(env_id).entry_point
