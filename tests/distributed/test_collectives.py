"""Values, gradients and statistics of all ranks against those of one process."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_trmrl.distributed import collectives
from sb3_trmrl.distributed.gradients import average_gradients
from sb3_trmrl.distributed.statistics import SharedStatistics, moments
from tests.helpers.agents import sampled_vec_env
from tests.helpers.ranks import run_ranks

PARTS = [np.random.default_rng(rank).normal(3.0, 2.0, size=size) for rank, size in enumerate((5, 1, 9))]


def exchange() -> dict[str, Any]:
    collectives.join()
    collectives.join()  # a second time changes nothing
    rank = collectives.rank()
    return {
        "rank": rank,
        "world_size": collectives.world_size(),
        "share": collectives.share("batch_size", 12),
        "total": collectives.all_reduce(th.tensor([1.0, rank])).tolist(),
        "minimum": collectives.all_reduce_min(7 - rank),
        "gathered": collectives.all_gather({"rank": rank}),
        "from_main": collectives.broadcast(f"of rank {rank}"),
        "others": collectives.gather_from_others([rank] * rank),
    }


def test_values_of_all_ranks() -> None:
    for rank, values in enumerate(run_ranks(exchange, n_ranks=3)):
        assert values == {
            "rank": rank,
            "world_size": 3,
            "share": 4,
            "total": [3.0, 3.0],
            "minimum": 5,
            "gathered": [{"rank": 0}, {"rank": 1}, {"rank": 2}],
            "from_main": "of rank 0",
            "others": [[1, 2, 2], [2, 2], [1]][rank],
        }


def test_one_process_is_the_only_rank() -> None:
    assert (collectives.rank(), collectives.world_size(), collectives.is_main()) == (0, 1, True)
    assert collectives.all_gather("value") == ["value"]
    assert collectives.gather_from_others(["value"]) == []
    assert collectives.share("batch_size", 7) == 7


@pytest.mark.parametrize("total", [10, 2])
def test_a_share_must_be_whole(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=rf"`n_envs` .* must be a multiple of the number of ranks \(4\), got {total}"):
        collectives.share("n_envs", total)


def part_moments() -> tuple[int, th.Tensor, th.Tensor]:
    collectives.join()
    return moments(th.as_tensor(PARTS[collectives.rank()], dtype=th.float32))


def test_moments_of_advantages_are_those_of_all_ranks() -> None:
    together = th.as_tensor(np.concatenate(PARTS), dtype=th.float32)
    for result in run_ranks(part_moments, n_ranks=3):
        th.testing.assert_close(result, (15, together.mean(), together.std()))


def average() -> list[Any]:
    collectives.join()
    used_by_all, used_by_one, unused, frozen = (nn.Parameter(th.ones(2, 3)) for _ in range(4))
    frozen.requires_grad_(False)
    loss = (collectives.rank() + 1.0) * used_by_all.sum()
    if collectives.rank() == 1:
        loss = loss + 4.0 * used_by_one.sum()
    loss.backward()
    parameters = (used_by_all, used_by_one, unused, frozen)
    average_gradients(parameters)
    return [None if each.grad is None else each.grad.unique().tolist() for each in parameters]


def test_gradients_are_averaged() -> None:
    assert run_ranks(average) == [[[1.5], [2.0], None, None]] * 2


def observe(space: spaces.Space[Any]) -> list[tuple[Any, ...]]:
    collectives.join()
    rank = collectives.rank()
    env = VecNormalize(sampled_vec_env(2, space), gamma=0.5)
    env.reset()
    shared = SharedStatistics(env)
    for n_steps in (3 + rank, 4):
        for _ in range(n_steps):
            env.step(np.array([env.action_space.sample() for _ in range(2)]))
        shared.merge()
        shared.merge()  # adds nothing
    of_observations = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return [(each.mean, each.var, each.count) for each in (*of_observations, env.ret_rms)]


@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (3,)), spaces.Dict(a=spaces.Box(-1, 1, (2,)))], ids=["box", "dict"]
)
def test_statistics_are_the_same_on_all_ranks(space: spaces.Space[Any]) -> None:
    first, second = run_ranks(observe, space)
    for (mean, var, count), others in zip(first, second, strict=True):
        np.testing.assert_array_equal(mean, others[0])
        np.testing.assert_array_equal(var, others[1])
        assert count == others[2]
    # Both ranks reset two environments; observations are counted from there, returns from the first step
    assert [round(count) for *_, count in first] == [(3 + 4 + 4 + 4) * 2 + 2, (3 + 4 + 4 + 4) * 2]


def merge(parts: list[np.ndarray]) -> tuple[Any, ...]:
    collectives.join()
    env = VecNormalize(sampled_vec_env(1, spaces.Box(-1, 1, (2,))))
    shared = SharedStatistics(env)
    for part in parts[collectives.rank()]:
        env.obs_rms.update(part)  # type: ignore[union-attr]
        shared.merge()
    return env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count  # type: ignore[union-attr]


def test_merged_statistics_are_those_of_one_process() -> None:
    """Also where the mean is large and one rank has seen much less than the other."""
    rng = np.random.default_rng(0)
    parts = [[rng.normal([1e3, -1.0], [0.1, 2.0], (size, 2)) for size in sizes] for sizes in ((50, 1, 300), (2, 80, 1))]
    expected = RunningMeanStd(shape=(2,))
    for part in (*parts[0], *parts[1]):
        expected.update(part)
    for mean, var, count in run_ranks(merge, parts):
        np.testing.assert_allclose(mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(var, expected.var, rtol=1e-9)
        assert count == pytest.approx(expected.count)
