"""
The parsers of all commands. They import neither PyTorch nor rl-zoo3, so that help and errors appear at once.

The function of a command returns what the function of the same name in the command's own module takes: the parser, for
further errors, the parsed options and, if some arguments are for rl-zoo3, these arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sb3_trmrl.cli.options import (
    DEMO,
    add_env_kwargs,
    add_gym_packages,
    add_n_episodes,
    add_n_tasks,
    add_output,
    add_seed,
    add_split,
    agent_parser,
    command_parser,
    non_negative_int,
    output_folder,
    positive_int,
)
from sb3_trmrl.trials.held_out import N_HELD_OUT_TASKS
from sb3_trmrl.zoo.defaults import ALGO, CHECKPOINT_FREQ, LOG_FOLDER, default_num_threads
from sb3_trmrl.zoo.script_parsers import script_parser

Parsed = tuple[argparse.ArgumentParser, argparse.Namespace]
#: With arguments for rl-zoo3
ParsedScript = tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]

#: The analyses with their default numbers of tasks and episodes, those of the paper where it gives them
ANALYSES: dict[str, tuple[int, int, str]] = {
    "online": (20, 1, "reward and velocity at each step (figure 9), for any agent"),
    "refinement": (30, 3, "memories of each layer (figure 7)"),
    "memories": (8, 2, "working memories in three dimensions (figure 8)"),
    "attention": (1, 2, "attention weights of each head during one trial"),
    "consensus": (10, 2, "Bayes risk of the attention output (theorem 4.1)"),
}
#: rl-zoo3's plots
PLOTS = {"train": "plot_train", "all": "all_plots", "from_file": "plot_from_file"}


# -- Commands that run a script of rl-zoo3 ----------------------------------------------------------------------------


def train(arguments: Sequence[str]) -> ParsedScript:
    """Read the options of rl-zoo3's train and ours."""
    parser = script_parser("train", "trmrl train", allow_abbrev=False)
    _add_train_options(parser)
    parser.set_defaults(algo=ALGO, num_threads=default_num_threads())
    options, _ = parser.parse_known_args(arguments)  # rl-zoo3 refuses unknown options
    if options.track and find_spec("wandb") is None:
        parser.error("argument --track: needs the package wandb, which is not installed: pip install wandb")
    return parser, options, list(arguments)


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of sb3_trmrl")
    group.add_argument(
        "--report",
        action="store_true",
        help="after training, compare the models before and after it on held-out tasks and draw the learning curve",
    )
    group.add_argument(
        "--checkpoint-freq",
        type=non_negative_int,
        default=CHECKPOINT_FREQ,
        metavar="STEPS",
        help="environment steps between two checkpoints for --resume, 0 for none (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="continue the interrupted run in this folder with its saved arguments; no others are needed",
    )


def without_train_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of ``train`` that are for rl-zoo3."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_train_options(parser)
    return parser.parse_known_args(arguments)[1]


