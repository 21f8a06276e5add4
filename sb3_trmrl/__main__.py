"""The one command line: ``python -m sb3_trmrl``, installed as ``trmrl``."""

import sys
from collections.abc import Sequence

#: Commands, and what the help says about them; each is a function of :mod:`sb3_trmrl.zoo.launchers`
COMMANDS = {
    "train": "train an agent: rl-zoo3's train, with --report",
    "enjoy": "watch a trained agent: rl-zoo3's enjoy",
    "record_video": "record a video of a trained agent: rl-zoo3's record_video",
    "plot": "rl-zoo3's plots: train, all, from_file",
    "report": "compare a run's models before and after training on held-out tasks",
}

USAGE = "usage: trmrl COMMAND ...\n\ncommands (trmrl COMMAND --help for their options):\n" + "\n".join(
    f"  {name:<14}{text}" for name, text in COMMANDS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """
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
        from sb3_trmrl.zoo import launchers
    except ModuleNotFoundError as error:
        print(f"{error}: pip install 'sb3_trmrl[zoo]'", file=sys.stderr)
        return 1
    getattr(launchers, command)(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
