"""The kinds of memory that a policy can have. A new kind is a new module and one entry here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sb3_trmrl.common.checks import check_option
from sb3_trmrl.memory.full_memory import FullMemory
from sb3_trmrl.memory.interface import MemoryKind
from sb3_trmrl.memory.sequence_buffer import SequenceRolloutBuffer
from sb3_trmrl.memory.sequence_replay_buffer import SequenceReplayBuffer
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.memory.window_buffer import WindowRolloutBuffer
from sb3_trmrl.memory.window_replay_buffer import WindowReplayBuffer
from sb3_trmrl.memory.windows import Windows
from sb3_trmrl.memory.working_memory import WorkingMemory

if TYPE_CHECKING:
    from sb3_trmrl.memory.policy import MemoryPolicy

#: Kinds by the value of the policy's argument ``memory``
MEMORY_KINDS: dict[str, MemoryKind] = {
    "window": MemoryKind(
        WorkingMemory, Windows.of_single_tokens, WindowRolloutBuffer, WindowReplayBuffer, 16, "sinusoidal", True
    ),
    "full": MemoryKind(
        FullMemory, Sequences.of_single_tokens, SequenceRolloutBuffer, SequenceReplayBuffer, 1024, "relative", False
    ),
}


def memory_name(memory: str | None, context_length: int | None) -> str:
    """Return the value of ``memory``. None stands for a window if a length is given, else for the full memory."""
    if memory is None:
        return "full" if context_length is None else "window"
    return check_option("memory", memory, MEMORY_KINDS)


def policy_argument(policy_class: type, policy_kwargs: Mapping[str, Any], name: str) -> Any:
    """Return the value that a policy's argument is going to have: the given one, or its constructor's default."""
    if name in policy_kwargs or name not in (known := inspect.signature(policy_class).parameters):
        return policy_kwargs.get(name)
    return None if known[name].default is inspect.Parameter.empty else known[name].default


def check_memory_is_known(policy: MemoryPolicy, memory: str) -> None:
    """Require the kind of memory that the algorithm has made its buffer for, before it has made the policy."""
    if policy.memory != memory:
        raise ValueError(
            f"`policy_kwargs` must have memory={policy.memory!r}, which {type(policy).__name__} chooses in its "
            f"constructor, got {memory!r}: the algorithm makes its buffer before the policy"
        )
