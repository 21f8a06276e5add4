"""The replay buffer of windows, against deques of tokens."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.memory import replay_buffer
from sb3_trmrl.memory.replay_buffer import MemoryReplaySamples
from sb3_trmrl.memory.tokens import map_tokens
from sb3_trmrl.memory.window_replay_buffer import WindowReplayBuffer
from tests.helpers.agents import BOX_ACTION, OBSERVATION_SPACES, SampledEnv
from tests.helpers.replay import played
from tests.helpers.wrong_use import refused


def as_lists(samples: MemoryReplaySamples) -> list[tuple[list[int], list[int], float, bool]]:
    windows = []
    for batch in (samples.observations, samples.next_observations):
        numbers = batch.tokens["number"].numpy()
        assert (numbers[:, 1] == -numbers[:, 0]).all()
        rows = [index[:length] for index, length in zip(batch.index, batch.lengths, strict=True)]
        windows.append([numbers[row, 0].astype(int).tolist() for row in rows])
        assert [batch.newest()["number"][i, 0] == windows[-1][i][-1] for i in range(len(rows))]
    assert (samples.rewards == samples.actions[:, :1]).all()
    return list(zip(*windows, samples.rewards[:, 0].tolist(), (samples.dones[:, 0] > 0).tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_windows_equal_those_of_a_deque(data: st.DataObject) -> None:
    """Also where episodes end early, at the seam of the ring, and when environments are reset in between."""
    context_length = data.draw(st.integers(1, 5))
    capacity = context_length + data.draw(st.integers(2, 12))
    buffer, envs = played(data, WindowReplayBuffer, context_length, capacity)
    expected = sorted(each for env in envs for each in env.within(capacity))
    found = []
    for env, (first, last) in enumerate(buffer._ends()):
        numbers = np.arange(first, last)
        numbers = numbers[buffer._valid(env, numbers)]
        found += as_lists(buffer._gather(np.full(len(numbers), env), numbers))  # type: ignore[attr-defined]
    assert sorted(found) == expected and buffer.size() == len(expected)
    np.random.seed(0)
    drawn = as_lists(buffer.sample(60 * len(expected)))
    assert sorted({str(each) for each in drawn}) == sorted(map(str, expected))


def filled(n_envs: int = 2, n_steps: int = 30, space: Any = None, **kwargs: Any) -> WindowReplayBuffer:
    """Return a buffer with random episodes of :class:`SampledEnv`."""
    env = DummyVecEnv([lambda: SampledEnv(OBSERVATION_SPACES["box"] if space is None else space, BOX_ACTION)] * n_envs)
    env.seed(0)
    buffer = WindowReplayBuffer(40 * n_envs, env.observation_space, BOX_ACTION, "cpu", n_envs, **kwargs)
    buffer.bind(4, "episode")
    fill(buffer, env, n_steps)
    return buffer


def fill(buffer: WindowReplayBuffer, env: DummyVecEnv, n_steps: int) -> None:
    obs, rng = env.reset(), np.random.default_rng(0)
    for _ in range(n_steps):
        actions = rng.uniform(-1, 1, (env.num_envs, 2)).astype(np.float32)
        new_obs, rewards, dones, infos = env.step(actions)
        buffer.add(obs, new_obs, actions, rewards, dones, infos)
        obs = new_obs


def equal(a: WindowReplayBuffer, b: WindowReplayBuffer) -> bool:
    """Whether two buffers give the same minibatch."""
    samples = []
    for buffer in (a, b):
        np.random.seed(1)
        samples.append(buffer.sample(50))
    tensors = []
    for each in samples:
        newest = [batch.newest() for batch in (each.observations, each.next_observations)]
        arrays = [array for obs in newest for array in (obs.values() if isinstance(obs, dict) else [obs])]
        tensors.append([*arrays, each.actions, each.rewards, each.dones])
    return all(x.dtype == y.dtype and th.equal(x, y) for x, y in zip(*tensors, strict=True))


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_all_kinds_of_observations_in_memory_mapped_files(name: str, tmp_path: Path) -> None:
    space = OBSERVATION_SPACES[name]
    mapped = filled(space=space, folder=tmp_path, n_steps=60)
    assert equal(mapped, filled(space=space, n_steps=60))
    map_tokens(lambda array: isinstance(array, np.memmap) or pytest.fail(), mapped.tokens)
    del mapped
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_steps", [3, 30, 100])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_pickled_buffer_goes_on(n_steps: int, is_mapped: bool, tmp_path: Path) -> None:
    buffer = filled(n_steps=n_steps, folder=tmp_path if is_mapped else None)
    written = pickle.dumps(buffer)
    loaded = pickle.loads(written)
    assert equal(buffer, loaded)
    loaded.move_to(tmp_path)
    assert isinstance(loaded.actions, np.memmap) and equal(buffer, loaded)
    for each in (buffer, loaded):
        each.begin_episodes()
        env = DummyVecEnv([lambda: SampledEnv(OBSERVATION_SPACES["box"], BOX_ACTION)] * 2)
        env.seed(3)
        fill(each, env, 20)
    assert equal(buffer, loaded)


def test_a_state_does_not_change_while_the_buffer_goes_on() -> None:
    buffer, copy, env = (
        filled(n_steps=5),
        filled(n_steps=5),
        DummyVecEnv([lambda: SampledEnv(OBSERVATION_SPACES["box"], BOX_ACTION)] * 2),
    )
    env.seed(3)
    state = buffer.state_dict()
    fill(buffer, env, 3)
    buffer.load_state_dict(state)
    assert equal(buffer, copy)
    fill(buffer, env, 3)
    copy.load_state_dict(state)
    assert not equal(buffer, copy)
    copy.load_state_dict(state)
    assert equal(copy, filled(n_steps=5))


def test_a_reset_removes_the_files_of_before(tmp_path: Path) -> None:
    buffer = filled(folder=tmp_path)
    n_files = len(list(tmp_path.rglob("*")))
    buffer.reset()
    assert len(list(tmp_path.rglob("*"))) == n_files and buffer.size() == 0


def test_a_pickle_of_before_the_class_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module was that of the base class, and the length had another name."""
    buffer = filled()
    state = {**buffer.state_dict(), "context_length": 4}
    del state["history_length"]
    with monkeypatch.context() as context:
        context.setattr(WindowReplayBuffer, "__getstate__", lambda self: state)
        written = pickle.dumps(buffer, protocol=0)
    names = [each.encode() for each in (WindowReplayBuffer.__module__, replay_buffer.__name__)]
    assert names[0] in written
    loaded = pickle.loads(written.replace(*names))
    with refused(ValueError, "memories of 5 tokens", "got 4"):
        loaded.bind(5, "episode")
    loaded.bind(4, "episode")
    assert equal(buffer, loaded)
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = replay_buffer.Missing


