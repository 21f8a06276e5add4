"""Searches for hyperparameters: the space around an entry, the trials that train, and the entry of the best one."""

import inspect
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from rl_zoo3 import ALGOS
from torch import nn, optim

from sb3_trmrl.__main__ import main
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.hyperparams_files import evaluated_policy_kwargs, hyperparams_folder, memory_of
from sb3_trmrl.zoo.hyperparams_opt import SEARCHED, SearchSpace, with_names
from sb3_trmrl.zoo.registration import register
from tests.helpers.zoo import ENV, error_of

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["n_envs:2", "n_steps:40", "n_epochs:1"]
# The random trials of this seed are small
SEARCH = ["--optimize-hyperparameters", "--n-trials", "2", "--n-evaluations", "2", "--sampler", "random", "--seed", "2"]
register()


def _entries(algo: str) -> dict[str, Any]:
    entries: dict[str, Any] = yaml.safe_load((hyperparams_folder() / f"{algo}.yml").read_text())
    return entries


def _trials(space: SearchSpace, n: int, is_continuous: bool) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the stored values and the hyperparameters of random trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(n)]
    sampled = [space.sample(trial, is_continuous) for trial in trials]
    return [(trial.params, hyperparams) for trial, hyperparams in zip(trials, sampled, strict=True)]


#: What only one algorithm has, or two
OWN = {
    "memory": {"trmrl", "trmrl_sac"},
    "kl_weight": {"varibad", "pearl"},
    "lstm_hidden_size": {"ppo_lstm"},
    "d_model": {"trmrl", "trmrl_sac"},
    "context_batch_size": {"pearl"},
    "inner_learning_rate": {"maml_trpo"},
    "clip_range": {"trmrl", "varibad", "ppo", "ppo_lstm"},
}
CASES = [(algo, env_id) for algo in SEARCHED for env_id in ("HalfCheetahVel-v0", "GridNavi-v0")]
CASES = [(algo, env_id) for algo, env_id in CASES if env_id in _entries(algo)]


@pytest.mark.parametrize(("algo", "env_id"), CASES)
def test_sampled_hyperparameters(algo: str, env_id: str) -> None:
    entry = _entries(algo)[env_id]
    is_continuous = env_id == "HalfCheetahVel-v0"
    space = SearchSpace(algo, entry, entry.get("policy_kwargs", {}))
    arguments = inspect.signature(ALGOS[algo]).parameters
    for params, found in _trials(space, 30, is_continuous):
        assert found == space.convert(params)
        assert set(found) <= set(arguments)
        assert found["gamma"] == pytest.approx(1 - params["one_minus_gamma"], abs=1e-4) and found["gamma"] < 1
        kwargs = found["policy_kwargs"]
        assert {name for name in OWN if algo in OWN[name]} == set(OWN) & set(params)
        for name in set(OWN) & set(params):
            value = {**found, **kwargs}[name]
            assert value == (pytest.approx(params[name], rel=1e-2) if isinstance(value, float) else params[name])
        if "clip_range" in params:  # trained by PPO
            assert entry["n_envs"] * entry["n_steps"] == found["batch_size"] * params["n_minibatches"]
            kind, value = found["learning_rate"].split("_")
            assert kind == "lin" and float(value) == pytest.approx(params["learning_rate"], rel=1e-2)
            assert ("ent_coef" in found) == (not is_continuous)
            assert kwargs["net_arch"] == {"pi": [params["width"]] * 2, "vf": [params["width"]] * 2}
        else:
            assert kwargs["net_arch"] == [params["width"]] * 2
        if algo not in {"pearl", "trmrl_sac"}:
            assert ("log_std_init" in kwargs) == is_continuous
        if "d_model" in params:
            assert kwargs["d_model"] % kwargs.get("n_heads", 4) == 0
            assert kwargs.get("reset_memory_on") == entry["policy_kwargs"].get("reset_memory_on")
            assert ("context_length" in kwargs) == (kwargs["memory"] == "window")
            same_memory = kwargs["memory"] == ("window" if is_continuous else "full")
            assert ("positional_encoding" in kwargs) == (same_memory and not is_continuous)


