"""rl-zoo3 with our hyperparameters, environments and schedules, in runs of a few dozen steps."""

import argparse
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

import sb3_trmrl
from sb3_trmrl.__main__ import main
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS, evaluation_seed, has_splits
from sb3_trmrl.zoo.experiment import TrMRLExperimentManager
from sb3_trmrl.zoo.hyperparams_files import find_config, hyperparams_folder
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.schedules import ExponentialSchedule, schedule_from_string
from tests.helpers.zoo import ENV, TINY, error_of, train

pytestmark = pytest.mark.usefixtures("one_thread")
OUR_ENVS = ["HalfCheetahVel-v0", "HalfCheetahDir-v0", "AntDir-v0", ENV, "TabularMDP-v0"]
SMALL: dict[str, Any] = dict(n_envs=2, n_steps=20, batch_size=20)


def make_manager(folder: Path, algo: str, env_id: str, **kwargs: Any) -> TrMRLExperimentManager:
    register()
    env_kwargs = kwargs.pop("env_kwargs", None)
    defaults = dict(hyperparams=dict(SMALL), n_timesteps=40, eval_freq=20, log_interval=-1)
    args = argparse.Namespace(env_kwargs=env_kwargs, algo=algo, env=env_id, seed=0)
    return TrMRLExperimentManager(args, algo, env_id, str(folder), env_kwargs=env_kwargs, **{**defaults, **kwargs})


def set_up(folder: Path, algo: str, env_id: str, **kwargs: Any) -> tuple[TrMRLExperimentManager, Any, Any, Any]:
    """Return the manager, the saved hyperparameters, the model and the environment for evaluation."""
    manager = make_manager(folder, algo, env_id, **kwargs)
    model, saved = manager.setup_experiment()  # type: ignore[misc]
    (callback,) = [callback for callback in manager.callbacks if isinstance(callback, EvalCallback)]
    return manager, saved, model, callback.eval_env


# Schedules


def test_exponential_schedule_is_the_released_decay_by_update() -> None:
    n_updates, first, last = 2500, 100, 750
    schedule = ExponentialSchedule(3e-5, 0.1, first / n_updates, last / n_updates)
    rate = 3e-5
    for update in range(n_updates):
        if first <= update - 1 < last:
            rate *= 0.1 ** (1 / (last - first))
        assert schedule(1 - update / n_updates) == pytest.approx(rate, rel=1e-9)
    assert rate == pytest.approx(3e-6)


def test_schedule_strings() -> None:
    halfway = {"3e-4": 3e-4, "lin_3e-4": 1.5e-4, "exp_3e-4_0.01": 3e-5, "exp_3e-4_0.01_0.5": 3e-4}
    halfway["exp_1_0.1_0_0.5"] = 0.1
    for text, value in halfway.items():
        schedule = schedule_from_string(text)
        assert schedule(0.5) == pytest.approx(value)
        assert pickle.loads(pickle.dumps(schedule))(0.5) == schedule(0.5)
    schedule = schedule_from_string("exp_3e-5_0.1_0.13_1.0")
    assert eval(repr(schedule))(0.3) == schedule(0.3)


# Folders


def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    managers = [make_manager(tmp_path, "trmrl", ENV) for _ in range(3)]
    assert len({manager.save_path for manager in managers}) == 1
    for manager in managers:
        manager.create_log_folder()
    folders = [tmp_path / "trmrl" / f"BernoulliBandit-v0_{number}" for number in (1, 2, 3)]
    assert [Path(manager.save_path) for manager in managers] == folders
    assert all(Path(manager.params_path) == folder / ENV for manager, folder in zip(managers, folders, strict=True))
    assert all(Path(manager.params_path).is_dir() for manager in managers)


# Which hyperparameters


