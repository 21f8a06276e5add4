"""
Wrong uses of the command line, of hyperparameter files and of the files of a run: exit status 2, and an error that
names the option or file, the given and the allowed value, without a traceback.
"""

import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.helpers.agents import tiny_model
from tests.helpers.wrong_use import assert_says, refused, saved
from tests.helpers.zoo import DEMO, ENV, error_of, train

pytest.importorskip("rl_zoo3")

from sb3_trmrl.__main__ import COMMANDS
from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.runs import CHECKPOINTS, Run

#: An exported agent, and the folder of a run, which a fixture links here
EXPORTED = Path(DEMO)
RUN = Path("runs", "HalfCheetahVel-v0_1")
#: The file of an experiment
BANDIT = Path(__file__).parents[2] / "experiments" / "bandit.yml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short runs; that of a robot has no model at the end of training, as if it was interrupted"""
    folder = tmp_path_factory.mktemp("runs")
    robot = train(folder, *SHORT, "--eval-episodes", "2", "--n-eval-envs", "2", env="HalfCheetahVel-v0")
    (robot / "HalfCheetahVel-v0.zip").unlink()
    train(folder, *SHORT, "--checkpoint-freq", "0")
    return robot.parent


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / RUN.parent).symlink_to(runs)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "trmrl").symlink_to(runs)


SHORT = ("-n", "80", "--eval-freq", "40", "--env-kwargs", "episodes_per_trial:1", "--verbose", "0")
POSITIVE = "must be an integer, 1 or more"
SEED = "must be an integer, 0 or more"
SPLIT = "'validation'"


def wrong_agent(*command: str) -> list[tuple[list[Any], tuple[str, ...]]]:
    """Wrong uses of the arguments of all commands for one agent"""
    right = [*command, RUN]
    return [
        ([*command], ("model", "required")),
        ([*command, "logs/mistyped"], ("model", "'logs/mistyped'", "folder of a run, a zip or an exported agent")),
        ([*command, "."], ("'.'", "not the folder of a run", "args.yml")),
        ([*right, "--env", "Mistyped-v0"], ("env", "'Mistyped-v0'", "registered")),
        ([*right, "--env", "no_module:HalfCheetahVel-v0"], ("env", "'no_module:HalfCheetahVel-v0'", "registered")),
        ([*right, "--algo", "sarsa"], ("algo", "'sarsa'", "trmrl")),
        ([*right, "--env-kwargs", "velocities:(3,4)"], ("env_kwargs", "'velocities'", "velocity_range")),
        ([*right, "--env-kwargs", "velocity_range:(4,3)"], ("velocity_range", "(4, 3)", "low <= high")),
        ([*right, "--env-kwargs", "horizon:fast"], ("horizon", "'fast'", "integer")),
        ([*right, "--env-kwargs", "horizon:(fast)"], ("--env-kwargs", "'horizon:(fast)'", "NAME:VALUE", "quotes")),
        ([*right, "--env-kwargs", "horizon"], ("--env-kwargs", "'horizon'", "NAME:VALUE")),
        ([*right, "--last"], ("HalfCheetahVel-v0.zip", "model at the end of training", "missing")),
        ([*command, RUN / "best_model.zip", "--last"], ("last", "is for runs", "best_model.zip is a zip")),
        *(([*right, "--seed", value], ("--seed", repr(value), SEED)) for value in ("-1", "x", "1.5")),
        ([*right, "--unknown"], ("unrecognized", "--unknown")),
    ]


def wrong_exported(*command: str) -> list[tuple[list[Any], tuple[str, ...]]]:
    """Wrong uses of an exported agent by commands that play"""
    return [
        ([*command, EXPORTED, "--last"], ("last", "is for runs", EXPORTED.name)),
        ([*command, EXPORTED, "--algo", "ppo"], ("algo", "'ppo'", "is for zips", EXPORTED.name)),
        ([*command, "mistyped.safetensors"], ("mistyped.safetensors", "no file")),
        ([*command, EXPORTED, "--env-kwargs", "velocities:(3,4)"], ("env_kwargs", "'velocities'", "velocity_range")),
    ]