def test_sampled_hyperparameters_build_a_model() -> None:
    space = SearchSpace("trmrl", {"n_steps": 40, "n_envs": 1}, {"n_heads": 2})
    for params, found in _trials(space, 20, False):
        model = TransformerPPO("TrMRLPolicy", "CartPole-v1", n_steps=40, device="cpu", **found)
        assert model.learning_rate == pytest.approx(params["learning_rate"], rel=1e-2)
        assert model.policy.features_dim == params["d_model"]


def test_the_kind_of_memory_that_arguments_stand_for() -> None:
    assert memory_of("trmrl", {}) == memory_of("trmrl_sac", dict(memory="full")) == "full"
    assert memory_of("trmrl", dict(context_length=4)) == memory_of("trmrl_sac", {}) == "window"


def test_named_classes_are_evaluated_to_what_they_were() -> None:
    values = dict(a=1, b=[2, 3], c=nn.ReLU, d=dict(e=optim.AdamW, f=None), g="text", h=1e-5, i=dict(pi=[64], vf=[]))
    values |= dict(activation_fn=nn.ReLU, optimizer_class=optim.AdamW, memory="full")
    written = yaml.safe_dump(with_names(values))
    assert "activation_fn: nn.ReLU" in written
    assert evaluated_policy_kwargs(yaml.safe_load(written)) == values


def test_a_search_writes_the_entry_of_its_best_trial(tmp_path: Path, monkeypatch: Any) -> None:
    seen = []

    class Recording(TransformerPPO):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append(kwargs)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr("sb3_trmrl.zoo.registration.TransformerPPO", Recording)
    common = ["--env", ENV, "-f", str(tmp_path), "-n", "80", "--eval-episodes", "2"]
    storage = ["--storage", f"sqlite:///{tmp_path}/search.db", "--study-name", "first"]
    params = ["-params", *TINY, "gae_lambda:0.5", "policy_kwargs:dict(n_heads=2, embedding_arch=[4])"]
    assert main(["train", *common, *SEARCH, *storage, "--no-optim-plots", *params]) == 0
    assert len(seen) == 2 and all(each["policy_kwargs"]["embedding_arch"] == [4] for each in seen)
    assert len(list(tmp_path.glob("trmrl/report_*.csv"))) == 1
    assert not list(tmp_path.glob("trmrl/BernoulliBandit-v0_*"))

    # The file trains with the settings of the best trial
    study = optuna.load_study(study_name="first", storage=storage[1])
    path = tmp_path / "trmrl" / "best_first.yml"
    assert f"Trial {study.best_trial.number} of the study first" in path.read_text()
    assert main(["train", *common, "--eval-freq", "-1", "--conf-file", str(path)]) == 0
    best = seen[study.best_trial.number]
    schedules = ("learning_rate", "clip_range")
    names = ("gamma", "gae_lambda", "batch_size", "n_epochs", "ent_coef", "policy_kwargs")
    assert {name: seen[-1][name] for name in names} == {name: best[name] for name in names}
    assert [seen[-1][name](1.0) for name in schedules] == [best[name](1.0) for name in schedules]

    # So does the number of a trial; given hyperparameters take precedence
    loaded = ["--storage", storage[1], "--study-name", "first", "--trial-id", "1"]
    given = [*TINY, "gae_lambda:0.25", "policy_kwargs.n_layers:3", "policy_kwargs.initialization:xavier"]
    assert main(["train", *common, "--eval-freq", "-1", *loaded, "-params", *given]) == 0
    assert seen[-1]["gae_lambda"] == 0.25 and seen[-1]["gamma"] == seen[1]["gamma"]
    changed = {"n_layers": 3, "initialization": "xavier"}
    assert seen[-1]["policy_kwargs"].items() >= {"d_model": seen[1]["policy_kwargs"]["d_model"], **changed}.items()


