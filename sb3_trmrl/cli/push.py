"""``push``: an exported agent to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_trmrl.cli.options import (
    DEMO,
    add_gym_packages,
    add_n_episodes,
    add_n_tasks,
    argument_errors,
    command_parser,
    fill_in_counts,
    plays_trials,
)
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.sharing.hub import push_to_hub
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.runs import import_packages


@one_thread()
def push(arguments: Sequence[str]) -> None:
    """Upload an exported agent with its model card to the Hub."""
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
    options = parser.parse_args(arguments)
    with argument_errors(parser):
        import_packages(options.gym_packages)
        if not options.no_evaluation:
            fill_in_counts(options, plays_trials(open_agent(options.file)), 20, 6)
        url = push_to_hub(
            options.file,
            options.repo_id,
            evaluate=not options.no_evaluation,
            n_eval_tasks=options.n_tasks or 20,
            n_eval_episodes=options.n_episodes or 6,
            private=options.private or None,
            endpoint=options.endpoint,
        )
    print(f"Pushed {url}")
