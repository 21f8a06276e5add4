"""Runs a function in several processes, which find each other as those of ``torchrun`` do."""

import multiprocessing
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch as th
from tqdm import TqdmExperimentalWarning

_CONTEXT = multiprocessing.get_context("forkserver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(function: Callable[..., Any], *args: Any, n_ranks: int = 2, timeout: float = 300.0) -> list[Any]:
    """
    Call a function of a module in each rank.

    :return: What it returned on each rank, the text of the traceback if it raised an error, or the exit code of a rank
        that was killed
    """
    port, ends, processes = free_port(), [], []
    for rank in range(n_ranks):
        parent, child = _CONTEXT.Pipe(duplex=False)
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "MASTER_PORT": port}
        process = _CONTEXT.Process(target=_run, args=(child, variables, function, args), daemon=True)
        process.start()
        child.close()
        ends.append(parent)
        processes.append(process)
    try:
        return [_result(end, process, timeout) for end, process in zip(ends, processes, strict=True)]
    finally:
        for process in processes:
            process.join(timeout=5)  # coverage writes its data at the end of a process
            process.kill()


def _run(end: Connection, variables: dict[str, int], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", TqdmExperimentalWarning)  # of SB3's progress bar
    os.environ.update({name: str(value) for name, value in variables.items()}, MASTER_ADDR="127.0.0.1")
    th.set_num_threads(1)
    try:
        result = function(*args)
    except Exception:
        result = traceback.format_exc()
    # Not `send`, which would share the memory of tensors with a process that has ended when it is read
    end.send_bytes(pickle.dumps(result))


def _result(end: Connection, process: Any, timeout: float) -> Any:
    assert end.poll(timeout), f"a rank has not answered within {timeout} seconds"
    try:
        return pickle.loads(end.recv_bytes())
    except EOFError:
        process.join()
        return process.exitcode
