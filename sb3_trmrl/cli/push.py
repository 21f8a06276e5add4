"""``push``: an exported agent to the Hugging Face Hub."""

from __future__ import annotations

import argparse

from sb3_trmrl.cli.options import argument_errors, fill_in_counts, plays_trials
from sb3_trmrl.common.threads import one_thread
from sb3_trmrl.sharing.hub import push_to_hub
from sb3_trmrl.zoo.agents import open_agent
from sb3_trmrl.zoo.runs import import_packages


@one_thread()
def push(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Upload an exported agent with its model card to the Hub."""
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