def wrong_counts(*command: Any) -> list[tuple[list[Any], tuple[str, ...]]]:
    """Wrong numbers of tasks and episodes, and wrong splits"""
    return [
        *(
            ([*command, option, value], (option, repr(value), POSITIVE))
            for option in ("--n-tasks", "--n-episodes")
            for value in ("0", "-1", "x", "1.5")
        ),
        ([*command, "--split", "all"], ("--split", "'all'", SPLIT)),
    ]


LINES: list[tuple[list[Any], tuple[str, ...]]] = [
    *wrong_agent("evaluate"),
    *wrong_counts("evaluate", RUN),
    (["evaluate", RUN, "--protocol", "rl2"], ("--protocol", "'rl2'", "metaworld")),
    (["evaluate", RUN, "--protocol", "metaworld"], ("env_id", "'HalfCheetahVel-v0'", "MetaWorld")),
    (["evaluate", RUN, "--protocol", "metaworld", "--n-episodes", "3"], ("--n-episodes", "3", "above 3")),
    (["evaluate", RUN, "--output", __file__], ("--output", repr(__file__), "a folder")),
    *wrong_agent("render"),
    *((["render", RUN, "--task", value], ("--task", value, "0 to 19")) for value in ("20", "-1")),
    (["render", RUN, "--task", "x"], ("--task", "'x'", "int")),
    (["render", RUN, "--n-episodes", "0"], ("--n-episodes", "'0'", POSITIVE)),
    (["render", RUN, "--output", "trial.txt"], ("--output", "trial.txt", ".webm")),
    (["analyze", "everything"], ("KIND", "'everything'", "'online'")),
    *wrong_agent("analyze", "online"),
    *wrong_agent("analyze", "attention"),
    *wrong_counts("analyze", "refinement", RUN),
    (["analyze", "refinement", RUN, "--n-tasks", "1"], ("--n-tasks", "1", "2 or more")),
    *((["analyze", "all", RUN, "--window", value], ("--window", value, "odd")) for value in ("4", "0", "-1")),
    (["analyze", "online", RUN, "--window", "x"], ("--window", "'x'", "int")),
    (["analyze", "online", RUN, "--output", __file__], ("--output", repr(__file__), "a folder")),
    (["analyze"], ("KIND", "required")),
    (["experiment"], ("ACTION", "required")),
    (["experiment", "train", BANDIT], ("ACTION", "'train'", "'report'")),
    (["experiment", "run"], ("file", "required")),
    (["experiment", "run", "nowhere.yml"], ("nowhere.yml", "No such file")),
    (["experiment", "run", BANDIT, "--jobs", "0"], ("--jobs", "'0'", POSITIVE)),
    (["experiment", "run", BANDIT, "--num-threads", "x"], ("--num-threads", "'x'", POSITIVE)),
    (["experiment", "run", BANDIT, "--checkpoint-freq", "-1"], ("--checkpoint-freq", "'-1'", SEED)),
    (["experiment", "run", BANDIT, "--folder", __file__], ("--folder", repr(__file__), "a folder")),
    (["experiment", "run", BANDIT, "--only", "LSTM/*"], ("--only", "'LSTM/*'", "BernoulliBandit-v0/TrMRL/0")),
    (["experiment", "report", BANDIT], ("bandit.yml", "finished", "trmrl experiment run")),
    (["experiment", "report", BANDIT, "--output", __file__], ("--output", repr(__file__), "a folder")),
    *(line for command in (["evaluate"], ["render"], ["analyze", "online"]) for line in wrong_exported(*command)),
    (["export"], ("model", "output", "required")),
    (["export", RUN], ("output", "required")),
    (["export", "nowhere", "agent"], ("model", "'nowhere'", "folder of a run, a zip or an exported agent")),
    (["export", RUN / "best_model.zip", "agent", "--last"], ("last", "is for runs", "best_model.zip is a zip")),
    (["export", RUN, "agent", "--last"], ("HalfCheetahVel-v0.zip", "missing")),
    (["export", RUN, "agent", "--env-kwargs", "horizon"], ("--env-kwargs", "'horizon'", "NAME:VALUE")),
    (["export", RUN, f"{__file__}/agent"], ("path", f"{__file__}/agent.safetensors")),
    (["export", EXPORTED, "agent"], ("TransformerPPO", "ExportedAgent")),
    (["push"], ("file", "repo_id", "required")),
    (["push", "mistyped.safetensors", "me/agent"], ("mistyped.safetensors", "no file")),
    *wrong_counts("push", EXPORTED, "me/agent")[:4],
    *wrong_counts("compare", f"A={RUN}"),
    (["compare"], ("NAME=PATHS", "required")),
    (["compare", "TrMRL"], ("NAME=PATHS", "'TrMRL'")),
    (["compare", "TrMRL=nowhere/*"], ("NAME=PATHS", "'TrMRL=nowhere/*'")),
    (["compare", f"A={RUN}", f"A={RUN}"], ("different name", "'A'")),
    (["compare", f"A={RUN.parent}/BernoulliBandit-v0_1", f"B={EXPORTED}"], ("same environment", EXPORTED.name)),
    (["compare", f"A={RUN.parent}"], (str(RUN.parent), "not the folder of a run")),
    (["compare", "--lower", "A", f"A={RUN}"], ("--lower", "--oracle", "together")),
    (["compare", "--lower", "A", "--oracle", "A", f"A={RUN}"], ("--lower", "--oracle", "'A'", "two agents")),
    (["compare", "--lower", "B", "--oracle", "A", f"A={RUN}"], ("--lower", "'B'", "one of the agents A")),
    (["compare", "--lower", "A", "--oracle", "B", f"A={RUN}"], ("--oracle", "'B'", "one of the agents A")),
    (["compare", f"A={RUN}", "--seed", "x"], ("--seed", "'x'", SEED)),
    (["compare", f"A={RUN}", "--env-kwargs", "velocity_range:(4,3)"], ("velocity_range", "(4, 3)", "low <= high")),
    (["compare", f"A={RUN}", "--env-kwargs", "horizon:fast"], ("horizon", "'fast'", "integer")),
    (["compare", f"A={RUN}", "--output", __file__], ("--output", repr(__file__), "a folder")),
    (["report"], ("folder", "required")),
    (["report", "."], ("'.'", "not the folder of a run")),
    (["report", "nowhere"], ("'nowhere'", "not the folder of a run")),
    (["plot", "everything"], ("kind", "'everything'", "'from_file'")),
]
TRAIN: list[tuple[list[Any], tuple[str, ...]]] = [
    (["--checkpoint-freq", "-1"], ("--checkpoint-freq", "-1", SEED)),
    (["--log-interval", "0"], ("--log-interval", "0", "1 or more")),
    (["--checkpoint-freq", "x"], ("--checkpoint-freq", "'x'", SEED)),
    (["--resume", "nowhere"], ("--resume", "nowhere", "folder of a run")),
    (["--resume", "."], ("--resume", ".", "folder of a run")),
    (["--resume", f"runs/{ENV}_1"], ("--resume", f"runs/{ENV}_1/{CHECKPOINTS}", "folder of checkpoints")),
    (["--env", "Mistyped-v0"], ("--env", "'Mistyped-v0'", "registered")),
    (["--algo", "sarsa"], ("--algo", "'sarsa'", "'trmrl'")),
    (["-n", "many"], ("--n-timesteps", "'many'", "int")),
    (["--seed", "x"], ("--seed", "'x'", "int")),
    (["--vec-env", "threads"], ("--vec-env", "'threads'", "'subproc'")),
    (["--device", "gpu"], ("--device", "'gpu'", "'auto'")),
    (["--trained-agent", "model.zip"], ("--trained-agent", "'model.zip'", "zip")),
    (["--gym-packages", "no_such_package"], ("--gym-packages", "'no_such_package'", "imported")),
    *(
        ([option, "n_steps:many("], (option, "'n_steps:many('", "NAME:VALUE", "quotes"))
        for option in ("--hyperparams", "--env-kwargs", "--eval-env-kwargs")
    ),
    (["--hyperparams", "n_steps:many"], ("n_steps", "'many'", "integer")),
    (["--env-kwargs", "n_arms:many"], ("n_arms", "'many'", "integer")),
    (["--hyperparams", "n_steps"], ("--hyperparams", "'n_steps'", "NAME:VALUE")),
    (["--env-kwargs", "arms:3"], ("env_kwargs", "'arms'", "n_arms")),
    (["--conf-file", "missing.yml"], ("--conf-file", "'missing.yml'", "yml")),
    (["--conf-file", "no_such_module"], ("--conf-file", "'no_such_module'", "Python module")),
    (["-params", "n_step:8"], ("hyperparams", "'n_step'", "n_steps")),
    (["-params", "n_steps:0"], ("n_steps", "0", "at least 1")),
    (["-params", "n_envs:0"], ("n_envs", "0", "at least 1")),
    (["-params", "gamma:2"], ("gamma", "2", "[0, 1]")),
    (["-params", "policy:'MlpPolicy'"], ("policy", "'TrMRLPolicy'")),
    (["-params", "learning_rate:'fast'"], ("learning_rate", "'fast'", "'lin_<from>'")),
    (["-params", "policy_kwargs:dict(depth=3)"], ("policy_kwargs", "'depth'", "n_layers")),
]


