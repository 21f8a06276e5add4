"""``push``: an exported agent to the Hugging Face Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sb3_trmrl.cli.agents import DEMO, add_packages_argument, argument_errors, positive_int
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.sharing.hub import push_to_hub
from sb3_trmrl.zoo.runs import NEEDS_PACKAGES, import_packages


@one_thread()
def push(arguments: Sequence[str]) -> None:
    """
    Put an exported agent on the Hub, with its model card.

    :param arguments: See ``--help``
    """
    parser = argparse.ArgumentParser(
        prog="trmrl push",
        description="An exported agent to the Hugging Face Hub, with a model card and the picture of its adaptation.",
        epilog=f"example, after `hf auth login`:\n  python -m sb3_trmrl push {DEMO} me/trmrl-HalfCheetahVel-v0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="exported agent, .safetensors")
    parser.add_argument("repo_id", help="repository, user/name")
    parser.add_argument("--n-tasks", type=positive_int, default=20, help="tasks of the evaluation (default: 20)")
    parser.add_argument("--n-episodes", type=positive_int, default=6, help="episodes of each task (default: 6)")
    parser.add_argument("--no-evaluation", action="store_true", help="a card without results and picture")
    add_packages_argument(parser)
    parser.add_argument("--private", action="store_true", help="make a private repository, if there is none")
    parser.add_argument("--endpoint", help="address of the Hub, if not the public one")
    options = parser.parse_args(arguments)
    with argument_errors(parser):
        import_packages(options.gym_packages, NEEDS_PACKAGES)
        url = push_to_hub(
            options.file,
            options.repo_id,
            evaluate=not options.no_evaluation,
            n_eval_tasks=options.n_tasks,
            n_eval_episodes=options.n_episodes,
            private=options.private or None,
            endpoint=options.endpoint,
        )
    print(f"Pushed {url}")