def test_our_file_is_used_where_it_has_the_environment_or_a_default(tmp_path: Path, monkeypatch: Any) -> None:
    ours = hyperparams_folder()
    assert find_config("trmrl", "HalfCheetahVel-v0", None) == str(ours / "trmrl.yml")
    assert find_config("trmrl", "CartPole-v1", None) == str(ours / "trmrl.yml")
    assert find_config("ppo", "AntDir-v0", None) == str(ours / "ppo.yml")
    assert find_config("ppo", "CartPole-v1", None) is None  # tuned by rl-zoo3
    assert find_config("ppo", "MyEnv-v0", None) == str(ours / "ppo.yml")
    assert find_config("ppo_lstm", "CartPoleNoVel-v1", None) is None
    assert find_config("ppo_lstm", "MyEnv-v0", None) == str(ours / "ppo_lstm.yml")
    assert find_config("sac", "AntDir-v0", None) is None
    monkeypatch.chdir(tmp_path)
    assert find_config("trmrl", "AntDir-v0", "hyperparams/trmrl_paper.yml") == str(ours / "trmrl_paper.yml")
    assert find_config("trmrl", "AntDir-v0", "some.package") == "some.package"
    (tmp_path / "trmrl.yml").write_text("{}")
    assert find_config("trmrl", "AntDir-v0", "trmrl.yml") == "trmrl.yml"


