"""
rl-zoo3's scripts, called in this process. They run with our defaults. Options are checked first if the scripts would
fail without naming them.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium as gym
import rl_zoo3
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_model_path

from sb3_trmrl.resuming.checkpoint_files import find_checkpoint
from sb3_trmrl.transformer_ppo.arguments import check_device
from sb3_trmrl.trials.held_out import has_splits
from sb3_trmrl.zoo.registration import ALGO
from sb3_trmrl.zoo.runs import CHECKPOINTS, COMMAND_LINE, Run, import_packages

#: Where rl-zoo3's train writes. Its enjoy and record_video read from the folder of downloaded agents by default
LOG_FOLDER = "logs"


def run_script(command: str, script: Callable[[], object], arguments: Sequence[str]) -> None:
    """Call one of rl-zoo3's scripts, which read their arguments from ``sys.argv``."""
    before = sys.argv
    sys.argv = [f"trmrl {command}", *arguments]
    try:
        script()
    finally:
        sys.argv = before


def script_options(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of rl-zoo3's scripts that get a default or are checked here; None where one is not given."""
    parser = argparse.ArgumentParser(prog=f"trmrl {command}", usage=argparse.SUPPRESS, add_help=False)
    for name in ("--algo", "--env", "--eval-episodes", "--n-eval-envs", "--vec-env", "--device", "--log-interval"):
        parser.add_argument(name)
    parser.add_argument("-f", "--folder")
    parser.add_argument("-i", "--trained-agent")
    parser.add_argument("--gym-packages", nargs="+", default=[])
    parser.add_argument("--exp-id", type=int, default=0)
    parser.add_argument("--load-best", action="store_true")
    parser.add_argument("--load-checkpoint", type=int)
    parser.add_argument("--load-last-checkpoint", action="store_true")
    return parser.parse_known_args(arguments)[0]


def with_training_defaults(arguments: Sequence[str]) -> list[str]:
    """Add our defaults for training: our algorithm, and one evaluation episode on each held-out task."""
    options = script_options("train", arguments)
    arguments = list(arguments)
    if options.algo is None:
        arguments = ["--algo", ALGO, *arguments]
    if options.env in gym.registry and has_splits(options.env):
        # The experiment manager, which knows the arguments of the environment, replaces 0 by the number of tasks
        if options.eval_episodes is None:
            arguments += ["--eval-episodes", "0"]
        # All tasks share one batched forward pass; a process for each task would cost more than it saves
        if options.n_eval_envs is None and options.vec_env in (None, "dummy"):
            arguments += ["--n-eval-envs", "0"]
    return arguments


def with_playing_defaults(command: str, arguments: Sequence[str]) -> list[str]:
    """Add our defaults for watching an agent: our algorithm, and the folder that training writes to."""
    options = script_options(command, arguments)
    folder = ["--folder", LOG_FOLDER] if options.folder is None else []
    return [*(["--algo", ALGO] if options.algo is None else []), *folder, *arguments]


def check_options(options: argparse.Namespace) -> None:
    """Check options of all scripts, after importing the modules that register environments."""
    import_packages(options.gym_packages)
    if options.env is not None and options.env not in gym.registry:
        raise ValueError(f"--env must be the id of a registered environment, got {options.env!r}")
    agent = options.trained_agent
    if agent and not (agent.endswith(".zip") and os.path.isfile(agent)):
        raise ValueError(f"--trained-agent must be a model's zip, got {agent!r}")
    if options.log_interval == "0":
        raise ValueError("--log-interval must be 1 or more, or negative for the algorithm's own, got 0")
    if options.device is not None:
        check_device("--device", options.device)


def check_saved_agent(command: str, arguments: Sequence[str]) -> str | None:
    """Check that the agent to watch exists, and return the folder of its run, or None if that is left to rl-zoo3."""
    options = script_options(command, arguments)
    if {"-h", "--help"} & set(arguments) or options.algo not in rl_zoo3.ALGOS:
        return None  # rl-zoo3's parser prints the help, or the names of the algorithms
    check_options(options)
    if "rl-trained-agents" in options.folder:
        return None  # rl-zoo3 downloads missing agents
    env = EnvironmentName(options.env or "CartPole-v1")
    which = (options.load_best, options.load_checkpoint, options.load_last_checkpoint)
    try:
        folder: str = get_model_path(options.exp_id, options.folder, options.algo, env, *which)[2]
    except (AssertionError, ValueError) as error:
        raise ValueError(f"--folder must hold a run of --env {env.gym_id}, got {options.folder!r}: {error}") from error
    return folder


def resumed_run(folder: Path, given: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the newest intact checkpoint of an interrupted run, and all arguments to train with."""
    # ``given`` are the arguments besides --resume, which override those of the run
    saved = next(iter(sorted(folder.glob(f"*/{COMMAND_LINE}"))), None)
    if saved is None:
        raise ValueError(f"{folder} is not the folder of a run that writes checkpoints")
    checkpoint = find_checkpoint(folder / CHECKPOINTS)
    run = Run(folder)
    original = json.loads(saved.read_text())
    options = script_options("train", given)
    for name, value, expected in (("--env", options.env, run.env_id), ("--algo", options.algo, run.algo)):
        if value not in (None, expected):
            raise ValueError(f"the run in {folder} trains {run.algo} on {run.env_id}, got {name} {value}")
    return checkpoint, [*original, *given, *([] if "--seed" in original else ["--seed", str(run.seed)])]
