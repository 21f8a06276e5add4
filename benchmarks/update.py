"""
Transitions per second of one update (forward pass, backward pass and optimiser step), for the window memory and the
full memory, by context length, width and number of heads.

The transformer has 2 layers, with 4 times as many hidden units as its width. A minibatch has 1,000 transitions, or
16,000 slots if windows are long. All windows are full.

    python benchmarks/update.py
"""

import argparse
import itertools
import statistics
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from harness import encoder_operations, interleaved, matrix_product_rate, save, seconds_of, variant

from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.memory.windows import Windows

N_FEATURES, N_TRANSITIONS, N_SLOTS, N_LAYERS = 25, 1_000, 16_000, 2


def make_update(memory: str, context: int, d_model: int, n_heads: int, device: str) -> tuple[Any, int]:
    """
    Return a function that makes one update, and its number of transitions.

    :param memory: ``"window"`` or ``"full"``
    :param context: Slots of the windows or tokens of the sequences
    :param d_model: Width
    :param n_heads: Number of heads
    :param device: PyTorch device
    """
    space = spaces.Box(-1, 1, (N_FEATURES,), np.float32)
    sizes: Any = (context, d_model, N_LAYERS, n_heads, 4 * d_model)
    extractor = TransformerExtractor(space, None, *sizes, bounded_positions=memory == "window").to(device)
    optimizer = th.optim.Adam(extractor.parameters(), lr=1e-5)
    n_sequences = max(1, N_TRANSITIONS // context)
    n_windows = min(N_TRANSITIONS, N_SLOTS // context)
    tokens = th.randn((n_sequences if memory == "full" else n_windows) * context, N_FEATURES, device=device)
    if memory == "full":
        steps = th.arange(context, device=device).repeat(n_sequences)
        rows = th.arange(len(tokens), device=device)
        batch: Any = Sequences(tokens, (context,) * n_sequences, steps, rows)
    else:
        batch = Windows(tokens, np.arange(len(tokens)).reshape(n_windows, context), np.full(n_windows, context))

    def update() -> None:
        optimizer.zero_grad()
        extractor(batch).square().mean().backward()
        optimizer.step()

    return update, n_sequences * context if memory == "full" else n_windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1, 5, 16, 50, 200, 1000])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    args = parser.parse_args()
    th.set_float32_matmul_precision(args.precision)
    rows = []
    for context, d_model, n_heads in itertools.product(args.contexts, args.widths, args.heads):
        updates = {memory: make_update(memory, context, d_model, n_heads, args.device) for memory in ("window", "full")}
        sides = {memory: seconds_of(update, args.device) for memory, (update, _) in updates.items()}
        interleaved(sides, 1)
        seconds = interleaved(sides, args.repeats)
        rate = matrix_product_rate(args.device)
        row: dict[str, Any] = dict(context=context, d_model=d_model, n_heads=n_heads, gflops=rate / 1e9)
        for memory, (_, n_transitions) in updates.items():
            per_s = n_transitions / statistics.median(seconds[memory])
            seen = (context + 1) / 2 if memory == "full" else context
            operations = 3 * encoder_operations(seen, d_model, N_LAYERS, 4 * d_model, N_FEATURES, memory)
            row |= {f"{memory}_per_s": per_s, f"{memory}_share_of_limit": per_s * operations / rate}
        rows.append(row)
    save(variant("update", args.device, args.precision), rows, args.device, repeats=args.repeats)


if __name__ == "__main__":
    main()