def test_atari_games_keep_the_entry_of_rl_zoo3(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gym.envs.registration.EnvSpec("MyGame-v0", entry_point="ale_py.env:AtariEnv")
    assert find_config("ppo", "MyGame-v0", None) is not None
    monkeypatch.setitem(gym.registry, "MyGame-v0", spec)
    assert find_config("ppo", "MyGame-v0", None) is None


def test_defaults_of_the_baselines_train_as_long_as_that_of_trmrl() -> None:
    names = ("n_timesteps", "normalize", "n_envs", "n_steps", "gamma")
    compared = []
    for algo in ("trmrl", "ppo", "ppo_lstm"):
        entry = yaml.safe_load((hyperparams_folder() / f"{algo}.yml").read_text())["default"]
        compared.append({name: entry[name] for name in names})
    assert compared[0] == compared[1] == compared[2]


def _entries() -> list[tuple[str, str]]:
    tested_elsewhere = {"maml_trpo", "pearl", "trmrl_sac"}
    files = sorted(path for path in hyperparams_folder().glob("*.yml") if path.stem not in tested_elsewhere)
    return [(path.name, env_id) for path in files for env_id in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize(("file", "entry"), _entries())
def test_every_entry_trains(file: str, entry: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if entry.startswith("MetaWorld"):
        request.getfixturevalue("few_goals")
    algo = file.removesuffix(".yml").removesuffix("_paper")
    manager = make_manager(
        tmp_path,
        algo,
        entry if entry != "default" else ENV if algo == "varibad" else "CartPole-v1",
        config=str(hyperparams_folder() / file),
        hyperparams=dict(SMALL, n_epochs=1),
        eval_freq=-1,
    )
    model, saved = manager.setup_experiment()  # type: ignore[misc]
    written = yaml.safe_load((hyperparams_folder() / file).read_text())[entry]
    for name in ("gamma", "gae_lambda", "ent_coef", "normalize_advantage", "max_grad_norm"):
        if name in written:
            assert getattr(model, name) == written[name]
    assert {key: value for key, value in saved.items() if not key.startswith(("n_", "batch"))} == {
        key: value for key, value in written.items() if not key.startswith(("n_", "batch"))
    }
    expected = written.get("policy_kwargs") or {}
    if isinstance(expected, dict):
        classes = {"nn.ReLU": nn.ReLU, "th.optim.AdamW": th.optim.AdamW}
        expected = {
            key: classes.get(value, value) if isinstance(value, str) else value for key, value in expected.items()
        }
        assert model.policy_kwargs.items() >= expected.items()
    manager.learn(model)
    assert model.num_timesteps == 40


def test_the_paper_file_has_the_released_numbers() -> None:
    register()
    released = yaml.safe_load((hyperparams_folder() / "trmrl_paper.yml").read_text())
    for env_id, entry in released.items():
        if env_id.startswith("MetaWorld"):
            continue  # see test_metaworld.py
        kwargs = entry["policy_kwargs"]
        sizes = dict(n_layers=4, n_heads=16, d_model=128, dim_feedforward=512, context_length=5)
        assert kwargs.items() >= sizes.items()
        assert np.exp(kwargs["log_std_init"]) == pytest.approx(0.2 if env_id == "HalfCheetahVel-v0" else 0.5, rel=1e-3)
        assert entry["n_envs"] * entry["n_steps"] == 20 * 2 * 200
        n_updates = entry["n_timesteps"] / 8000
        first, last, factor = {
            "HalfCheetahVel-v0": (100, 750, 0.1),
            "HalfCheetahDir-v0": (100, 3700, 1e-4),
            "AntDir-v0": (500, 3500, 1e-4),
        }[env_id]
        rate = schedule_from_string(entry["learning_rate"])
        halfway = (first + last) / 2, factor**0.5
        for update, value in ((0, 1), (first, 1), halfway, (last, factor), (n_updates, factor)):
            assert rate(1 - update / n_updates) == pytest.approx(3e-5 * value, rel=1e-6)


def test_vf_learning_rate_strings_reach_the_optimiser(tmp_path: Path) -> None:
    rates = ["learning_rate:'exp_1e-3_0.01'", "vf_learning_rate:'lin_2e-3'"]
    run = train(tmp_path, "-n", "80", "--eval-freq", "-1", params=[*TINY, *rates])
    model = TransformerPPO.load(run / "BernoulliBandit-v0.zip")
    # The second update began after all steps were collected, with a remaining progress of 0
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == pytest.approx([1e-5, 0.0])
    assert model.vf_lr_schedule(0.5) == pytest.approx(1e-3)  # type: ignore[misc]


# Environments for evaluation


@pytest.mark.parametrize("n_eval_envs", [1, 3, 20, 25])
def test_every_validation_task_is_visited_once(n_eval_envs: int, tmp_path: Path) -> None:
    *_, model, env = set_up(tmp_path, "trmrl", ENV, n_eval_envs=n_eval_envs, n_eval_episodes=20)
    expected = gym.make(ENV, split="validation").get_wrapper_attr("tasks")
    for _ in range(2):
        visited: list[Any] = []

        def note(locals_: dict[str, Any], _: dict[str, Any], visited: list[Any] = visited) -> None:
            i = locals_["i"]
            if locals_["done"] and locals_["episode_counts"][i] < locals_["episode_count_targets"][i]:
                visited.append(locals_["info"]["task"])

        evaluate_policy(model, env, n_eval_episodes=N_HELD_OUT_TASKS, callback=note)
        assert sorted(visited) == sorted(expected)
    env.close()


def test_twenty_episodes_are_evaluated_at_once_without_held_out_tasks(tmp_path: Path) -> None:
    for given, n_episodes in ((0, N_HELD_OUT_TASKS), (3, 3), (50, 50)):
        manager, *_, env = set_up(tmp_path, "trmrl", "CartPole-v1", n_eval_episodes=given, n_eval_envs=0)
        (callback,) = [each for each in manager.callbacks if isinstance(each, EvalCallback)]
        assert callback.n_eval_episodes == n_episodes and env.num_envs == min(n_episodes, N_HELD_OUT_TASKS)


def test_env_kwargs_are_merged_and_reach_evaluation_and_args(tmp_path: Path) -> None:
    hyperparams = dict(SMALL, env_kwargs=dict(n_arms=3, n_pulls=4))
    manager, saved, model, env = set_up(tmp_path, "ppo", ENV, hyperparams=hyperparams, env_kwargs=dict(n_pulls=6))
    assert saved["env_kwargs"] == manager.args.env_kwargs == dict(n_arms=3, n_pulls=6)
    for vec_env in (model.env, env):
        assert vec_env.action_space.n == 3
        assert vec_env.get_attr("n_pulls")[0] == 6
    assert env.get_attr("tasks")[0] is not None and model.env.get_attr("tasks") == [None, None]
    env.close()

    *_, env = set_up(tmp_path, "ppo", ENV, eval_env_kwargs=dict(split="test", n_arms=2))
    expected = gym.make(ENV, split="test", n_arms=2).get_wrapper_attr("tasks")
    assert env.get_attr("tasks")[0] == expected
    env.close()


def test_evaluation_has_a_seed_of_its_own(tmp_path: Path) -> None:
    training = {seed + copy for seed in (0, 1, 2, 2**32 - 2) for copy in range(20)}
    first = [evaluation_seed(seed, purpose) for seed in (0, 1, 2, 2**32 - 2) for purpose in ("validation", "test")]
    evaluation = {seed + copy for seed in first for copy in range(20)}
    assert len(evaluation) == 20 * len(first)
    assert not training & evaluation

    manager, _, model, env = set_up(tmp_path, "trmrl", "CartPole-v1")
    assert not np.allclose(env.reset()[0], model.env.reset()[0])
    assert manager.seed == 0
    env.close()


def test_which_environments_have_splits() -> None:
    assert all(has_splits(env_id) for env_id in OUR_ENVS)
    assert not any(has_splits(env_id) for env_id in ("CartPole-v1", "CartPoleNoVel-v1", "HalfCheetah-v5"))
    # As in gym.make, the id may include a module to import
    assert has_splits("sb3_trmrl:HalfCheetahVel-v0") and not has_splits("gymnasium:CartPole-v1")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        has_splits("no_such_module:HalfCheetahVel-v0")
    with pytest.raises(gym.error.NameNotFound):
        has_splits("sb3_trmrl:NoSuchEnv-v0")


# Stock algorithms


@pytest.mark.parametrize(
    ("algo", "env_id", "policy"),
    [
        ("ppo", "HalfCheetahVel-v0", "MultiInputPolicy"),
        ("ppo_lstm", "TabularMDP-v0", "MultiInputLstmPolicy"),
        ("sac", "HalfCheetahDir-v0", "MultiInputPolicy"),
        ("dqn", ENV, "MultiInputPolicy"),
    ],
)
def test_stock_algorithms_train_on_our_environments(algo: str, env_id: str, policy: str, tmp_path: Path) -> None:
    on_policy = algo.startswith("ppo")
    params = TINY if on_policy else ["learning_starts:10", "buffer_size:100"]
    arguments = ["--algo", algo, "-n", "40", "--eval-freq", "20", "--eval-episodes", "2"]
    run = train(tmp_path, *arguments, params=params, env=env_id)
    saved = yaml.unsafe_load((run / env_id / "config.yml").read_text())
    assert saved["policy"] == policy
    model = ALGOS[algo].load(run / "best_model.zip")
    assert isinstance(model.observation_space, gym.spaces.Dict)
    assert model.num_timesteps >= 20


@pytest.mark.parametrize(("algo", "policy"), [("ppo", "MlpPolicy"), ("ppo_lstm", "MlpLstmPolicy")])
def test_the_agent_without_task_information_trains_with_our_settings(algo: str, policy: str, tmp_path: Path) -> None:
    arguments = ["--algo", algo, "-n", "40", "--eval-freq", "20", "--env-kwargs", "previous_transition:False"]
    run = train(tmp_path, *arguments, env="HalfCheetahVel-v0")
    model = ALGOS[algo].load(run / "best_model.zip")
    assert model.observation_space.shape == (17,)
    assert yaml.unsafe_load((run / "HalfCheetahVel-v0" / "config.yml").read_text())["policy"] == policy


def test_ars_trains(tmp_path: Path) -> None:
    """ARS steps its own environments and calls callbacks without ``infos``."""
    params = ["policy:'LinearPolicy'", "n_delta:2", "n_envs:1", "normalize:False"]
    run = train(tmp_path, "--algo", "ars", "-n", "800", "--eval-freq", "-1", params=params, env="CartPole-v1")
    assert ALGOS["ars"].load(run / "CartPole-v1.zip").num_timesteps >= 800


def test_stock_algorithms_elsewhere_use_the_zoos_settings(tmp_path: Path, capfd: Any) -> None:
    run = train(tmp_path, "--algo", "a2c", "-n", "20", "--eval-freq", "-1", params=["n_envs:2"], env="CartPole-v1")
    assert yaml.unsafe_load((run / "CartPole-v1" / "config.yml").read_text())["policy"] == "MlpPolicy"
    assert "rl_zoo3/hyperparams/a2c.yml" in capfd.readouterr().out.replace("\\", "/")


def test_a_recurrent_policy_replaces_that_of_the_zoos_default(tmp_path: Path) -> None:
    """The entry ``default`` of rl-zoo3's ppo_lstm.yml names PPO's policy, which RecurrentPPO does not have."""
    params = [*TINY, "policy:MlpPolicy", "normalize:False"]
    run = train(tmp_path, "--algo", "ppo_lstm", "-n", "20", "--eval-freq", "-1", params=params, env="CartPole-v1")
    assert yaml.unsafe_load((run / "CartPole-v1" / "config.yml").read_text())["policy"] == "MlpLstmPolicy"


def test_vec_normalize_leaves_flags_and_actions_alone(tmp_path: Path) -> None:
    hyperparams = dict(SMALL, normalize=True)
    for env_id, keys in (("HalfCheetahVel-v0", ["observation", "prev_reward"]), ("TabularMDP-v0", ["prev_reward"])):
        *_, model, eval_env = set_up(tmp_path, "trmrl", env_id, hyperparams=dict(hyperparams))
        for env in (model.env, eval_env):
            assert isinstance(env, VecNormalize)
            assert env.norm_obs_keys == keys
            env.close()


def test_the_default_entry_normalizes_what_can_be(tmp_path: Path) -> None:
    """Rewards always; observations if they are real numbers, not classes as in FrozenLake"""
    for env_id, norm_obs in (("CartPole-v1", True), ("FrozenLake-v1", False)):
        arguments = ["-n", "40", "--eval-freq", "20", "--checkpoint-freq", "0", "--report"]
        run = train(tmp_path, "--algo", "trmrl", *arguments, env=env_id)
        env = VecNormalize.load(str(run / env_id / "vecnormalize.pkl"), make_vec_env(env_id))
        assert (env.norm_obs, env.norm_reward) == (norm_obs, True)


@pytest.mark.parametrize(
    "given",
    [
        {"n_layers": 1, "activation_fn": "nn.ReLU"},
        "dict(n_layers=1, activation_fn=nn.ReLU)",
        None,
    ],
)
def test_single_arguments_of_the_policy_replace_those_of_the_entry(given: Any, tmp_path: Path) -> None:
    entry = {"n_timesteps": 40, "policy": "TrMRLPolicy", **({} if given is None else {"policy_kwargs": given})}
    (tmp_path / "my.yml").write_text(yaml.safe_dump({ENV: entry}))
    changes = ["policy_kwargs.d_model:8", "policy_kwargs.n_heads:2", "policy_kwargs.activation_fn:nn.ELU"]
    arguments = ["--conf-file", str(tmp_path / "my.yml"), "--eval-freq", "-1"]
    run = train(tmp_path, *arguments, params=[*TINY, *changes])
    kwargs = TransformerPPO.load(run / f"{ENV}.zip").policy_kwargs
    changed = {"d_model": 8, "n_heads": 2, "activation_fn": nn.ELU}
    assert kwargs.items() >= {**({} if given is None else {"n_layers": 1}), **changed}.items()
    # The record of the run has them, so that a continued run uses them too
    continued = train(tmp_path, "-n", "40", "--eval-freq", "-1", "-i", str(run / f"{ENV}.zip"))
    assert TransformerPPO.load(continued / f"{ENV}.zip").policy_kwargs == kwargs


def test_unknown_arguments_of_the_policy_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, parts in {
        "policy_kwargs.depth:1": ("policy_kwargs", "'depth'"),
        "policy.depth:1": ("'policy.depth'",),
    }.items():
        arguments = ["train", "--env", ENV, "-f", tmp_path, "-n", "40", "-params", *TINY, change]
        error = error_of(arguments, capsys)
        assert all(part in error for part in parts)


# Continued and interrupted runs, and hyperparameter search


def test_a_resumed_run_decays_as_the_uninterrupted_one(tmp_path: Path) -> None:
    architecture = "policy_kwargs:dict(context_length=3, d_model=8, n_heads=2)"
    params = [*TINY, "learning_rate:'lin_1e-3'", "gamma:0.5", architecture]
    arguments = ["--eval-freq", "-1", "--save-freq", "40", "--env-kwargs", "n_arms:3"]
    whole = train(tmp_path, "-n", "160", *arguments, params=params)
    checkpoint = whole / "rl_model_80_steps.zip"
    # Only the remaining steps are given, all other settings are those of the run
    resumed = train(tmp_path, "-n", "80", "--eval-freq", "-1", "-i", str(checkpoint), params=["n_epochs:2"])
    model = TransformerPPO.load(resumed / "BernoulliBandit-v0.zip")
    reference = TransformerPPO.load(whole / "BernoulliBandit-v0.zip")
    assert model.num_timesteps == reference.num_timesteps == 160
    assert model.policy_kwargs == reference.policy_kwargs
    assert model.gamma == 0.5 and model.n_epochs == 2 and model.n_envs == 2
    rates = [[group["lr"] for group in m.policy.optimizer.param_groups] for m in (model, reference)]
    assert rates[0] == pytest.approx(rates[1])
    # Once more, with a checkpoint halfway through the remaining steps: a quarter of the rate is left
    arguments = ["-n", "240", "--eval-freq", "-1", "--save-freq", "40", "-i", str(checkpoint)]
    third = train(tmp_path, *arguments, params=["n_epochs:1"])
    model = TransformerPPO.load(third / "rl_model_240_steps.zip")
    # The checkpoint was written after 240 of 320 steps; the update before it began after 200
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * (1 - 200 / 320))


class DiesAt(BaseCallback):
    """Raises an error after this number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.steps:
            raise RuntimeError("the power went off")
        return True


def test_a_run_that_dies_keeps_what_was_saved(tmp_path: Path, capsys: Any) -> None:
    callback = f"callback:[{{'{__name__}.DiesAt': dict(steps=90)}}]"
    arguments = ["-n", "200", "--eval-freq", "40", "--save-freq", "20", "--report"]
    with pytest.raises(RuntimeError, match="power"):
        train(tmp_path, *arguments, params=[*TINY, callback])
    run = tmp_path / "trmrl" / "BernoulliBandit-v0_1"
    for name in ("initial_model", "best_model", *(f"rl_model_{steps}_steps" for steps in (20, 40, 60, 80))):
        TransformerPPO.load(run / f"{name}.zip")
    assert np.load(run / "evaluations.npz")["timesteps"].tolist() == [40, 80]
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert "before training" in capsys.readouterr().out


# The package


def test_the_wheel_holds_the_yml_files_and_works_outside_the_checkout(tmp_path: Path) -> None:
    root = Path(sb3_trmrl.__file__).parents[1]
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("sb3_trmrl", "hyperparams"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "DESCRIPTION.md"):
        if (root / name).is_file():
            shutil.copy(root / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path), "."], cwd=copy, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"sb3_trmrl-{sb3_trmrl.__version__}-")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    modules = {path.relative_to(root) for path in (root / "sb3_trmrl").rglob("*.py")}
    assert modules <= {path.relative_to(installed) for path in installed.rglob("*.py")}
    assert (installed / "sb3_trmrl" / "py.typed").is_file()
    files = {path.name for path in (installed / "sb3_trmrl" / "hyperparams").iterdir()}
    assert files == {path.name for path in (root / "hyperparams").glob("*.yml")}
    code = "from sb3_trmrl.zoo.hyperparams_files import find_config; print(find_config('trmrl', 'AntDir-v0', None))"
    environ = {"PYTHONPATH": str(installed)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, check=True, capture_output=True, text=True, env=environ
    )
    assert found.stdout.strip() == str(installed / "sb3_trmrl" / "hyperparams" / "trmrl.yml")
