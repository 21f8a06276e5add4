"""What PEARL stores: every transition of the training tasks whose next state is known, and the context."""

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trmrl import PEARL
from sb3_trmrl.pearl.buffers import TaskReplayBuffer
from sb3_trmrl.pearl.collection import TaskCollector
from tests.helpers.pearl import Step, copies, recorded, tiny_pearl

#: Columns of a row: state, action, reward, next state, done flag
NEXT_STATE = slice(6, 9)

pytestmark = pytest.mark.usefixtures("one_thread")


def stored(model: PEARL, task: int, context: bool = False) -> list[np.ndarray]:
    """Return the rows that can be sampled for a task, without duplicates and in any order."""
    if context:
        rows = model.replay_buffer.sample_context(np.array([task]), 3000)[0].numpy()
    else:
        rows = np.concatenate(model.replay_buffer.sample(np.array([task]), 3000), axis=2)[0]
        rows[rows[:, -1] == 1, NEXT_STATE] = 0  # nobody reads it
    return sorted(np.unique(rows, axis=0).tolist())


def expected(model: PEARL, steps: list[Step]) -> list[np.ndarray]:
    """Return the rows that the steps of a task should give."""
    rows = []
    for step in steps:
        if step.truncated and not step.terminated and step.episode == 0:
            continue  # the trial returns the next episode's first state
        action = model.policy.scale_action(step.action)
        next_state = np.zeros(3) if step.terminated else step.next_state
        parts = (step.state, action, [step.reward], next_state, [step.terminated])
        rows.append(np.concatenate(parts).astype(np.float32).tolist())
    return sorted(rows)


@pytest.mark.parametrize(("n_envs", "trial_end"), [(1, None), (2, "terminated"), (3, "truncated")])
def test_stored_transitions_are_those_of_the_environments(n_envs: int, trial_end: str | None) -> None:
    steps: list[Step] = []
    env = DummyVecEnv([partial(recorded, steps, trial_end=trial_end)] * n_envs)
    model = tiny_pearl(env)
    model.learn(300)
    assert model.train_tasks is not None and {step.task for step in steps} == set(model.train_tasks)
    ends = {(step.terminated, step.truncated, step.episode) for step in steps}
    assert ends >= {(True, False, 0), (True, False, 1), (False, True, 0), (False, True, 1)}
    for task, value in enumerate(model.train_tasks):
        own = [step for step in steps if step.task == value]
        assert len(own) >= 14
        np.testing.assert_allclose(stored(model, task), expected(model, own), atol=1e-6)
        done = np.array(stored(model, task))[:, -1]
        assert done.sum() == sum(step.terminated for step in own)
    assert model.num_timesteps == len(steps)


def test_the_context_is_the_newest_data_with_latents_from_the_prior() -> None:
    steps: list[Step] = []
    model = tiny_pearl(DummyVecEnv([partial(recorded, steps)] * 2))
    model.learn(1)
    assert model.env is not None and model.train_tasks is not None
    _, callback = model._setup_learn(1, None, reset_num_timesteps=False)
    tasks = np.array([2, 0])
    for _ in range(2):  # data of the first time are forgotten
        steps.clear()
        begin = [env.get_wrapper_attr("n_steps") for env in model.env.envs]  # type: ignore[attr-defined]
        assert TaskCollector(model, model.env, tasks, prior_steps=6).collect(40, callback)
    assert any(step.start - begin[0] == 6 for step in steps), "an episode that begins exactly then"
    for index, task in enumerate(tasks):
        own = [step for step in steps if step.task == model.train_tasks[task]]
        prior = [step for step in own if step.start - begin[index] < 6]
        assert 6 <= len(prior) < 12
        np.testing.assert_allclose(
            stored(model, task, context=True), [row[:6] for row in expected(model, prior)], atol=1e-6
        )


def test_latents_change_where_episodes_begin_and_only_there() -> None:
    seen = []

    def watch(variables: dict[str, Any], _: Any) -> bool:
        infos, dones = variables["infos"], variables["dones"]
        begun = [info["new_episode"] or bool(done) for info, done in zip(infos, dones, strict=True)]
        seen.append((variables["collector"], variables["collector"]._latents.clone(), begun))
        return True

    tiny_pearl(copies(2)).learn(1, watch)
    pairs = [(a, b) for a, b in itertools.pairwise(seen) if a[0] is b[0]]
    changed = [(before[1] != after[1]).any(dim=1).tolist() for before, after in pairs]
    assert changed == [before[2] for before, _ in pairs]
    assert sum(map(sum, changed)) > 5


def test_actions_are_the_actors_for_the_current_state_and_latent() -> None:
    steps: list[Step] = []
    used: list[th.Tensor] = []
    model = tiny_pearl(recorded(steps), learning_rate=1e-12)
    th.nn.init.zeros_(model.actor.log_std.weight)
    th.nn.init.constant_(model.actor.log_std.bias, -20.0)  # almost deterministic
    model.learn(1, lambda variables, _: used.append(variables["collector"]._latents[0].clone()) is None)
    assert len(steps) > model.n_train_tasks * model.initial_steps, "also with latents from the posterior"
    assert len({tuple(latent.tolist()) for latent in used}) > 4
    for step, latent in zip(steps, used, strict=True):
        with th.no_grad():
            mean = model.actor(th.cat((th.as_tensor(step.state), latent))[None], deterministic=True)[0]
        low, high = model.action_space.low, model.action_space.high  # type: ignore[attr-defined]
        np.testing.assert_allclose(step.action, low + (high - low) * (mean.numpy() + 1) / 2, atol=1e-5)


def test_the_training_tasks_are_different_and_kept() -> None:
    model = tiny_pearl(make_vec_env("HalfCheetahDir-v0", 2), n_train_tasks=2, meta_batch_size=2, initial_steps=3)
    model.learn(1)
    assert sorted(model.train_tasks or ()) == [-1, 1]
    before = model.train_tasks
    model.learn(1, reset_num_timesteps=False)
    assert model.train_tasks is before
    env = model.get_env()
    assert env is not None and env.get_attr("tasks") == [None, None]


def test_too_few_different_tasks() -> None:
    model = tiny_pearl(make_vec_env("HalfCheetahDir-v0"), n_train_tasks=3)
    with pytest.raises(ValueError, match=r"`n_train_tasks` must be .* number of different tasks of `env`, got 3.* 2$"):
        model.learn(1)


def test_the_buffer_keeps_the_newest_transitions() -> None:
    buffer = TaskReplayBuffer(buffer_size=25, n_tasks=2, state_dim=1, action_dim=1)
    one = np.ones(1, np.float32)
    buffer.begin_task(1)
    for number in range(30):
        is_context = number < 20
        buffer.add(1, number * one, one, float(number), one, False, is_context)
    assert buffer.sizes().tolist() == [0, 12]
    assert set(buffer.sample(np.array([1]), 500).rewards.ravel().tolist()) == set(range(18, 30))
    assert set(buffer.sample_context(np.array([1]), 500)[..., 2].ravel().tolist()) == {18, 19}
    buffer.begin_task(1)
    assert buffer.context_sizes().tolist() == [0, 0]
    buffer.add(1, one, one, 50.0, one, False, True)
    assert set(buffer.sample_context(np.array([1]), 50)[..., 2].ravel().tolist()) == {50}
    with pytest.raises(ValueError, match="no transitions of training task 0"):
        buffer.sample_context(np.array([1, 0]), 1)
