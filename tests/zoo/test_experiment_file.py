"""The file of an experiment: which runs it stands for, with which arguments of `train`, and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_trmrl.cli import parsers
from sb3_trmrl.zoo.experiment_file import Experiment, read_experiment
from sb3_trmrl.zoo.experiment_settings import ReportSettings, Settings
from sb3_trmrl.zoo.hyperparams_files import hyperparams_folder
from sb3_trmrl.zoo.registration import register
from tests.helpers.doc_blocks import ROOT
from tests.helpers.wrong_use import Wrong, assert_covered, assert_says, refused, rows
from tests.helpers.zoo import ENV

FOLDER = Path("logs")


@pytest.fixture(autouse=True, scope="module")
def algorithms() -> None:
    """Settings name algorithms of this package, which `read_experiment` registers"""
    register()


def read(tmp_path: Path, **content: Any) -> Experiment:
    """Read a file with this content."""
    path = tmp_path / "some.yml"
    path.write_text(
        yaml.safe_dump({"environment": ENV, "seeds": [0], "agents": {"TrMRL": None}, **content}, sort_keys=False)
    )
    return read_experiment(path, FOLDER)


def experiments() -> list[Path]:
    """The experiments of this package, without the hyperparameter files beside them."""
    return [path for path in sorted((ROOT / "experiments").glob("*.yml")) if "agents:" in path.read_text()]


@pytest.mark.parametrize("path", experiments(), ids=lambda path: path.stem)
def test_experiments_of_this_package_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name hyperparameter files and modules relative to the root of the repository."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    if path.stem == "default_memory":
        pytest.importorskip("popgym")
    experiment = read_experiment(path)
    assert {training.seed for training in experiment.trainings} <= set(range(15))


names = st.text("abcXYZ^2, ", min_size=1).filter(lambda name: name.strip(" ,^"))
agents = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"algo": st.sampled_from(["trmrl", "ppo", "ppo_lstm"])},
        optional={
            "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
            "n_timesteps": st.integers(1, 10**7),
            "env_kwargs": st.dictionaries(
                st.sampled_from(["n_arms", "n_pulls"]), st.integers(1, 9) | st.sampled_from(["a b", "x:y"])
            ),
            "hyperparams": st.fixed_dictionaries({}, optional={"gamma": st.floats(0, 1), "n_steps": st.integers(1, 9)}),
        },
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(agents=agents, environments=st.lists(st.sampled_from([ENV, "GridNavi-v0"]), min_size=1, unique=True))
def test_each_agent_is_trained_on_each_environment_with_each_seed(
    agents: dict[str, Any], environments: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "some.yml"
    path.write_text(yaml.safe_dump({"environments": environments, "seeds": [7, 3], "agents": agents}, sort_keys=False))
    folders = {"".join(char for char in name if char not in ", ^") for name in agents}
    if len(folders) < len(agents):
        return  # names that differ only in signs may be refused
    found = read_experiment(path, FOLDER).trainings
    asked = [
        (environment, agent, seed)
        for environment in environments
        for agent, own in agents.items()
        for seed in own.get("seeds", [7, 3])
    ]
    assert Counter((each.environment, each.agent, each.seed) for each in found) == Counter(asked)
    assert len({each.folder for each in found}) == len(found)
    seen: Counter[tuple[str, str]] = Counter()
    rounds = []
    for each in found:
        rounds.append(seen[each.environment, each.agent])
        seen[each.environment, each.agent] += 1
    assert rounds == sorted(rounds)  # all first seeds, then all second ones
    for each in found:
        own = agents[each.agent]
        options = parsers.train(each.arguments)[1]
        entry = yaml.safe_load((hyperparams_folder() / f"{own['algo']}.yml").read_text())[each.environment]
        assert (options.algo, options.env, options.seed) == (own["algo"], each.environment, each.seed)
        assert (options.env_kwargs or {}) == own.get("env_kwargs", {})
        assert {**entry, **(options.hyperparams or {})} == {**entry, **own.get("hyperparams", {})}
        assert each.n_timesteps == own.get("n_timesteps", entry["n_timesteps"])
        assert options.eval_freq == max(1, each.n_timesteps // 20)
        if "n_timesteps" in own:
            assert options.n_timesteps == own["n_timesteps"]


def test_settings_of_all_agents_are_merged_with_those_of_one(tmp_path: Path) -> None:
    own = {"hyperparams": {"gamma": 0.5, "policy_kwargs": {"d_model": 16}}, "env_kwargs": {"n_arms": 3}}
    common: dict[str, Any] = {
        "hyperparams": {"gamma": 0.9, "n_epochs": 2},
        "env_kwargs": {"n_pulls": 4},
        "algo": "trmrl",
    }
    (training,) = read(tmp_path, **common, agents={"A": own}, arguments=["--vec-env", "subproc"]).trainings
    options = parsers.train(training.arguments)[1]
    entry = yaml.safe_load((hyperparams_folder() / "trmrl.yml").read_text())[ENV]
    expected = {"gamma": 0.5, "n_epochs": 2, "policy_kwargs": {**entry["policy_kwargs"], "d_model": 16}}
    assert options.hyperparams == expected
    assert options.env_kwargs == {"n_pulls": 4, "n_arms": 3}
    assert options.vec_env == "subproc"


def test_values_that_an_agent_has_anyway_are_not_trained_twice(tmp_path: Path) -> None:
    """The base is the recommended agent, with the defaults of the policy: two layers and T-Fixup."""
    vary = {"policy_kwargs.n_layers": [1, 2], "policy_kwargs.initialization": ["tfixup", "default"], "gamma": [0.95]}
    found = read(tmp_path, environment="HalfCheetahVel-v0", agents={"A": {"vary": vary}})
    assert found.agents("HalfCheetahVel-v0") == ["A", "A, n_layers=1", "A, initialization=default"]
    assert found.varied["HalfCheetahVel-v0"] == {
        ("A", "policy_kwargs.n_layers"): {"1": "A, n_layers=1", "2": "A"},
        ("A", "policy_kwargs.initialization"): {"tfixup": "A", "default": "A, initialization=default"},
        ("A", "gamma"): {"0.95": "A"},
    }
    changed = parsers.train(found.trainings[1].arguments)[1].hyperparams["policy_kwargs"]
    assert changed["n_layers"] == 1 and changed["memory"] == "full"


@pytest.mark.parametrize(("env_id", "memory"), [("CartPole-v1", "full"), ("CartPoleNoVel-v1", "window")])
def test_another_length_does_not_change_the_kind_of_memory(env_id: str, memory: str, tmp_path: Path) -> None:
    """A window is the default only where a length is given."""
    found = read(tmp_path, environment=env_id, vary={"policy_kwargs.context_length": [4]})
    kwargs = parsers.train(found.trainings[-1].arguments)[1].hyperparams["policy_kwargs"]
    assert (kwargs["context_length"], kwargs["memory"]) == (4, memory)


def test_rl_zoo3_has_the_settings_of_other_environments(tmp_path: Path) -> None:
    found = read(tmp_path, environment="CartPole-v1", agents={"PPO": {"algo": "ppo", "vary": {"n_envs": [1, 8]}}})
    assert [each.agent for each in found.trainings] == ["PPO", "PPO, n_envs=1"]
    assert found.trainings[0].n_timesteps == 100_000


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"agent": {}}, ("'agent'", "agents")),
    ({"environment": "Mistyped-v0"}, ("environments", "'Mistyped-v0'", "registered")),
    ({"environments": [ENV]}, ("environment", "environments", "exactly one")),
    ({"agents": None}, ("agents", "None", "a mapping from names to settings")),
    ({"agents": {}}, ("agents", "at least one agent")),
    ({"agents": {1: {}}}, ("agents", "[1]", "text")),
    ({"agents": {"A": {"algos": "ppo"}}}, ("agents['A']", "'algos'", "algo")),
    ({"agents": {"A": {"algo": "sarsa"}}}, ("agents['A']", "algo", "'sarsa'", "'trmrl'")),
    ({"agents": {"A": {"seeds": [1, 1]}}}, ("agents['A']", "seeds", "[1, 1]", "different")),
    ({"agents": {"A b": {}, "A_b": {}}}, ("agents", "A b, A_b", "differ")),
    ({"agents": {"A": {"conf_file": "hyperparams.py"}}}, ("conf_file", "'hyperparams.py'", "yml")),
    ({"agents": {"A": {"conf_file": "no.yml"}}}, ("agents['A']", "'no.yml'", "No such file")),
    ({"agents": {"A": {"vary": {"policy_kwargs.depth": [1]}}}}, ("vary", "'policy_kwargs.depth'", "TrMRLPolicy")),
    ({"agents": {"A": {"vary": {"depth": [1]}}}}, ("vary", "'depth'", "TransformerPPO")),
    ({"agents": {"A": {"vary": {"net.depth": [1]}}}}, ("vary", "'net.depth'", "policy_kwargs.NAME")),
    ({"seeds": []}, ("seeds", "[]", "at least one")),
    ({"n_evaluations": 0}, ("n_evaluations", "0", "at least 1")),
    ({"n_evaluations": 2, "eval_freq": 2}, ("n_evaluations", "eval_freq", "only one")),
    ({"gym_packages": ["no_such_package"]}, ("gym_packages", "'no_such_package'", "imported")),
    ({"report": {"n_task": 2}}, ("report", "'n_task'", "n_tasks")),
    ({"report": {"lower": "TrMRL", "oracle": "B"}}, ("report", "oracle", "'B'", "'TrMRL'")),
    ({"report": {"lower": "TrMRL", "oracle": "TrMRL"}}, ("report", "lower", "'TrMRL'", "two agents")),
]


@pytest.mark.parametrize(("content", "parts"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_files(content: dict[str, Any], parts: tuple[str, ...], tmp_path: Path) -> None:
    with refused(ValueError, str(tmp_path / "some.yml"), *parts):
        read(tmp_path, **content)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("agents: {A: {}, A: {}}", ("'A'", "twice", "line 1")),
        ("agents: {A", ("line 1",)),
        ("[1, 2]", ("[1, 2]", "a mapping")),
    ],
)
def test_wrong_yaml(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "some.yml"
    path.write_text(text)
    with refused(ValueError, str(path), *parts):
        read_experiment(path)


def test_policy_kwargs_cannot_be_merged_with_an_expression(tmp_path: Path) -> None:
    entry = {"n_timesteps": 40, "policy": "TrMRLPolicy", "policy_kwargs": "dict(d_model=8)"}
    (tmp_path / "my.yml").write_text(yaml.safe_dump({"HalfCheetahVel-v0": entry}))
    agent = {"conf_file": str(tmp_path / "my.yml"), "hyperparams": {"policy_kwargs": {"n_layers": 1}}}
    with refused(ValueError, "policy_kwargs", "expression"):
        read(tmp_path, environment="HalfCheetahVel-v0", agents={"A": agent})


SETTINGS = [
    *rows("algo", ("sarsa", None), ValueError, "'ppo'"),
    *rows("env_kwargs", (5, "n_arms"), TypeError, "dictionary"),
    *rows("hyperparams", (5, "gamma"), TypeError, "dictionary"),
    *rows("conf_file", (5, ["a.yml"]), TypeError, "a yml file"),
    *rows("n_timesteps", ("3e6", 2.5), TypeError, "integer"),
    *rows("n_timesteps", (0,), ValueError, "at least 1"),
    *rows("seeds", (5, None), TypeError, "a list of seeds"),
    *rows("arguments", ("--progress", None), TypeError, "a list of arguments"),
    *rows("vary", (5,), TypeError, "dictionary"),
]
REPORT = [
    *rows("n_tasks", ("2", 2.5), TypeError, "integer"),
    *rows("n_episodes", (0,), ValueError, "at least 1"),
    *rows("split", ("tests", None), ValueError, "'test'"),
    *rows("lower", ("A",), ValueError, "together"),
    *rows("oracle", ("A",), ValueError, "together"),
    *rows("other_tasks", (5,), TypeError, "dictionary"),
    Wrong("other_tasks", {"last": {}}, ValueError, "other names than selected", "'last'"),
    Wrong("other_tasks", {"success": {}}, ValueError, "other names than selected", "'success'"),
]


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: f"{row.argument}={row.value}")
def test_wrong_settings(row: Any) -> None:
    row.check(Settings, {"seeds": [0]})


@pytest.mark.parametrize("row", REPORT, ids=lambda row: f"{row.argument}={row.value}")
def test_wrong_settings_of_the_report(row: Any) -> None:
    row.check(ReportSettings)


def test_every_setting_is_in_the_tables() -> None:
    assert_covered(Settings, SETTINGS)
    assert_covered(ReportSettings, REPORT)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"hyperparams": {"env_kwargs": {}}}, ("hyperparams", "'env_kwargs'")),
        ({"hyperparams": {"n_timesteps": 5}}, ("hyperparams", "'n_timesteps'")),
        ({"arguments": ["--seed", "3"]}, ("arguments", "'--seed'")),
        ({"arguments": ["--hyperparams=a:1"]}, ("arguments", "'--hyperparams=a:1'")),
        ({"vary": {"gamma": []}}, ("vary['gamma']", "[]")),
        ({"seeds": [-1]}, ("seeds", "-1")),
        ({"seeds": [True]}, ("seeds", "True")),
    ],
)
def test_wrong_parts_of_settings(given: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Settings(**{"seeds": [0], **given})
    assert_says(str(caught.value), *parts)
