"""The kinds of memory: their defaults, and a third kind that is defined here and registered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_trmrl.memory.buffers import MemoryRolloutBuffer
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.interface import MemoryKind
from sb3_trmrl.memory.kinds import MEMORY_KINDS
from sb3_trmrl.memory.replay_buffer import MemoryReplayBuffer
from sb3_trmrl.memory.tokens import Tokens, first_array, map_tokens, zero_tensors
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from sb3_trmrl.transformer_sac import TransformerSAC, TransformerSACPolicy
from tests.helpers.agents import (
    BOX_ACTION,
    CRITICS,
    TRANSITION,
    VECTOR,
    assert_equal_weights,
    by_name,
    sampled_vec_env,
    tiny_model,
)
from tests.helpers.environments import fixed_episodes
from tests.helpers.learning import assert_learns, assert_learns_on_policy, play
from tests.helpers.naive_rollouts import NaiveHistory


@pytest.mark.parametrize(
    ("given", "memory", "context_length", "positional_encoding"),
    [
        (dict(), "full", 1024, "relative"),
        (dict(memory=None), "full", 1024, "relative"),
        (dict(context_length=5), "window", 5, "sinusoidal"),
        (dict(memory="window"), "window", 16, "sinusoidal"),
        (dict(memory="full", context_length=64), "full", 64, "relative"),
    ],
    ids=str,
)
def test_the_default_memory(given: dict[str, Any], memory: str, context_length: int, positional_encoding: str) -> None:
    """The whole episode, or a window if its length is given."""
    env = sampled_vec_env(1, VECTOR, BOX_ACTION)
    model = TransformerPPO("TrMRLPolicy", env, n_steps=8, batch_size=8, policy_kwargs=given)
    extractor = model.policy.pi_features_extractor
    found = (model.policy.memory, extractor.context_length, extractor.positional_encoding)
    assert found == (memory, context_length, positional_encoding)
    assert type(model.rollout_buffer) is MEMORY_KINDS[memory].buffer


ALGORITHMS = pytest.mark.parametrize(
    ("algorithm", "policy", "buffer"),
    [(TransformerPPO, TrMRLPolicy, "rollout_buffer"), (TransformerSAC, TransformerSACPolicy, "replay_buffer")],
    ids=["PPO", "SAC"],
)


@ALGORITHMS
@pytest.mark.parametrize("memory", MEMORY_KINDS)
def test_a_policy_with_another_default_memory(algorithm: Any, policy: Any, buffer: str, memory: str) -> None:
    """The buffer is that of the memory which the policy's constructor names."""

    class OwnDefault(policy):  # type: ignore[misc]
        def __init__(self, *args: Any, memory: str = memory, **kwargs: Any) -> None:
            super().__init__(*args, memory=memory, **kwargs)

    model = algorithm(OwnDefault, "Pendulum-v1", device="cpu", policy_kwargs=dict(context_length=4))
    assert model.policy.memory == memory
    assert type(getattr(model, buffer)) is getattr(MEMORY_KINDS[memory], buffer.removeprefix("rollout_"))


@ALGORITHMS
def test_a_policy_that_chooses_its_memory_unseen(algorithm: Any, policy: Any, buffer: str) -> None:
    class Unseen(policy):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "memory": "full"})

    with pytest.raises(ValueError, match=r"`policy_kwargs` must have memory='full', which Unseen .*, got 'window'"):
        algorithm(Unseen, "Pendulum-v1", device="cpu", policy_kwargs=dict(context_length=4))
    kwargs = dict(context_length=4, memory="full")
    model = algorithm(Unseen, "Pendulum-v1", device="cpu", policy_kwargs=kwargs)
    assert type(getattr(model, buffer)) is getattr(MEMORY_KINDS["full"], buffer.removeprefix("rollout_"))


