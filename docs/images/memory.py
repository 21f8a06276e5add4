"""
Draw memory.svg, the picture of docs/explanation/memory.md: one trial, and the tokens in memory at one of its steps.

    python docs/images/memory.py
"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

N_EPISODES, HORIZON, N = 3, 6, 4
#: The step that is shown: the second one of the last episode
NOW = 2 * HORIZON + 1
COLOURS = ("#0072B2", "#00795a", "#a85100")  # white text is legible on each
GREY, DARK = "#666666", "#222222"
#: Width and height of the picture in inches and in the units of its coordinates. The site shows it at this width.
SIZE, UNITS = (7.7, 5.9), (25.0, 19.2)
CODE = dict(family="monospace", fontsize=9, color=DARK, va="center")
#: Arguments of the policy, and the oldest token in its memory
MEMORIES = (
    ('memory="window", reset_memory_on="episode"', 2 * HORIZON),
    ('memory="window", reset_memory_on="trial"', NOW - N + 1),
    ('memory="full", reset_memory_on="episode"', 2 * HORIZON),
    ('memory="full", reset_memory_on="trial"', 0),
)


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, filled: bool) -> None:
    """Draw a box with its lower left corner at (x, y). The text is white if the box is filled."""
    axes.fill(
        [x, x + width, x + width, x], [y, y, y + height, y + height], facecolor=colour if filled else "white",
        edgecolor=colour, linewidth=1.5,
    )  # fmt: skip
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="white" if filled else DARK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>") -> None:
    axes.annotate("", end, start, arrowprops=dict(arrowstyle=style, color=DARK, linewidth=1.2, shrinkA=0, shrinkB=0))


def draw_trial(axes: Axes) -> None:
    """Draw the trial, its tokens, and bars that cover the tokens in memory."""
    end = N_EPISODES * HORIZON
    box(axes, 0, 17.6, end - 0.1, 1.2, "one trial: one task, one episode for Gymnasium and SB3", DARK, True)
    box(axes, end + 0.1, 17.6, 6.6, 1.2, "next trial, new task", GREY, True)
    for episode in range(N_EPISODES):
        x = episode * HORIZON
        box(axes, x, 16, HORIZON - 0.1, 1.2, f"inner episode {episode + 1}", COLOURS[episode], False)
        for step in range(HORIZON):
            token = x + step
            box(axes, token + 0.05, 13.2, 0.8, 1, str(token), COLOURS[episode], token <= NOW)
    axes.text(end + 0.3, 16.6, f"episodes_per_trial={N_EPISODES}", **CODE)
    axes.text(end + 0.3, 13.7, "last token: trial_end\nis terminal, or truncated\n(bootstrapped)", va="center")
    for border in (HORIZON, 2 * HORIZON):
        arrow(axes, (border - 0.55, 14.6), (border + 0.45, 14.6))
    axes.text(HORIZON + 0.7, 15.2, "across_episodes: keep or zero the last action and reward", va="center")
    arrow(axes, (NOW + 0.45, 12.2), (NOW + 0.45, 13.1))
    axes.text(NOW + 0.8, 12.4, "now", va="center", fontweight="bold")
    for row, (text, first) in enumerate(MEMORIES):
        y = 10.8 - 1.2 * row
        box(axes, first + 0.05, y, NOW - first + 0.8, 0.9, str(NOW - first + 1), "#56607a", True)
        axes.text(NOW + 1.2, y + 0.45, text, **CODE)
    text = f"Number of tokens in memory now\n(context_length={N} for the window,\n"
    text += "longer than the trial for the\nfull memory)"
    axes.text(0, 10.1, text, va="center")
    arrow(axes, (0, 6.5), (end - 0.1, 6.5), "<|-|>")
    text = "returns and advantages are computed over the whole trial"
    axes.text((end - 0.1) / 2, 5.8, text, ha="center", va="center")


def draw_policy(axes: Axes) -> None:
    """Draw the path from tokens to action and value."""
    y, height = 2.9, 1.9
    box(axes, 0.1, y, 3.4, height, "tokens in\nmemory", DARK, False)
    box(axes, 4.7, y, 5, height, "working memories\nphi(token)", COLOURS[0], False)
    box(axes, 10.9, y, 4.3, height, "transformer,\nn_layers, causal", COLOURS[0], False)
    box(axes, 16.4, y, 4.8, height, "episodic memory\n(newest slot)", COLOURS[1], False)
    box(axes, 22.4, y, 2.5, height, "action", COLOURS[2], True)
    box(axes, 22.4, 0.3, 2.5, height, "value", COLOURS[2], True)
    for start, end in ((3.5, 4.7), (9.7, 10.9), (15.2, 16.4), (21.2, 22.4)):
        arrow(axes, (start, y + height / 2), (end, y + height / 2))
    arrow(axes, (20.2, y), (22.4, 1.7))
    axes.text(20.0, 2.2, 'critic_input="memory"', ha="right", **CODE)
    axes.plot([1.8, 1.8, 22.2], [y, 0.8, 0.8], color=DARK, linewidth=1.2)
    arrow(axes, (22.1, 0.8), (22.4, 0.8))
    axes.text(2.1, 1.3, 'critic_input="token": an MLP on the newest token', **CODE)


def main() -> None:
    # The same file in each run
    matplotlib.rcParams.update({"font.size": 10, "text.color": DARK, "svg.hashsalt": "memory"})
    figure = Figure(figsize=SIZE, facecolor="white")  # legible in dark themes too
    axes = figure.add_axes((0.01, 0, 0.98, 1))
    axes.set(xlim=(0, UNITS[0]), ylim=(0, UNITS[1]))
    axes.axis("off")
    draw_trial(axes)
    draw_policy(axes)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