def test_arguments_of_the_replay_buffer_suit_the_memory() -> None:
    """Only those of the entry's own kind of memory are kept, and ``folder``, which all kinds have."""
    given = {"sequence_length": 8, "burn_in": 4, "folder": "buffers"}
    entry = {"replay_buffer_kwargs": given, "policy_kwargs": {"memory": "full"}}
    space = SearchSpace("trmrl_sac", entry, entry["policy_kwargs"])
    values = {"width": 64, "activation_fn": "relu", "d_model": 32, "n_layers": 1}
    assert "replay_buffer_kwargs" not in space.convert({**values, "memory": "full"})
    found = space.convert({**values, "memory": "window", "context_length": 5})
    assert found["replay_buffer_kwargs"] == {"folder": "buffers"} and "replay_buffer_class" not in found


@pytest.mark.parametrize("algo", ["ppo", "ppo_lstm", "varibad"])
def test_baselines_are_searched_around_our_entries(algo: str, tmp_path: Path) -> None:
    common = ["--algo", algo, "--env", ENV, "-f", str(tmp_path), "-n", "80", "--eval-episodes", "2"]
    assert main(["train", *common, *SEARCH, "--no-optim-plots", "-params", *TINY]) == 0
    (path,) = (tmp_path / algo).glob("best_*.yml")
    entry = yaml.safe_load(path.read_text())[ENV]
    assert entry["n_steps"] == 40 and entry["batch_size"] in {2 * 40 // n for n in (5, 10, 20, 40)}
    written = _entries(algo)[ENV if algo != "varibad" else "default"]
    assert entry["policy"] == written["policy"] and entry["learning_rate"].startswith("lin_")
    assert entry["policy_kwargs"]["activation_fn"] in ("nn.Tanh", "nn.ReLU")


PEARL = (
    "n_envs:2 n_train_tasks:4 initial_steps:4 tasks_per_iteration:2 prior_steps:5 posterior_steps:5 meta_batch_size:2"
)
OTHERS = {
    "trmrl_sac": "n_envs:2 learning_starts:20 gradient_steps:1",
    "pearl": f"{PEARL} gradient_steps:1",
    "maml_trpo": "n_envs:2 n_tasks:2 n_inner_episodes:1",
}


@pytest.mark.parametrize("algo", OTHERS)
def test_a_search_of_the_other_algorithms(algo: str, tmp_path: Path) -> None:
    env_id = "GridNavi-v0" if algo == "maml_trpo" else "SparsePointRobot-v0"
    common = ["--algo", algo, "--env", env_id, "-f", str(tmp_path), "-n", "60", "--eval-episodes", "2"]
    assert main(["train", *common, *SEARCH, "--no-optim-plots", "-params", *OTHERS[algo].split()]) == 0
    (path,) = (tmp_path / algo).glob("best_*.yml")
    assert "Trials: 2 complete, 0 pruned" in path.read_text()
    best = yaml.safe_load(path.read_text())[env_id]
    assert main(["train", *common, "--eval-freq", "-1", "--conf-file", str(path)]) == 0
    (run,) = (tmp_path / algo).glob(f"{env_id}_*")
    model: Any = open_agent(run).model
    for name in {"gamma", "tau", "target_kl", "inner_learning_rate", "reward_scale", "context_batch_size"} & set(best):
        assert getattr(model, name) == best[name]
    assert model.policy.net_arch == best["policy_kwargs"]["net_arch"]


def test_an_algorithm_without_a_search_space(capsys: Any) -> None:
    arguments = ["train", "--algo", "crossq", "--env", "Pendulum-v1", "-optimize"]
    assert "there is no search space for crossq" in error_of(arguments, capsys)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_other_environments_are_searched_as_in_rl_zoo3(tmp_path: Path) -> None:
    common = ["--algo", "ppo", "--env", "CartPole-v1", "-f", str(tmp_path), "-n", "80", "--eval-episodes", "2"]
    assert main(["train", *common, *SEARCH, "--n-trials", "1", "--no-optim-plots", "-params", "n_envs:1"]) == 0
    assert not list((tmp_path / "ppo").glob("best_*.yml"))
    (report,) = (tmp_path / "ppo").glob("report_*.csv")
    assert "params_n_steps_pow" in report.read_text()
