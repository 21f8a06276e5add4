"""MetaWorld's protocol against `metaworld.evaluation`."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trmrl.evaluation.metaworld_protocol import ProtocolResult, metaworld_protocol

metaworld = pytest.importorskip("metaworld")
from metaworld.evaluation import metalearning_evaluation  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_goals")

# Ten places to try, among the goals of reach-v3, which fill (-0.1, 0.1) x (0.8, 0.9) x (0.05, 0.3)
PLACES = np.array([(x, 0.85, z) for x in (-0.05, 0.05) for z in (0.08, 0.13, 0.18, 0.23, 0.28)])


class Explorer:
    """
    Learns without seeing a goal: goes to another place in each of ten episodes, then always to the one with the highest
    reward at the end of its episode.
    """

    def __init__(self) -> None:
        self.paid = np.full(len(PLACES), -np.inf)
        self.episode = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        place = PLACES[self.episode] if self.episode < len(PLACES) else PLACES[self.paid.argmax()]
        return np.append(np.clip(15 * (place - observation[:3]), -1, 1), 0.0).astype(np.float32)

    def learn(self, reward: float, ended: bool) -> None:
        if self.episode < len(PLACES):
            self.paid[self.episode] = reward
        self.episode += ended


class SB3Explorer:
    """The same as a model of SB3."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        n = len(episode_start)
        state = [None] * n if state is None else list(state)
        actions = np.zeros((n, 4), dtype=np.float32)
        for i in range(n):
            if episode_start[i]:
                state[i] = Explorer()
            else:
                state[i].learn(observation["prev_reward"][i, 0], observation["prev_done"][i, 0] == 1)
            actions[i] = state[i].act(observation["observation"][i])
        return actions, tuple(state)


class MetaWorldExplorer:
    """The same as an agent of ``metaworld.evaluation``."""

    def init(self) -> None:
        self.explorers: dict[int, Explorer] = {}

    def adapt_action(self, observations: Any) -> Any:
        return self.eval_action(observations), {}

    def eval_action(self, observations: Any) -> Any:
        return np.array([self.explorers.setdefault(i, Explorer()).act(row) for i, row in enumerate(observations)])

    def step(self, timestep: Any) -> None:
        for i, (reward, ended) in enumerate(zip(timestep.reward, timestep.truncated, strict=True)):
            self.explorers[i].learn(np.float32(reward), bool(ended))

    def adapt(self) -> None:
        assert all(explorer.episode == 10 for explorer in self.explorers.values())

    def reset(self, env_mask: Any) -> None:
        pass


def test_the_protocol_equals_metaworlds_own() -> None:
    n_goals, horizon = 5, 50
    envs = metaworld.make_ml_envs(
        "reach-v3",
        seed=0,
        meta_batch_size=1,
        total_tasks_per_cls=n_goals,
        split="test",
        task_select="pseudorandom",
        max_episode_steps=horizon,
    )
    # Its goals are shuffled, and each is visited once
    success, mean_return, per_class = metalearning_evaluation(MetaWorldExplorer(), envs, num_evals=n_goals)
    envs.close()
    assert 0 < success < 1  # or the comparison would say little
    result = metaworld_protocol(
        SB3Explorer(), "MetaWorldML1-v0", n_goals=n_goals, env_kwargs={"horizon": horizon}, n_envs=4
    )
    assert result.adaptation.rewards.shape == (n_goals, 13, horizon)
    assert result.mean_success == pytest.approx(success) and result.success_per_class == pytest.approx(per_class)
    assert result.mean_return == pytest.approx(mean_return, rel=1e-5)
    # Not the mean over all episodes: it has adapted
    assert result.mean_success > result.adaptation.successes[:, :10].mean()


def test_classes_count_alike() -> None:
    class Still:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any:
            return np.zeros((len(episode_start), 4), dtype=np.float32), None

    options = dict(n_goals=2, n_adaptation_episodes=1, n_evaluation_episodes=1, env_kwargs={"horizon": 2})
    result = metaworld_protocol(Still(), "MetaWorldML10-v0", **options)
    assert set(result.success_per_class) == {
        task.name for task in gym.make("MetaWorldML10-v0").unwrapped.split_tasks("test")
    }
    assert len(result.adaptation.tasks) == 10 and result.adaptation.held_out
    # By hand
    successes = result.adaptation.successes.copy()
    successes[:, -1] = [task.name == "door-close-v3" and i % 2 for i, task in enumerate(result.adaptation.tasks)]
    changed = ProtocolResult(
        type(result.adaptation)(**{**vars(result.adaptation), "successes": successes}), n_evaluated=1
    )
    hits = sum(successes[:, -1])
    assert changed.success_per_class["door-close-v3"] == hits / 2
    assert changed.mean_success == pytest.approx(hits / 2 / 5)
