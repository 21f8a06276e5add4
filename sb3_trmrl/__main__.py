"""The command line: ``python -m sb3_trmrl``, installed as ``trmrl``."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

#: Commands: the module that has a function of this name, and a description for the help. ``cli.parsers`` has a function
#: of the same name that reads the arguments
COMMANDS = {
    "train": ("cli.train", "train an agent: rl-zoo3's train, with --report and --resume"),
    "enjoy": ("cli.enjoy", "watch a trained agent: rl-zoo3's enjoy"),
    "record_video": ("cli.enjoy", "record a video of a trained agent: rl-zoo3's record_video"),
    "plot": ("cli.plot", "draw rl-zoo3's plots: train, all, from_file"),
    "report": ("cli.report", "compare the models of a run before and after training on held-out tasks"),
    "experiment": (
        "cli.experiment",
        "train agents x environments x seeds, and write tables and pictures",
    ),
    "evaluate": ("cli.evaluate", "evaluate the adaptation to new tasks, episode by episode"),
    "compare": ("cli.compare", "compare several agents with several seeds on the same test tasks"),
    "analyze": ("cli.analyze", "run the paper's analyses of a trained agent"),
    "render": ("cli.render", "record a video of one trial"),
    "export": ("cli.export", "write a trained agent as a file that is safe to share"),
    "push": ("cli.push", "upload an exported agent to the Hugging Face Hub"),
}

USAGE = "usage: trmrl COMMAND ...\n\ncommands (trmrl COMMAND --help shows their options):\n" + "\n".join(
    f"  {name:<14}{text}" for name, (_, text) in COMMANDS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: Command and its arguments, by default those of the process
    :return: Exit status: 0, 1 if the extra ``zoo`` is not installed, 2 for an unknown command
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments.pop(0) if arguments else ""
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        from sb3_trmrl import __version__

        print(__version__)
        return 0
    if command not in COMMANDS:
        print(f"unknown command {command!r}\n{USAGE}" if command else USAGE, file=sys.stderr)
        return 2
    try:
        from sb3_trmrl.cli import parsers

        parsed = getattr(parsers, command)(arguments)  # ends the process after --help and after wrong options
        module = importlib.import_module(f"sb3_trmrl.{COMMANDS[command][0]}")
    except ModuleNotFoundError as error:
        print(f"{error}: pip install 'sb3_trmrl[zoo]'", file=sys.stderr)
        return 1
    getattr(module, command)(*parsed)
    return 0


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process."""
    status = main(arguments)
    if int(os.environ.get("RANK", "0")) > 0:
        from sb3_trmrl.distributed.collectives import leave

        # At the end of a rank, PyTorch 2.13 sometimes aborts while it destroys C++ objects. torchrun would take this
        # for a failure, and end rank 0 before it has written its report
        leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