def without_resume(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of ``train`` besides ``--resume``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume")
    return parser.parse_known_args(arguments)[1]


def enjoy(arguments: Sequence[str]) -> ParsedScript:
    """Read the options of rl-zoo3's enjoy."""
    return _playing("enjoy", arguments)


def record_video(arguments: Sequence[str]) -> ParsedScript:
    """Read the options of rl-zoo3's record_video."""
    return _playing("record_video", arguments)


def _playing(command: str, arguments: Sequence[str]) -> ParsedScript:
    parser = script_parser(command, f"trmrl {command}")
    parser.set_defaults(algo=ALGO, folder=LOG_FOLDER, num_threads=default_num_threads())
    options, _ = parser.parse_known_args(arguments)
    return parser, options, list(arguments)


def plot(arguments: Sequence[str]) -> ParsedScript:
    """Read the kind of the plot, the options of rl-zoo3's script and ``--save``."""
    parser = argparse.ArgumentParser(
        prog="trmrl plot", description="The plots of rl-zoo3. `trmrl plot train --help` shows the options of one plot."
    )
    parser.add_argument("kind", choices=list(PLOTS))
    parser.add_argument("--save", metavar="FILE", help="write the plot to a file instead of showing it")
    kind = parser.parse_known_args(arguments[:1])[0].kind  # --help after the kind is about its options
    parser = script_parser(f"plots/{PLOTS[kind]}", f"trmrl plot {kind}")
    saver = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for each in (parser, saver):
        each.add_argument("--save", type=Path, metavar="FILE", help="write the plot to a file instead of showing it")
    parser.parse_known_args(arguments[1:])
    options, rest = saver.parse_known_args(arguments[1:])
    options.kind = kind
    return parser, options, rest


# -- Commands for one agent -------------------------------------------------------------------------------------------


def evaluate(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``evaluate``."""
    about = "Adaptation to new tasks, episode by episode; without tasks, the mean return of an episode."
    parser = agent_parser("evaluate", about, f"{DEMO} --n-episodes 3")
    parser.add_argument(
        "--protocol",
        choices=["metaworld"],
        help="metaworld: success rate of each class in the last 3 episodes of some of its tasks",
    )
    add_n_tasks(parser, "20; with --protocol, 10 of each class")
    add_n_episodes(parser, "6; with --protocol, 13")
    add_split(parser)
    add_output(parser, None, "the folder of the agent")
    return parser, parser.parse_args(arguments)


def render(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``render``."""
    about = "Record a video of one trial on a test task; without tasks, of several episodes."
    parser = agent_parser("render", about, f"{DEMO} --output trial.mp4")
    last_task = N_HELD_OUT_TASKS - 1
    parser.add_argument(
        "--task", type=int, default=0, help=f"index of the test task or episode, 0 to {last_task} (default: 0)"
    )
    parser.add_argument(
        "--n-episodes",
        type=positive_int,
        help="number of episodes (default: 2; without tasks, up to 5 until the video has 100 frames)",
    )
    parser.add_argument("--output", type=Path, default=Path("trial.mp4"), help="file to write (default: trial.mp4)")
    return parser, parser.parse_args(arguments)


def export(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``export``."""
    parser = agent_parser(
        "export",
        "Write a trained agent as a file that others can load without running any code. Loading the run or the zip "
        "unpickles it: export only files that you trust.",
        "logs/trmrl/HalfCheetahVel-v0_1 HalfCheetahVel-v0.safetensors",
        plays=False,
    )
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="float16: a file of half the size, whose actions differ slightly from the model's (default: float32)",
    )
    parser.add_argument(
        "--no-critic", dest="critic", action="store_false", help="leave out the critic, which is not needed for acting"
    )
    return parser, parser.parse_args(arguments)


def push(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``push``."""
    parser = command_parser(
        "push",
        "Upload an exported agent to the Hugging Face Hub, with a model card and a plot of its adaptation.",
        f"{DEMO} me/trmrl-HalfCheetahVel-v0",
        heading="example, after `hf auth login`",
    )
    parser.add_argument("file", help="exported agent, .safetensors")
    parser.add_argument("repo_id", help="repository, user/name")
    add_n_tasks(parser, 20)
    add_n_episodes(parser, 6)
    parser.add_argument("--no-evaluation", action="store_true", help="write a card without results and plot")
    add_gym_packages(parser)
    parser.add_argument("--private", action="store_true", help="make the repository private if it does not exist yet")
    parser.add_argument("--endpoint", help="address of the Hub (default: the public one)")
    return parser, parser.parse_args(arguments)


# -- Analyses ---------------------------------------------------------------------------------------------------------


def analyze(arguments: Sequence[str]) -> tuple[str, argparse.ArgumentParser, argparse.Namespace]:
    """Read the kind of the analysis and its options."""
    kinds = "".join(f"  {kind:<12}{text}\n" for kind, (*_, text) in ANALYSES.items())
    parser = argparse.ArgumentParser(
        prog="trmrl analyze",
        description="The paper's analyses. `trmrl analyze KIND --help` shows the options.",
        epilog=f"kinds:\n{kinds}"
        "  all         all of these, for an agent with a TrMRL policy\n\n"
        f"example:\n  python -m sb3_trmrl analyze all {DEMO} --output analysis",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*ANALYSES, "all"], metavar="KIND", help="see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="model and options")
    parsed = parser.parse_args(arguments)
    kind: str = parsed.kind
    parser = _analysis_parser(kind)
    options = parser.parse_args(parsed.rest)
    if kind in ("refinement", "all") and options.n_tasks == 1:
        parser.error("--n-tasks must be 2 or more for refinement, which fits and tests on different tasks, got 1")
    if kind in ("online", "all") and (options.window < 1 or options.window % 2 == 0):
        parser.error(f"--window must be odd and 1 or more, got {options.window}")
    return kind, parser, options


def _analysis_parser(kind: str) -> argparse.ArgumentParser:
    text = "all analyses of an agent" if kind == "all" else ANALYSES[kind][2]
    example = f"{DEMO}{'' if kind == 'attention' else ' --n-tasks 6'} --output analysis"
    parser = agent_parser(f"analyze {kind}", f"{text[0].upper()}{text[1:]}.", example)
    defaults = ["that of each analysis"] * 2 if kind == "all" else [str(count) for count in ANALYSES[kind][:2]]
    if kind != "attention":
        add_n_tasks(parser, defaults[0])
    if kind in ("online", "all"):
        parser.add_argument(
            "--window", type=int, default=11, help="number of steps to smooth rewards over, odd (default: 11)"
        )
    if kind != "online":
        add_n_episodes(parser, defaults[1])
    add_split(parser)
    add_output(parser, None, "`analysis` in the folder of the agent")
    return parser


# -- Commands for runs ------------------------------------------------------------------------------------------------


def compare(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``compare``."""
    parser = command_parser(
        "compare",
        "Compare agents on the same test tasks, with intervals over training seeds. An agent is given by its name and "
        "the folders of its runs, or exported agents (.safetensors), which have no learning curve.",
        "'TrMRL=logs/trmrl/HalfCheetahVel-v0_*' 'RL2=logs/ppo_lstm/HalfCheetahVel-v0_*' --output comparison",
    )
    parser.add_argument(
        "agents", nargs="+", metavar="NAME=PATHS", help="name of an agent, and folders of its runs or exported agents"
    )
    add_n_tasks(parser, 20)
    add_n_episodes(parser, 3)
    add_split(parser)
    add_env_kwargs(
        parser, "arguments of the environment, added to those of each run, for example 'velocity_range:(3, 4)'"
    )
    add_gym_packages(parser)
    add_seed(parser)
    parser.add_argument("--lower", metavar="NAME", help="name of the agent without task information")
    parser.add_argument("--oracle", metavar="NAME", help="name of the task-conditioned oracle")
    add_output(parser, "comparison")
    return parser, parser.parse_args(arguments)


def experiment(arguments: Sequence[str]) -> Parsed:
    """Read what to do with the file of an experiment, ``run`` or ``report``, and its options."""
    parser = command_parser(
        "experiment",
        "Train the agents of an experiment, and write tables and pictures of the results. A yml file lists agents, "
        "environments, seeds and settings.",
        "run experiments/bandit.yml",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train_all = actions.add_parser(
        "run",
        help="train what is not finished",
        description="Train the agents of an experiment, each run in its own process. Start the command again after "
        "an interruption: finished runs are not repeated, and interrupted ones continue from their last "
        "checkpoint, or start again if their algorithm writes none. The exit status is 1 if a run failed.",
    )
    write = actions.add_parser(
        "report",
        help="write tables and pictures of the finished runs",
        description="Evaluate the finished runs of an experiment on new tasks, and write tables and pictures.",
    )
    for each in (train_all, write):
        each.add_argument("file", type=Path, help="yml file of the experiment")
        each.add_argument(
            "--folder", type=output_folder, help=f"folder of the runs (default: {LOG_FOLDER}/experiments/NAME)"
        )
        each.add_argument(
            "--jobs", type=positive_int, metavar="N", help="number of processes (default: number of physical cores)"
        )
    train_all.add_argument(
        "--num-threads", type=positive_int, default=1, metavar="N", help="threads of each process (default: 1)"
    )
    train_all.add_argument(
        "--checkpoint-freq",
        type=non_negative_int,
        default=CHECKPOINT_FREQ,
        metavar="STEPS",
        help="environment steps between two checkpoints, 0 for none (default: %(default)s)",
    )
    train_all.add_argument(
        "--only",
        nargs="+",
        metavar="PATTERN",
        help="runs to train, as AGENT/SEED or ENVIRONMENT/AGENT/SEED with wildcards, for example 'TrMRL/*' '*/10'",
    )
    train_all.add_argument(
        "--dry-run", action="store_true", help="list the runs, their states and their commands, and train nothing"
    )
    add_output(write, None, "a folder beside the file, with its name")
    return parser, parser.parse_args(arguments)


def report(arguments: Sequence[str]) -> Parsed:
    """Read the options of ``report``."""
    parser = argparse.ArgumentParser(
        prog="trmrl report", description="Compare the models of a run before and after training on held-out tasks."
    )
    parser.add_argument("folder", help=f"folder of the run, for example {LOG_FOLDER}/{ALGO}/HalfCheetahVel-v0_1")
    return parser, parser.parse_args(arguments)
