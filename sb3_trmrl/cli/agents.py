"""Agents from files: an exported agent, a model's zip, or the folder of a run of rl-zoo3."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rl_zoo3 import ALGOS
from rl_zoo3.utils import StoreDict
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_trmrl.common.checks import check_instance, check_keywords
from sb3_trmrl.sharing.agent import SUFFIX, ExportedAgent, load_agent
from sb3_trmrl.trials.held_out import has_environment
from sb3_trmrl.zoo.error_origin import error_text, is_about_arguments
from sb3_trmrl.zoo.registration import ALGO, register
from sb3_trmrl.zoo.runs import BEST_MODEL, NEEDS_PACKAGES, STATISTICS, Run, file_errors, import_packages

#: A trained agent that is there, for examples
DEMO = "docs/demo/HalfCheetahVel-v0.safetensors"
#: Tasks at a time: each batch that is done moves the progress bar
N_ENVS = 10


class LoadedAgent(NamedTuple):
    """
    An agent and what it was trained with.

    :param model: SB3 model, or an exported agent, which normalises observations itself
    :param env_id: Registered id of its environment
    :param env_kwargs: Arguments of the environment
    :param vec_normalize: Statistics of its observations, if they were normalised
    :param folder: Folder of its run, or the file's
    """

    model: BaseAlgorithm | ExportedAgent
    env_id: str
    env_kwargs: dict[str, Any]
    vec_normalize: VecNormalize | None
    folder: Path


def open_agent(
    path: str | Path,
    env: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    algo: str | None = None,
    last: bool = False,
) -> LoadedAgent:
    """
    Loading runs and zips unpickles: only load those that you trust. Exported agents load safely.

    :param path: Exported agent, folder of a run, or a zip. What is known of a run is also found for a zip that lies in
        its folder
    :param env: Registered id, if not that of the run
    :param env_kwargs: Arguments of the environment, on top of those of the run
    :param algo: Name of the algorithm in rl-zoo3, if not that of the run; ``"trmrl"`` for a zip without a run
    :param last: Of a run, take the model of the end instead of the best one on validation tasks; without evaluation
        during training there is no best one, and the model of the end is taken
    :return: The agent
    :raises FileNotFoundError: if there is no such model
    :raises ValueError: if it cannot be known which environment or algorithm it is, a file holds something else, or an
        exported agent or a zip came with an argument that is not for it
    """
    check_keywords("env_kwargs", env_kwargs)
    path = Path(path)
    if path.suffix == SUFFIX and not path.is_dir():
        return _open_exported(path, env, env_kwargs, algo, last)
    register()
    if not path.exists() and path.with_name(f"{path.name}.zip").is_file():
        path = path.with_name(f"{path.name}.zip")
    run = _run_of(path)
    if path.is_dir():
        assert run is not None
        model_path = _model_of(run, last)
    elif last:
        raise ValueError(f"`last` is for runs, and {path} is a zip")
    else:
        model_path = path
    env = env or (run.env_id if run else None)
    if env is None:
        raise ValueError(f"`env` must be given: {path} does not lie in the folder of a run")
    algo = algo or (run.algo if run else ALGO)
    if algo not in ALGOS:
        raise ValueError(f"`algo` must be one of {', '.join(ALGOS)}, got {algo!r}")
    if not has_environment(env):
        raise ValueError(f"`env` must be the id of a registered environment, got {env!r}")
    statistics = run.statistics_of(model_path) if run else model_path.with_name(STATISTICS)
    vec_normalize = None
    if statistics is not None and statistics.is_file():
        with open(statistics, "rb") as file, file_errors(statistics, "statistics of VecNormalize"):
            # VecNormalize.load does the same, and wants an environment
            vec_normalize = check_instance("statistics", pickle.load(file), VecNormalize, "a VecNormalize")
        vec_normalize.training = False
    # Schedules may be of a class that is gone, and are not needed
    custom_objects = {"learning_rate": 0.0, "clip_range": 0.0}
    with file_errors(model_path, f"a model of {algo}"):
        model = ALGOS[algo].load(model_path, device="cpu", custom_objects=custom_objects)
    kwargs = {**(run.env_kwargs if run and _same_id(env, run.env_id) else {}), **(env_kwargs or {})}
    return LoadedAgent(model, env, kwargs, vec_normalize, run.folder if run else model_path.parent)


def _open_exported(
    path: Path, env: str | None, env_kwargs: dict[str, Any] | None, algo: str | None, last: bool
) -> LoadedAgent:
    """
    :param path: Exported agent
    :param env: See :func:`open_agent`, as the others
    :return: The agent
    """
    if algo is not None:
        raise ValueError(f"`algo` is for zips, and {path} is an exported agent: got {algo!r}")
    if last:
        raise ValueError(f"`last` is for runs, and {path} is an exported agent")
    agent = load_agent(path)
    env = env or agent.env_id
    if env is None:
        raise ValueError(f"`env` must be given: {path} does not tell its environment")
    kwargs = {**(agent.env_kwargs if _same_id(env, agent.env_id) else {}), **(env_kwargs or {})}
    return LoadedAgent(agent, env, kwargs, None, path.parent)


def _same_id(env: str, other: str | None) -> bool:
    """
    :param env: Registered id, perhaps after the module that registers it and a colon
    :param other: Another one, None where it is not known
    :return: Whether they are of one environment
    """
    return other is not None and env.rpartition(":")[2] == other.rpartition(":")[2]


def _run_of(path: Path) -> Run | None:
    """
    :param path: Folder of a run, or a zip
    :return: The run; for a zip that lies in none, None
    :raises FileNotFoundError: if there is nothing, or a folder is not that of a run
    """
    if path.is_dir():
        return Run(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`model` must be the folder of a run, a zip or an exported agent, got {str(path)!r}: there is none"
        )
    return Run(path.parent) if any(path.parent.glob("*/args.yml")) else None


def _model_of(run: Run, last: bool) -> Path:
    """
    :param run: Run
    :param last: See :func:`open_agent`
    :return: Zip of the model
    :raises FileNotFoundError: if there is none
    """
    last_path = f"{run.stats_path}.zip"
    found = run.last_model if last else run.best_model or run.last_model
    if found is None:
        missing = f"{last_path}, the model of the end of training, is missing"
        raise FileNotFoundError(
            missing if last else f"there is no model: {run.folder / BEST_MODEL} is missing, and {last_path} too"
        )
    return found


def positive_int(text: str) -> int:
    """
    :param text: What the user gave
    :return: The number
    :raises argparse.ArgumentTypeError: if it is no integer from 1 on
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer, 1 or more, got {text!r}")
    return int(text)


