"""``plot``: rl-zoo3's plots, with an option to save them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sb3_trmrl.cli.parsers import PLOTS
from sb3_trmrl.zoo.registration import register
from sb3_trmrl.zoo.scripts import run_script


def plot(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run one of rl-zoo3's plots: of training returns, of evaluations of several runs, or of saved results."""
    import matplotlib

    if options.save is not None:
        matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from rl_zoo3 import plots

    register()
    run_script(f"plot {options.kind}", getattr(plots, PLOTS[options.kind]), arguments)
    if options.save is not None:
        numbers = plt.get_fignums()
        for number in numbers:
            # Some plots have several figures
            path = options.save if len(numbers) == 1 else options.save.with_stem(f"{options.save.stem}_{number}")
            plt.figure(number).savefig(path, dpi=150)
            print(f"Saved {path}")
