"""rl-zoo3's scripts with our defaults. Each function takes the arguments that follow the command's name."""

import argparse
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gymnasium as gym
import rl_zoo3
from huggingface_sb3 import EnvironmentName

from sb3_trmrl.resuming.checkpoint_files import find_checkpoint
from sb3_trmrl.transformer_ppo.arguments import check_device
from sb3_trmrl.trials.held_out import has_splits
from sb3_trmrl.zoo.error_origin import is_about_arguments
from sb3_trmrl.zoo.experiment import BadExperiment
from sb3_trmrl.zoo.registration import ALGO, register
from sb3_trmrl.zoo.runs import CHECKPOINTS, COMMAND_LINE, NEEDS_PACKAGES, Run, import_packages

#: Where the zoo's train writes; its enjoy and record_video look for downloaded agents elsewhere
LOG_FOLDER = "logs"


def _call(command: str, function: Callable[[], object], arguments: Sequence[str]) -> None:
    """
    The zoo's scripts read ``sys.argv``.

    :param command: Name that usage messages show
    :param function: The zoo's function
    :param arguments: Arguments of the command
    """
    before = sys.argv
    sys.argv = [f"trmrl {command}", *arguments]
    try:
        function()
    finally:
        sys.argv = before


def _parser() -> argparse.ArgumentParser:
    """
    :return: Parser of the few options that we look at before the zoo does
    """
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--env")
    return parser