@contextmanager
def argument_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """
    What is wrong with arguments becomes the parser's error, without a traceback. Errors of the user's own code keep it.

    :param parser: Parser of the command
    """
    try:
        yield
    except Exception as error:
        if not is_about_arguments(error):
            raise
        parser.error(error_text(error))


class StoreValues(StoreDict):
    """rl-zoo3's ``NAME:VALUE``, with an error of the parser where a value cannot be read."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        for each in values:
            try:
                super().__call__(parser, namespace, [each], option_string)  # type: ignore[no-untyped-call]
            except Exception as error:  # Python code may fail in any way
                text = f"must be NAME:VALUE with a value of Python, got {each!r}: {error}"
                raise argparse.ArgumentError(self, text) from error
        super().__call__(parser, namespace, values, option_string)  # type: ignore[no-untyped-call]


def seed(text: str) -> int:
    """
    :param text: What the user gave
    :return: The number
    :raises argparse.ArgumentTypeError: if it is no integer from 0 on
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer, 0 or more, got {text!r}")
    return int(text)


def output_folder(text: str) -> Path:
    """
    :param text: What the user gave
    :return: The folder, which need not be there
    :raises argparse.ArgumentTypeError: if there is a file in its place
    """
    path = Path(text)
    if any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise argparse.ArgumentTypeError(f"must be a folder, got {text!r}: there is a file of that name")
    return path


def agent_parser(command: str, description: str, example: str, plays: bool = True) -> argparse.ArgumentParser:
    """
    :param command: Name of the command
    :param description: What it does
    :param example: Its arguments in an example that runs
    :param plays: Whether the agent plays, with a seed
    :return: A parser with the arguments that all commands about one agent have
    """
    parser = argparse.ArgumentParser(
        prog=f"trmrl {command}",
        description=description,
        epilog=f"example:\n  python -m sb3_trmrl {command} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help=f"exported agent, for example {DEMO}, folder of a run, or a zip")
    parser.add_argument("--env", help="environment id, by default that it was trained on")
    parser.add_argument("--algo", help="algorithm of the zip, by default that of the run, or trmrl")
    parser.add_argument(
        "--env-kwargs", nargs="+", action=StoreValues, default={}, metavar="NAME:VALUE", help="environment arguments"
    )
    add_packages_argument(parser)
    parser.add_argument(
        "--last", action="store_true", help="of a run, the model of the end of training, not the best one"
    )
    if plays:
        parser.add_argument("--seed", type=seed, default=0, help="seed of the evaluation (default: 0)")
    return parser


def add_packages_argument(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: Parser of a command that makes environments; it gets the option of rl-zoo3's scripts, for
        :func:`~sb3_trmrl.zoo.runs.import_packages`
    """
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules to import that register environments"
    )


def agent_of(options: argparse.Namespace) -> LoadedAgent:
    """
    :param options: What :func:`agent_parser` parsed
    :return: The agent
    """
    import_packages(options.gym_packages, NEEDS_PACKAGES)
    return open_agent(options.model, options.env, options.env_kwargs, options.algo, options.last)
