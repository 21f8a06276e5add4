"""
Options that several commands share, their types and their errors.

Parsers import this module, so that it imports what needs PyTorch only within functions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_trmrl.trials.held_out import SPLITS
from sb3_trmrl.zoo.error_origin import error_text, is_about_arguments
from sb3_trmrl.zoo.named_values import StoreValues

if TYPE_CHECKING:
    from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
    from sb3_trmrl.zoo.agents import LoadedAgent

#: An existing trained agent, for the examples in help texts
DEMO = "docs/demo/HalfCheetahVel-v0.safetensors"
#: Number of tasks that are played at the same time; the progress bar moves after each batch
N_ENVS = 10


def _parse_int(low: int, text: str) -> int:
    if not text.isdecimal() or int(text) < low:
        raise argparse.ArgumentTypeError(f"must be an integer, {low} or more, got {text!r}")
    return int(text)


positive_int, non_negative_int = partial(_parse_int, 1), partial(_parse_int, 0)


def output_folder(text: str) -> Path:
    """Parse the path of a folder, which need not exist."""
    path = Path(text)
    if any(part.exists() and not part.is_dir() for part in (path, *path.parents)):
        raise argparse.ArgumentTypeError(f"must be a folder, got {text!r}: there is a file of that name")
    return path


@contextmanager
def argument_errors(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[None]:
    """Report wrong arguments as errors of the parser. Only errors in the user's own code keep their traceback."""
    try:
        yield
    except Exception as error:
        if not is_about_arguments(error):
            raise
        parser.error(prefix + error_text(error))


def command_parser(command: str, description: str, example: str, heading: str = "example") -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example, given as the arguments of a command that runs."""
    return argparse.ArgumentParser(
        prog=f"trmrl {command}",
        description=description,
        epilog=f"{heading}:\n  python -m sb3_trmrl {command} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def agent_parser(command: str, description: str, example: str, plays: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the arguments of all commands for one agent. Those that let it play take exported ones."""
    parser = command_parser(command, description, example)
    kinds = f"exported agent, for example {DEMO}, " if plays else ""
    parser.add_argument("model", help=f"{kinds}folder of a run, or zip of a model")
    parser.add_argument("--env", help="environment id (default: the environment of training)")
    parser.add_argument("--algo", help="algorithm of a zip (default: that of the run, or trmrl)")
    add_env_kwargs(parser, "arguments of the environment")
    add_gym_packages(parser)
    parser.add_argument(
        "--last", action="store_true", help="use the model at the end of a run instead of the best model"
    )
    if plays:
        add_seed(parser)
        parser.add_argument("--sampled", action="store_true", help="use stochastic instead of deterministic actions")
    return parser


def add_env_kwargs(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option ``--env-kwargs`` with this help text."""
    parser.add_argument("--env-kwargs", nargs="+", action=StoreValues, default={}, metavar="NAME:VALUE", help=text)


def add_gym_packages(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--gym-packages`` of rl-zoo3's scripts."""
    text = "modules to import that register environments (default: those of the run)"
    parser.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help=text)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--seed``."""
    parser.add_argument("--seed", type=non_negative_int, default=0, help="seed of the evaluation (default: 0)")


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--split``."""
    parser.add_argument("--split", choices=SPLITS, default="test", help="split of the tasks (default: test)")


def add_n_tasks(parser: argparse.ArgumentParser, default: object) -> None:
    """Add the option ``--n-tasks``, whose default :func:`fill_in_counts` sets."""
    text = f"number of tasks (default: {default}); of episodes, if the environment has no tasks"
    parser.add_argument("--n-tasks", type=positive_int, help=text)


def add_n_episodes(parser: argparse.ArgumentParser, default: object) -> None:
    """Add the option ``--n-episodes``, whose default :func:`fill_in_counts` sets."""
    text = f"number of episodes for each task (default: {default})"
    parser.add_argument("--n-episodes", type=positive_int, help=text)


def plays_trials(agent: LoadedAgent) -> bool:
    """Return whether the agent's environment has tasks, and plays trials of several episodes."""
    from sb3_trmrl.evaluation.trials import episodes_per_trial

    return episodes_per_trial(agent.env_id, agent.env_kwargs) is not None


def fill_in_counts(options: argparse.Namespace, in_trials: bool, n_tasks: int, n_episodes: int) -> dict[str, int]:
    """
    Set the numbers of tasks and episodes that were not given. Without tasks, either of them counts episodes. Return
    those that were given and are not the default, by name.
    """
    defaults = {"n_tasks": n_tasks, "n_episodes": n_episodes if in_trials else n_tasks}
    given = {key: getattr(options, key) for key in defaults}
    others = {key: number for key, number in given.items() if number not in (None, defaults[key])}
    if in_trials:
        options.n_tasks, options.n_episodes = options.n_tasks or n_tasks, options.n_episodes or n_episodes
    elif options.n_tasks is not None and options.n_episodes is not None:
        raise ValueError("only one of --n-tasks and --n-episodes can be given: the environment has no tasks")
    else:
        options.n_tasks, options.n_episodes = options.n_tasks or options.n_episodes or n_tasks, 1
    return others


def add_output(parser: argparse.ArgumentParser, default: str | None, text: str = "") -> None:
    """Add the option ``--output`` for a folder, with a description of the default if it depends on the agent."""
    folder = Path(default) if default is not None else None
    text = f"folder for the files (default: {text or default})"
    parser.add_argument("--output", type=output_folder, default=folder, help=text)


def load_agent_from(options: argparse.Namespace) -> LoadedAgent:
    """Load the agent of a command whose options were parsed by :func:`agent_parser`."""
    from sb3_trmrl.zoo.agents import open_agent
    from sb3_trmrl.zoo.runs import import_packages, search_current_folder

    import_packages(options.gym_packages)
    if options.env is not None and ":" in options.env:  # a module to import, and the id
        search_current_folder()
    return open_agent(options.model, options.env, options.env_kwargs, options.algo, options.last)


def evaluation_arguments(agent: LoadedAgent, options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that ``evaluate_adaptation`` and ``metaworld_protocol`` have in common."""
    return {
        "model": agent.model,
        "env_kwargs": agent.env_kwargs,
        "vec_normalize": agent.vec_normalize,
        "seed": options.seed,
        "split": options.split,
    }


def evaluate_agent(agent: LoadedAgent, options: argparse.Namespace, **further: Any) -> AdaptationResult:
    """Call ``evaluate_adaptation`` with the options of a command and further arguments."""
    from sb3_trmrl.evaluation.adaptation import evaluate_adaptation

    counts = {"n_eval_tasks": options.n_tasks, "n_eval_episodes": options.n_episodes}
    return evaluate_adaptation(env=agent.env_id, **counts, **evaluation_arguments(agent, options), **further)