def _train_parser() -> argparse.ArgumentParser:
    """
    :return: Parser of the options of ``train`` that are ours
    """
    parser = argparse.ArgumentParser(prog="trmrl train", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("options of sb3_trmrl")
    group.add_argument(
        "--report",
        action="store_true",
        help="at the end, compare the model before and after training on held-out tasks and draw the learning curve",
    )
    group.add_argument(
        "--checkpoint-freq",
        type=int,
        default=50_000,
        metavar="STEPS",
        help="steps between two checkpoints that --resume goes on from exactly, 0: none (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with the interrupted run in this folder, with its own arguments; no others are needed",
    )
    return parser


def train(arguments: Sequence[str]) -> None:
    """
    ``rl_zoo3.train``, with options of our own. Environments with held-out tasks are evaluated once on each of them.

    :param arguments: The zoo's arguments, ``--report``, ``--checkpoint-freq`` and ``--resume``
    """
    import rl_zoo3.train

    own = _train_parser()
    options, rest = own.parse_known_args(arguments)
    resume: Path | None = options.resume
    if resume is not None:
        arguments = _arguments_of_run(own, resume, rest)
        options, rest = own.parse_known_args(arguments)
    if options.checkpoint_freq < 0:
        own.error(f"argument --checkpoint-freq: must be 0 or more, got {options.checkpoint_freq}")
    if {"-h", "--help"} & set(rest):
        own.print_help()
        print()

    register(
        report=options.report, checkpoint_freq=options.checkpoint_freq, resume=resume, command_line=list(arguments)
    )
    rest = _with_evaluation_defaults(rest)
    own.usage = None
    _check_values(own, rest)
    try:
        _call("train", rl_zoo3.train.train, rest)
    except BadExperiment as error:
        own.error(str(error))


def _arguments_of_run(parser: argparse.ArgumentParser, folder: Path, given: Sequence[str]) -> list[str]:
    """
    :param parser: Whose error it is if the run cannot be resumed
    :param folder: Folder of an interrupted run
    :param given: The zoo's arguments besides ``--resume``; they win over those of the run
    :return: All arguments to train with
    """
    saved = next(iter(sorted(folder.glob(f"*/{COMMAND_LINE}"))), None)
    if saved is None:
        parser.error(f"argument --resume: {folder} is not the folder of a run that writes checkpoints")
    try:
        find_checkpoint(folder / CHECKPOINTS)
        run = Run(folder)
        of_run = json.loads(saved.read_text())
    except (FileNotFoundError, ValueError, ImportError) as error:
        if not is_about_arguments(error):
            raise
        parser.error(f"argument --resume: {error}")
    named = _parser()
    named.add_argument("--algo")
    for name, value in vars(named.parse_known_args(given)[0]).items():
        if value != getattr(run, {"env": "env_id"}.get(name, name)):
            parser.error(
                f"argument --resume: the run in {folder} is of {run.algo} on {run.env_id}, got --{name} {value}"
            )
    return [*of_run, *given, *([] if "--seed" in of_run else ["--seed", str(run.seed)])]


def _with_evaluation_defaults(arguments: Sequence[str]) -> list[str]:
    """
    :param arguments: The zoo's arguments
    :return: The same, for our algorithm and with one evaluation on each held-out task unless they say otherwise
    """
    parser = _parser()
    for name in ("--algo", "--eval-episodes", "--n-eval-envs", "--vec-env"):
        parser.add_argument(name)
    known = vars(parser.parse_known_args(arguments)[0])
    arguments = list(arguments)
    if "algo" not in known:
        arguments = ["--algo", ALGO, *arguments]
    if _is_registered_with_splits(known.get("env")):
        # 0: the experiment manager, which knows the environment's arguments, makes the number of tasks of it
        if "eval_episodes" not in known:
            arguments += ["--eval-episodes", "0"]
        # One batched forward for all tasks; as many processes would cost more than they give.
        if "n_eval_envs" not in known and known.get("vec_env", "dummy") == "dummy":
            arguments += ["--n-eval-envs", "0"]
    return arguments


def _is_registered_with_splits(env_id: str | None) -> bool:
    return env_id is not None and env_id in gym.registry and has_splits(env_id)


def _check_values(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """
    What the zoo evaluates, looks up or asserts without a word about the option.

    :param parser: Parser, for errors
    :param arguments: The zoo's
    """
    from sb3_trmrl.cli.agents import StoreValues

    reader = argparse.ArgumentParser(
        prog=parser.prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    reader.add_argument("--env")
    for names in (["--env-kwargs"], ["--eval-env-kwargs"], ["-params", "--hyperparams"]):
        reader.add_argument(*names, nargs="+", action=StoreValues)
    reader.add_argument("--gym-packages", nargs="+")
    reader.add_argument("-i", "--trained-agent")
    reader.add_argument("--device")
    reader.add_argument("--log-interval")
    known = vars(reader.parse_known_args(arguments)[0])
    try:
        import_packages(known.get("gym_packages", []), NEEDS_PACKAGES)
    except ImportError as error:
        if not is_about_arguments(error):
            raise
        parser.error(str(error))
    env_id = known.get("env")
    if env_id is not None and env_id not in gym.registry:
        parser.error(f"--env must be the id of a registered environment, got {env_id!r}")
    agent = known.get("trained_agent")
    if agent and not (agent.endswith(".zip") and os.path.isfile(agent)):
        parser.error(f"--trained-agent must be a model's zip, got {agent!r}")
    if known.get("log_interval") == "0":
        parser.error("--log-interval must be 1 or more, or negative for the algorithm's own, got 0")
    if "device" in known:
        try:
            check_device("--device", known["device"])
        except ValueError as error:
            parser.error(str(error))


def _with_defaults(arguments: Sequence[str]) -> list[str]:
    """
    :param arguments: Arguments of enjoy or record_video
    :return: The same, for our algorithm and the folder that train writes to unless they say otherwise
    """
    parser = _parser()
    parser.add_argument("--algo")
    parser.add_argument("-f", "--folder")
    known = parser.parse_known_args(arguments)[0]
    arguments = list(arguments)
    if "folder" not in known:
        arguments = ["--folder", LOG_FOLDER, *arguments]
    if "algo" not in known:
        arguments = ["--algo", ALGO, *arguments]
    return arguments


def _check_saved_agent(command: str, arguments: Sequence[str]) -> None:
    """
    :param command: Name of the command
    :param arguments: The zoo's, folder and algorithm among them
    """
    from rl_zoo3.utils import get_model_path

    parser = argparse.ArgumentParser(prog=f"trmrl {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("--env", type=EnvironmentName, default=EnvironmentName("CartPole-v1"))
    parser.add_argument("--algo")
    parser.add_argument("-f", "--folder")
    parser.add_argument("--exp-id", type=int, default=0)
    parser.add_argument("--load-best", action="store_true")
    parser.add_argument("--load-checkpoint", type=int)
    parser.add_argument("--load-last-checkpoint", action="store_true")
    known = parser.parse_known_args(arguments)[0]
    if {"-h", "--help"} & set(arguments) or known.algo not in rl_zoo3.ALGOS:
        return  # the zoo's parser says it
    _check_values(parser, arguments)
    which = (known.load_best, known.load_checkpoint, known.load_last_checkpoint)
    if "rl-trained-agents" in known.folder:
        return  # the zoo downloads what is not there
    try:
        get_model_path(known.exp_id, known.folder, known.algo, known.env, *which)
    except (AssertionError, ValueError) as error:
        parser.error(f"--folder must hold a run of --env {known.env.gym_id}, got {known.folder!r}: {error}")


def render_without_display() -> None:
    """
    Tell MuJoCo to render with EGL where there is no display.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


def enjoy(arguments: Sequence[str]) -> None:
    """
    ``rl_zoo3.enjoy``: watch a trained agent.

    :param arguments: The zoo's arguments
    """
    from rl_zoo3.enjoy import enjoy as zoo_enjoy

    register()
    arguments = _with_defaults(arguments)
    _check_saved_agent("enjoy", arguments)
    _call("enjoy", zoo_enjoy, arguments)


def record_video(arguments: Sequence[str]) -> None:
    """
    ``rl_zoo3.record_video``: a video of a trained agent. Without a display MuJoCo is told to render with EGL.

    :param arguments: The zoo's arguments
    """
    render_without_display()
    register()
    # A script without a function to call
    script = partial(runpy.run_module, "rl_zoo3.record_video", run_name="__main__")
    arguments = _with_defaults(arguments)
    _check_saved_agent("record_video", arguments)
    _call("record_video", script, arguments)


def plot(arguments: Sequence[str]) -> None:
    """
    The zoo's plots: ``train`` (training returns), ``all`` (evaluations of several runs), ``from_file`` (what ``all``
    saved).

    :param arguments: Name of the plot, then the zoo's arguments; ``--save FILE`` writes the picture instead of
        showing it
    """
    own = argparse.ArgumentParser(prog="trmrl plot", description="rl-zoo3's plots; `trmrl plot train --help` for more.")
    own.add_argument("kind", choices=["train", "all", "from_file"])
    own.add_argument("--save", metavar="FILE", type=Path, help="write the picture instead of showing it")
    # A --help after the kind is the zoo's.
    own_arguments, rest = own.parse_known_args(arguments[:1])
    saver = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    saver.add_argument("--save", type=Path)
    options, rest = saver.parse_known_args(arguments[1:])

    import matplotlib

    if options.save is not None:
        matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from rl_zoo3 import plots

    functions = {"train": plots.plot_train, "all": plots.all_plots, "from_file": plots.plot_from_file}
    register()
    _call(f"plot {own_arguments.kind}", functions[own_arguments.kind], rest)
    if options.save is not None:
        numbers = plt.get_fignums()
        for number in numbers:
            # Some plots make several figures
            path = options.save if len(numbers) == 1 else options.save.with_stem(f"{options.save.stem}_{number}")
            plt.figure(number).savefig(path, dpi=150)
            print(f"Saved {path}")


def report(arguments: Sequence[str]) -> None:
    """
    The report that ``train --report`` ends with, for a run that is there already.

    :param arguments: Folder of the run
    """
    from sb3_trmrl.cli.agents import argument_errors
    from sb3_trmrl.zoo.report import write_report

    parser = argparse.ArgumentParser(prog="trmrl report", description="Compare the models of a run on held-out tasks.")
    parser.add_argument("folder", help=f"folder of the run, for example {LOG_FOLDER}/{ALGO}/HalfCheetahVel-v0_1")
    options = parser.parse_args(arguments)
    register()
    with argument_errors(parser):
        write_report(options.folder)
