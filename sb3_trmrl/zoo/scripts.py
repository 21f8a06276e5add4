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
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_latest_run_id, get_model_path

from sb3_trmrl.algorithms.arguments import check_device
from sb3_trmrl.resuming.checkpoint_files import find_checkpoint
from sb3_trmrl.zoo.defaults import ALGO
from sb3_trmrl.zoo.runs import CHECKPOINTS, COMMAND_LINE, Run, import_packages
from sb3_trmrl.zoo.script_parsers import script_parser


def run_script(command: str, script: Callable[[], object], arguments: Sequence[str]) -> None:
    """Call one of rl-zoo3's scripts, which read their arguments from ``sys.argv``."""
    before = sys.argv
    sys.argv = [f"trmrl {command}", *arguments]
    try:
        script()
    finally:
        sys.argv = before


def training_arguments(options: argparse.Namespace, arguments: Sequence[str]) -> list[str]:
    """Check the options of training, and return the arguments with our defaults and the modules to import."""
    continued = _packages_of(Path(options.trained_agent).parent) if options.trained_agent else []
    packages = dict.fromkeys([*continued, *options.gym_packages])
    import_packages(packages)
    check_options(options)
    # The arguments are the last ones, so that they take precedence
    defaults = ["--algo", ALGO, "--num-threads", str(options.num_threads)]
    # The experiment manager, which knows the arguments of the environment, replaces 0 by the number of tasks, or by 20
    defaults += ["--eval-episodes", "0"]
    # All tasks share one batched forward pass; a process for each task would cost more than it saves
    if options.vec_env == "dummy":
        defaults += ["--n-eval-envs", "0"]
    return [*defaults, *arguments, *(["--gym-packages", *packages] if packages else [])]


def _packages_of(folder: Path) -> list[str]:
    """Return the modules that the run in a folder needs, none if the folder is not that of a run."""
    return Run(folder).gym_packages if any(folder.glob("*/args.yml")) else []


def check_options(options: argparse.Namespace) -> None:
    """Check options of all scripts, after the modules that register environments have been imported."""
    if options.env not in gym.registry:
        raise ValueError(f"--env must be the id of a registered environment, got {options.env!r}")
    agent = getattr(options, "trained_agent", "")
    if agent and not (agent.endswith(".zip") and os.path.isfile(agent)):
        raise ValueError(f"--trained-agent must be a model's zip, got {agent!r}")
    if getattr(options, "log_interval", None) == 0:
        raise ValueError("--log-interval must be 1 or more, or negative for the algorithm's own, got 0")
    if hasattr(options, "device"):
        check_device("--device", options.device)


def check_saved_agent(options: argparse.Namespace) -> str | None:
    """Check that the agent to watch exists, and return the folder of its run, or None if that is left to rl-zoo3."""
    import_packages(getattr(options, "gym_packages", ()))  # record_video has no such option
    env = EnvironmentName(options.env)
    runs = os.path.join(options.folder, options.algo)
    run_id = options.exp_id or get_latest_run_id(runs, env)
    _packages_of(Path(runs, f"{env}_{run_id}"))  # imports them
    check_options(options)
    if "rl-trained-agents" in options.folder:
        return None  # rl-zoo3 downloads missing agents
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
    parser = script_parser("train", "trmrl train", allow_abbrev=False)
    parser.set_defaults(env=run.env_id, algo=run.algo)
    options, _ = parser.parse_known_args(given)
    for name, value, expected in (("--env", options.env, run.env_id), ("--algo", options.algo, run.algo)):
        if value != expected:
            raise ValueError(f"the run in {folder} trains {run.algo} on {run.env_id}, got {name} {value}")
    # First, so that arguments of the user take precedence: the default may have been another one
    evaluated = [f"{name}={number}" for name, number in run.evaluation.items()]
    return checkpoint, [*evaluated, *original, *given, *([] if "--seed" in original else ["--seed", str(run.seed)])]