@pytest.mark.parametrize(("arguments", "parts"), LINES, ids=lambda value: " ".join(map(str, value))[:60])
def test_line(arguments: list[Any], parts: tuple[str, ...], capsys: Any) -> None:
    assert_says(error_of(arguments, capsys), *parts)


@pytest.mark.parametrize(("arguments", "parts"), TRAIN, ids=lambda value: " ".join(map(str, value))[:60])
def test_train(arguments: list[Any], parts: tuple[str, ...], capsys: Any) -> None:
    env = [] if "--env" in arguments else ["--env", ENV]
    assert_says(error_of(["train", *env, "-n", "20", *arguments], capsys), *parts)


@pytest.mark.parametrize("command", ["enjoy", "record_video"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--env", "Mistyped-v0"], ("--env", "'Mistyped-v0'", "registered")),
        (["--env", ENV], ("--folder", "'logs'", "run", ENV)),
        (["--env", ENV, "-f", "nowhere"], ("--folder", "'nowhere'", "run", ENV)),
        (["--env", ENV, "--algo", "sarsa"], ("--algo", "'sarsa'", "'trmrl'")),
        (["--env", ENV, "--exp-id", "x"], ("--exp-id", "'x'", "int")),
        (
            ["--env", ENV, "-f", "agents", "--env-kwargs", "n_arms:[many]"],
            ("--env-kwargs", "'n_arms:[many]'", "NAME:VALUE"),
        ),
        (["--env", ENV, "-f", "agents", "--env-kwargs", "n_arms:many"], ("n_arms", "'many'", "integer")),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_watching(command: str, arguments: list[str], parts: tuple[str, ...], capsys: Any) -> None:
    assert_says(error_of([command, *arguments], capsys), *parts)


def test_every_command_is_in_the_table() -> None:
    assert {arguments[0] for arguments, _ in LINES} | {"train", "enjoy", "record_video"} == set(COMMANDS)


# -- Hyperparameter files ---------------------------------------------------------------------------------------------

RIGHT = {"n_timesteps": 20, "policy": "TrMRLPolicy", "n_steps": 10, "batch_size": 10}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("'own.yml'", ENV, "default")),
        ("just text", ("'own.yml'", ENV, "default")),
        ("[1, 2", ("'own.yml'", ENV, "default")),
        ("- 1\n- 2", ("'own.yml'", ENV, "default")),
        ({"AntDir-v0": RIGHT}, ("'own.yml'", ENV, "default")),
        ({ENV: None}, ("'own.yml'", ENV)),
        ({ENV: [1, 2]}, ("'own.yml'", ENV)),
        ({ENV: {**RIGHT, "policy": None}}, ("policy", "None", "'TrMRLPolicy'")),
        ({ENV: {key: RIGHT[key] for key in RIGHT if key != "policy"}}, ("'own.yml'", "policy", ENV)),
        ({ENV: {**RIGHT, "n_timesteps": "1e6"}}, ("n_timesteps", "'1e6'", "integer")),
        ({ENV: {**RIGHT, "n_envs": 2.5}}, ("n_envs", "2.5", "integer")),
        ({ENV: {**RIGHT, "n_step": 10}}, ("hyperparams", "'n_step'", "n_steps")),
        ({ENV: {**RIGHT, "gamma": "high"}}, ("gamma", "'high'", "number")),
        ({ENV: {**RIGHT, "gamma": 1.5}}, ("gamma", "1.5", "[0, 1]")),
        ({ENV: {**RIGHT, "learning_rate": "cos_3e-4"}}, ("learning_rate", "'cos_3e-4'", "'lin_<from>'")),
        ({ENV: {**RIGHT, "learning_rate": -1.0}}, ("learning_rate", "-1.0", "not negative")),
        ({ENV: {**RIGHT, "learning_rate": [1]}}, ("learning_rate", "[1]", "number")),
        ({ENV: {**RIGHT, "vf_learning_rate": "fast"}}, ("vf_learning_rate", "'fast'", "'lin_<from>'")),
        ({ENV: {**RIGHT, "clip_range": "lin_x"}}, ("clip_range", "'lin_x'", "'lin_<from>'")),
        ({ENV: {**RIGHT, "policy_kwargs": "dict(depth=3)"}}, ("policy_kwargs", "'depth'", "n_layers")),
        ({ENV: {**RIGHT, "policy_kwargs": "dict(d_model="}}, ("policy_kwargs", "'dict(d_model='", "Python")),
        ({ENV: {**RIGHT, "policy_kwargs": 5}}, ("policy_kwargs", "5", "dictionary")),
        ({ENV: {**RIGHT, "env_kwargs": {"arms": 3}}}, ("env_kwargs", "'arms'", "n_arms")),
        ({ENV: {**RIGHT, "env_kwargs": 3}}, ("env_kwargs", "3", "dictionary")),
        ({ENV: {**RIGHT, "normalize": "dict("}}, ("normalize", "'dict('", "Python")),
    ],
    ids=str,
)
def test_yml(content: Any, parts: tuple[str, ...], capsys: Any) -> None:
    Path("own.yml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    assert_says(error_of(["train", "--env", ENV, "--conf-file", "own.yml"], capsys), *parts)


# -- Files of a run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact zip of a model"""
    path = tmp_path_factory.mktemp("whole") / "model.zip"
    tiny_model("CartPole-v1").save(path)
    return path


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


MODEL_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"wrong content: [",
    "truncated": lambda content: content[: len(content) // 2],
    "other_zip": lambda _: zip_of({"readme.txt": b"another zip"}),
    "without_weights": lambda content: zip_of({k: v for k, v in members(content).items() if not k.endswith(".pth")}),
    "broken_data": lambda content: zip_of({**members(content), "data": b"{"}),
}
DAMAGE = {
    **MODEL_DAMAGE,
    "other_arrays": lambda _: saved(np.savez, numbers=np.zeros(3)),
    "a_list": lambda _: b"- 1\n- 2\n",
    "without_env": lambda _: b"algo: trmrl\nseed: 1\n",
}


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGE[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", MODEL_DAMAGE)
def test_damaged_model(kind: str, zipped: Path, capsys: Any) -> None:
    """Given to ``load`` and to a command"""
    path = Path(shutil.copy(zipped, "model.zip"))
    damage(path, kind)
    with refused(ValueError, "path", "'model.zip'", "TransformerPPO"):
        TransformerPPO.load(path)
    assert_says(error_of(["evaluate", path, "--env", ENV], capsys), "'model.zip'", "a model of trmrl")


def test_missing_files_and_folders(zipped: Path) -> None:
    Path("folder.zip").mkdir()
    wrong: list[tuple[Any, type[Exception], list[str]]] = [
        ("missing", FileNotFoundError, ["missing"]),
        ("folder.zip", OSError, ["folder.zip"]),
        *((path, TypeError, ["path", repr(path), "a file"]) for path in (5, None)),
    ]
    for path, error, parts in wrong:
        with refused(error, *parts):
            TransformerPPO.load(path)
    # Errors about other arguments do not name the file
    with refused(ValueError, "gamma", "2", "[0, 1]") as caught:
        TransformerPPO.load(zipped, gamma=2)
    assert "model.zip" not in str(caught.value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Copy of the run, to be damaged"""
    return Path(shutil.copytree(RUN, tmp_path / RUN.name))


FILES = [
    *(("best_model.zip", kind, "a model of trmrl") for kind in ("empty", "truncated", "other_zip")),
    *(("HalfCheetahVel-v0/args.yml", kind, "algo, env, seed") for kind in ("empty", "text", "a_list", "without_env")),
    *(("vecnormalize.pkl", kind, "VecNormalize") for kind in ("empty", "text", "truncated")),
]
EVALUATIONS = [("evaluations.npz", kind, "timesteps") for kind in ("empty", "text", "truncated", "other_arrays")]


@pytest.mark.parametrize(("name", "kind", "allowed"), FILES)
def test_damaged_run(name: str, kind: str, allowed: str, run: Path, capsys: Any) -> None:
    damage(run / name, kind)
    for command in (["evaluate"], ["compare"], ["analyze", "online"], ["render"]):
        argument = f"A={run}" if command == ["compare"] else run
        error = error_of([*command, argument], capsys)
        assert_says(error, Path(name).name, allowed)


@pytest.mark.parametrize(("name", "kind", "allowed"), [*FILES[3:7], *EVALUATIONS])
def test_damaged_learning_curve(name: str, kind: str, allowed: str, run: Path, capsys: Any) -> None:
    damage(run / name, kind)
    if name == "evaluations.npz":
        with refused(ValueError, name, allowed):
            Run(run).evaluations()
    for command in (["compare", f"A={run}"], *([] if name == "evaluations.npz" else [["report", run]])):
        assert_says(error_of(command, capsys), Path(name).name, allowed)


def test_a_run_without_a_model(run: Path, capsys: Any) -> None:
    (run / "best_model.zip").unlink()
    for command in (["evaluate", run], ["render", run], ["analyze", "online", run], ["report", run]):
        assert_says(error_of(command, capsys), "model", run.name)


OPEN_AGENT: list[tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = [
    ({"path": "nowhere"}, FileNotFoundError, ("model", "'nowhere'", "a zip or an exported agent")),
    ({"path": "."}, FileNotFoundError, ("'.'", "not the folder of a run")),
    ({"path": RUN, "env": "Mistyped-v0"}, ValueError, ("env", "'Mistyped-v0'", "registered")),
    ({"path": RUN, "algo": "sarsa"}, ValueError, ("algo", "'sarsa'", "trmrl")),
    ({"path": RUN, "env_kwargs": 5}, TypeError, ("env_kwargs", "5", "dictionary")),
    ({"path": RUN / "best_model.zip", "last": True}, ValueError, ("last", "is for runs", "best_model.zip is a zip")),
    ({"path": RUN / "best_model", "last": True}, ValueError, ("last", "is for runs", "best_model.zip is a zip")),
    ({"path": RUN, "last": True}, FileNotFoundError, ("HalfCheetahVel-v0.zip", "missing")),
]


@pytest.mark.parametrize(("arguments", "error", "parts"), OPEN_AGENT)
def test_open_agent(arguments: dict[str, Any], error: type[Exception], parts: tuple[str, ...]) -> None:
    with refused(error, *parts):
        open_agent(**arguments)


def test_a_zip_alone_needs_its_environment(zipped: Path) -> None:
    with refused(ValueError, "env", zipped.name, "given"):
        open_agent(zipped)
