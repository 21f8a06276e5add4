"""What the benchmarks share: interleaved timing, the machine's matrix-product rate, counted operations, JSON files."""

import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch as th

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def matrix_product_rate(device: str = "cpu", size: int = 2048, repeats: int = 5) -> float:
    """
    :param device: PyTorch device
    :param size: Rows and columns
    :param repeats: Products, of which the median counts
    :return: Operations per second (a multiply-add is two) of float32 products of square matrices, with the precision
        and the threads that are set
    """
    a = th.randn(size, size, device=device)
    out = th.empty_like(a)
    durations = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        th.matmul(a, a, out=out)
        synchronize(device)
        durations.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(durations[1:])


def synchronize(device: str) -> None:
    """
    :param device: PyTorch device whose queue is to be empty
    """
    if device.startswith("cuda"):
        th.cuda.synchronize()


def encoder_operations(
    context_length: int, d_model: int, n_layers: int, dim_feedforward: int, n_features: int, memory: str
) -> float:
    """
    :param context_length: Slots N of a full window (``"window"``), or tokens that a token sees on average (``"full"``)
    :param d_model: Width
    :param n_layers: Layers
    :param dim_feedforward: Hidden units
    :param n_features: Size of a token
    :param memory: ``"window"``: the last layer for the newest slot only; ``"full"``: every token once
    :return: Operations of one transition's forward pass, attention's included; a multiply-add is two
    """
    keys_values, rest = 2 * d_model**2, 2 * d_model**2 + 2 * d_model * dim_feedforward
    seen = 2 * d_model  # scores and sums, for each query and each token that it sees
    if memory == "full":
        return 2 * (n_features * d_model + n_layers * (keys_values + rest + seen * context_length))
    n = context_length
    layer = n * (keys_values + rest) + seen * n * (n + 1) / 2
    last = n * keys_values + rest + seen * n
    return 2 * (n * n_features * d_model + (n_layers - 1) * layer + last)


class Stopwatch:
    """Seconds spent in named sections. Of nested sections each has its own time only."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def section(self, name: str):  # type: ignore[no-untyped-def]
        """
        :param name: Section that the time from here on belongs to
        """
        self._switch()
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """
        :param owner: Object whose method is to be timed
        :param method: Its name
        :param name: Section
        """
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.section(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)

    def _switch(self) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] = self.seconds.get(self._stack[-1], 0.0) + now - self._since
        self._since = now


def interleaved(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """
    :param sides: What is compared; each call is one measurement
    :param repeats: Measurements of each
    :return: Their results, taken in turns, so that what else the machine does falls on all of them
    """
    results: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def seconds_of(function: Callable[[], Any], device: str = "cpu") -> Callable[[], float]:
    """
    :param function: What to time
    :param device: PyTorch device it runs on
    :return: A function that runs it and returns the seconds it took
    """

    def measure() -> float:
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        return time.perf_counter() - start

    return measure


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """
    :return: Median of the ratios of measurements taken in the same turn
    """
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


def variant(name: str, device: str, precision: str) -> str:
    """
    :param name: Name of the benchmark
    :param device: PyTorch device
    :param precision: PyTorch's precision of float32 matrix products, ``"highest"`` by default
    :return: Name of the file for its figures
    """
    return "_".join([name, device, *([] if precision == "highest" else [precision])])


def save(name: str, rows: list[dict[str, Any]], device: str = "cpu", **about: Any) -> None:
    """
    Print rows and write them with a description of the machine.

    :param name: Name of the benchmark and of the file
    :param rows: Measurements
    :param device: PyTorch device they were taken on
    :param about: More to write down
    """
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": th.get_num_threads(),
        "device": th.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "torch": th.__version__,
    }
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, **about, "rows": rows}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def processor() -> str:
    """
    :return: The processor's name, as far as the system tells it
    """
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