class CountingMemory(NamedTuple):
    """The newest token, and the number of tokens so far. It is its own batch."""

    tokens: Tokens
    lengths: Any

    @classmethod
    def empty(
        cls, observation_space: spaces.Space[Any], n_envs: int, transformers: Sequence[TransformerExtractor]
    ) -> CountingMemory:
        device = transformers[0].device
        return cls(zero_tensors(observation_space, n_envs, device=device), th.zeros(n_envs, dtype=th.long))

    @classmethod
    def of_single_tokens(cls, tokens: Tokens) -> CountingMemory:
        return cls(tokens, th.ones(len(first_array(tokens)), dtype=th.long))

    def write(self, obs: Tokens, starts: th.Tensor, transformers: Sequence[TransformerExtractor]) -> CountingMemory:
        tokens = map_tokens(lambda new, old: new.reshape(old.shape).to(old.dtype), obs, self.tokens)
        return CountingMemory(tokens, th.where(starts, 1, self.lengths + 1))

    def batch(self) -> CountingMemory:
        return self

    def newest(self) -> Tokens:
        return self.tokens

    def encode(self, transformer: TransformerExtractor) -> th.Tensor:
        """Encode the newest token as a sequence of one token whose position is the count."""
        memories = transformer.working_memories(self.tokens, positions=self.lengths - 1)
        episodic: th.Tensor = transformer.encoder(memories[:, None], th.ones_like(self.lengths))
        return episodic

    def _map(self, function: Any) -> CountingMemory:
        return CountingMemory(map_tokens(function, self.tokens), function(self.lengths))

    def select(self, indices: Any) -> CountingMemory:
        return self._map(lambda x: x[indices])

    def copy(self) -> CountingMemory:
        return self

    def numpy(self) -> CountingMemory:
        return self._map(lambda x: x.cpu().numpy())

    def to(self, device: th.device | str) -> CountingMemory:
        return self._map(lambda x: th.as_tensor(x, device=device))

    def shape_mismatch(self, expected: Any) -> str:
        shapes, right = (memory._map(lambda x: tuple(x.shape)) for memory in (self, expected))
        return "" if shapes == right else f"the shapes {shapes} instead of {right}"


class CountingRolloutBuffer(MemoryRolloutBuffer):
    """Minibatches of random transitions, which need no tokens of earlier steps."""

    def begin_rollout(self, memory: Any) -> Any:
        self._allocate()
        return memory

    def _draw(self, batch_size: int) -> Iterator[np.ndarray]:
        indices = np.random.permutation(self.buffer_size * self.n_envs)
        yield from (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))

    def _observations(self, batch_inds: np.ndarray) -> CountingMemory:
        envs, steps = np.divmod(batch_inds, self.buffer_size)
        tokens = map_tokens(lambda tokens: self.to_torch(tokens[steps, envs]), self.tokens)
        return CountingMemory(tokens, self.to_torch(self.lengths[batch_inds, 0]))


@pytest.mark.parametrize("critic", **by_name(CRITICS))
@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
def test_third_kind(
    space: spaces.Space[Any], critic: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind is a few classes and one entry. It trains on policy, acts, evaluates states, saves and loads."""
    third = MemoryKind(
        memory=CountingMemory,
        of_single_tokens=CountingMemory.of_single_tokens,
        buffer=CountingRolloutBuffer,
        replay_buffer=MemoryReplayBuffer,  # for TransformerSAC
        context_length=8,
        positional_encoding="sinusoidal",
        bounded_positions=False,
    )
    monkeypatch.setitem(MEMORY_KINDS, "third", third)
    model = tiny_model(
        fixed_episodes(space), dict(memory="third", action_head_gain=1.0, **critic), n_steps=8, batch_size=12
    )
    assert isinstance(model.rollout_buffer, CountingRolloutBuffer)
    assert_learns_on_policy(model, n_rollouts=4)

    model.save(tmp_path / "model")
    loaded = TransformerPPO.load(tmp_path / "model", env=fixed_episodes(space), device="cpu")
    assert_equal_weights(model, loaded)
    history = NaiveHistory(2)
    for step in play(loaded, sampled_vec_env(2, space, BOX_ACTION), 12):
        history.see(step.observations, step.starts)
        assert isinstance(step.state, CountingMemory) and step.state.lengths.tolist() == history.lengths
        with th.no_grad():
            expected = model.policy.get_distribution(step.state.to("cpu")).mode().numpy()
        np.testing.assert_array_equal(step.actions, expected.clip(BOX_ACTION.low, BOX_ACTION.high))
    with pytest.raises(ValueError, match=r"`state` has the shapes .* for 3 observation\(s\)"):
        model.predict(sampled_vec_env(3, space).reset(), step.state, np.zeros(3))
    assert_learns(loaded, 48)