def test_a_pickle_holds_only_what_is_filled() -> None:
    buffer = WindowReplayBuffer(1_000_000, OBSERVATION_SPACES["box"], BOX_ACTION, "cpu", 2)
    buffer.bind(4, "episode")
    assert len(pickle.dumps(buffer)) < 5_000


def test_a_million_tokens_of_half_cheetah_take_a_gigabyte_at_most() -> None:
    token = spaces.Dict(
        observation=spaces.Box(-np.inf, np.inf, (17,), np.float64),
        prev_action=spaces.Box(-1.0, 1.0, (6,), np.float32),
        prev_reward=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        prev_done=spaces.Box(0.0, 1.0, (1,), np.float32),
    )
    buffer = WindowReplayBuffer(1_000_000, token, spaces.Box(-1.0, 1.0, (6,)), "cpu")
    arrays = [*buffer.tokens.values(), *(each for each in vars(buffer).values() if isinstance(each, np.ndarray))]
    assert sum(array.nbytes for array in arrays) < 0.2e9


def test_observations_and_rewards_are_normalised_with_current_statistics() -> None:
    buffer = filled()
    normalizer = VecNormalize(DummyVecEnv([lambda: SampledEnv(OBSERVATION_SPACES["box"], BOX_ACTION)]))
    normalizer.obs_rms.mean, normalizer.obs_rms.var = np.full(3, 0.5), np.full(3, 4.0)
    normalizer.ret_rms.var = np.array(9.0)
    np.random.seed(0)
    raw = buffer.sample(20)
    np.random.seed(0)
    normalized = buffer.sample(20, normalizer)
    for a, b in ((raw.observations, normalized.observations), (raw.next_observations, normalized.next_observations)):
        np.testing.assert_allclose(b.newest(), (a.newest() - 0.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(normalized.rewards, raw.rewards / 3, rtol=1e-5)
    assert normalized.observations.tokens.dtype == normalized.rewards.dtype == th.float32


def test_observations_of_another_type_than_the_space_declares_are_not_truncated(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        buffer = WindowReplayBuffer(20, spaces.Box(0, 255, (2,), np.uint8), BOX_ACTION, "cpu", folder=folder)
        buffer.bind(2, "episode")
        for number in (3, 0.5):
            obs = np.full((1, 2), number)
            buffer.add(obs, obs + 1, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
        assert sorted(set(buffer.sample(50).observations.newest()[:, 0].tolist())) == [0.5, 3.0]


def test_wrong_arguments(tmp_path: Path) -> None:
    def make(size: Any, **kwargs: Any) -> WindowReplayBuffer:
        return WindowReplayBuffer(size, OBSERVATION_SPACES["box"], BOX_ACTION, "cpu", 2, **kwargs)

    with refused(TypeError, "buffer_size", "2.5", "integer"):
        make(2.5)
    with refused(TypeError, "folder", "5", "a folder or None"):
        make(20, folder=5)
    with refused(ValueError, "folder", "missing"):
        make(20, folder=tmp_path / "missing")
    with refused(ValueError, "buffer_size", "at least 12", "got 10"):
        make(11).bind(4, "episode")
    buffer = make(20)
    buffer.bind(4, "episode")
    with refused(ValueError, "memories of 5 tokens", "got 4 and 'episode'"):
        buffer.bind(5, "episode")
    with refused(ValueError, "the replay buffer is empty"):
        buffer.sample(3)
