"""What SB3's and sb3-contrib's own suites ask of PPO and RecurrentPPO: callbacks and logs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trmrl.transformer_ppo import TransformerPPO
from tests.helpers.agents import (
    ACTION_SPACES,
    BOX_ACTION,
    TRANSITION,
    VECTOR,
    SampledEnv,
    assert_trained,
    parameters_of,
    sampled_vec_env,
    tiny_model,
)


class RecordLocals(BaseCallback):
    """Notes which local variables of ``collect_rollouts`` a callback sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first_step: set[str] = set()
        self.every_step: set[str] = set()
        self.rollout_end: set[str] = set()
        self.shapes: dict[str, Any] = {}

    def _on_step(self) -> bool:
        seen = set(self.locals)
        self.first_step = self.first_step or seen
        self.every_step |= seen
        assert all(self.model.env.observation_space.contains(obs) for obs in self.locals["new_obs"])  # type: ignore[union-attr]
        last_obs: Any = self.model._last_obs
        assert np.array_equal(self.locals["obs_tensor"].numpy(), last_obs)
        names = ("actions", "clipped_actions", "values", "log_probs", "rewards", "dones", "new_obs")
        self.shapes = {name: tuple(self.locals[name].shape) for name in names}
        return True

    def _on_rollout_end(self) -> None:
        self.rollout_end = set(self.locals)


@pytest.mark.parametrize("action_space", [ACTION_SPACES["discrete"], BOX_ACTION], ids=["discrete", "box"])
def test_locals_of_callbacks(action_space: spaces.Space) -> None:
    """SB3's names, with the same shapes, and memory and action masks besides."""
    records = []
    env = sampled_vec_env(2, VECTOR, action_space)
    ppo = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    for model in (ppo, tiny_model(env)):
        records.append(RecordLocals())
        model.learn(32, callback=records[-1])
    ppo_locals, ours = records
    # SB3's bootstrap leaves variables of its loop behind
    loop = {"idx", "done", "terminal_obs", "terminal_value"}
    extra = {"memory", "action_masks"}
    assert ours.first_step - extra == ppo_locals.first_step - loop
    assert ours.every_step - extra == ppo_locals.every_step - loop
    assert ours.rollout_end - extra == ppo_locals.rollout_end - loop
    assert ours.shapes == ppo_locals.shapes


def test_callbacks_see_the_same_locals() -> None:
    inner = RecordLocals()
    event = EveryNTimesteps(n_steps=8, callback=inner)
    model = tiny_model(sampled_vec_env(2))
    callback = model._init_callback([event])
    model.learn(32, callback=callback)
    assert inner.locals["new_obs"] is callback.locals["new_obs"] is event.locals["new_obs"]
    assert event.num_timesteps == model.num_timesteps == 32
    assert event.n_calls == 16
    assert inner.n_calls == 4


def test_checkpoints_and_evaluation(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: IdentityEnvBox(ep_length=5)] * 2))
    evaluation_env = VecNormalize(
        DummyVecEnv([lambda: Monitor(IdentityEnvBox(ep_length=5))] * 3), training=False, norm_reward=False
    )
    model = tiny_model(env, n_steps=8)
    checkpoints = CheckpointCallback(save_freq=8, save_path=str(tmp_path / "checkpoints"), save_vecnormalize=True)
    no_improvement = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1000)
    evaluation = EvalCallback(
        evaluation_env,
        callback_after_eval=no_improvement,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        n_eval_episodes=4,
        eval_freq=4,
    )
    model.learn(32, callback=[checkpoints, evaluation])
    assert sorted(os.listdir(tmp_path / "checkpoints")) == sorted(
        f"rl_model_{suffix}" for n in (16, 32) for suffix in (f"{n}_steps.zip", f"vecnormalize_{n}_steps.pkl")
    )
    assert TransformerPPO.load(tmp_path / "checkpoints" / "rl_model_32_steps").num_timesteps == 32
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) == 4
    TransformerPPO.load(tmp_path / "best_model.zip", env=env).learn(16)
    # EvalCallback hands the statistics of the training environments over
    env_obs_rms: Any = env.obs_rms
    evaluation_obs_rms: Any = evaluation_env.obs_rms
    assert env_obs_rms.mean.shape == evaluation_obs_rms.mean.shape and not np.allclose(evaluation_obs_rms.mean, 0.0)


def test_training_stops_at_a_reward() -> None:
    evaluation_env = DummyVecEnv([lambda: Monitor(IdentityEnv(1, ep_length=5))])
    stop = StopTrainingOnRewardThreshold(reward_threshold=5.0)
    model = tiny_model(IdentityEnv(1)).learn(
        64, callback=EvalCallback(evaluation_env, callback_on_new_best=stop, eval_freq=3, n_eval_episodes=2)
    )
    assert model.num_timesteps == 3


def test_training_stops_at_a_number_of_episodes() -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, env_kwargs=dict(max_episode_steps=10))
    callback = StopTrainingOnMaxEpisodes(max_episodes=1)
    model = tiny_model(env).learn(64, callback=callback)
    assert callback.n_episodes == 2 and model.num_timesteps == 20


@pytest.mark.parametrize("verdict", [False, np.bool_(0), th.tensor(0, dtype=th.bool)], ids=["bool", "numpy", "torch"])
def test_callbacks_cancel_runs(verdict: Any) -> None:
    model = tiny_model("Pendulum-v1").learn(64, callback=lambda *_: verdict)
    assert model.num_timesteps == 1


@pytest.mark.parametrize("space", [VECTOR, TRANSITION], ids=["box", "dict"])
@pytest.mark.parametrize("n_steps", [1, 7, 21])
def test_learning_goes_on_after_a_cancelled_rollout(space: spaces.Space, n_steps: int) -> None:
    """Before the first gradient step the policy still gives the probabilities of collection."""
    model = tiny_model(sampled_vec_env(2, space)).learn(
        320, callback=lambda locals_, _: locals_["self"].num_timesteps < 2 * n_steps
    )
    assert model.num_timesteps == 2 * n_steps
    model.train = lambda: None
    model.learn(32, reset_num_timesteps=False)
    for batch in model.rollout_buffer.get(16):
        with th.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions.flatten())
        th.testing.assert_close(log_prob, batch.old_log_prob, rtol=0.0, atol=1e-5)
        th.testing.assert_close(values.flatten(), batch.old_values, rtol=0.0, atol=1e-5)
    del model.train
    before = parameters_of(model)
    model.learn(32, reset_num_timesteps=False)
    assert_trained(model, before)


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar() -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    assert tiny_model("CartPole-v1").learn(32, progress_bar=True).num_timesteps == 32


@pytest.mark.parametrize("kwargs", [{}, dict(clip_range_vf=0.1)], ids=str)
@pytest.mark.parametrize("action_space", [ACTION_SPACES["discrete"], BOX_ACTION], ids=["discrete", "box"])
def test_logged_keys(tmp_path: Path, action_space: spaces.Space, kwargs: dict[str, Any]) -> None:
    """All of PPO's and no others, but for the critic's own learning rate."""
    keys = []
    ppo = PPO("MlpPolicy", Monitor(SampledEnv(VECTOR, action_space)), n_steps=16, batch_size=16, device="cpu", **kwargs)
    for model in (
        ppo,
        tiny_model(Monitor(SampledEnv(VECTOR, action_space)), **kwargs),
        tiny_model(Monitor(SampledEnv(VECTOR, action_space)), vf_learning_rate=1e-3, **kwargs),
    ):
        logger = configure(str(tmp_path), [])
        recorded: set[str] = set()
        dump = logger.dump

        def spy(step: int = 0, recorded: set[str] = recorded, logger: Any = logger, dump: Any = dump) -> None:
            recorded.update(logger.name_to_value)
            dump(step)

        logger.dump = spy  # type: ignore[method-assign]
        model.set_logger(logger)
        model.learn(48)
        keys.append(recorded)
    assert len(keys[0]) > 12 and "rollout/ep_rew_mean" in keys[0]
    assert keys[1] == keys[0]
    assert keys[2] == keys[0] | {"train/vf_learning_rate"}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = tiny_model("CartPole-v1", tensorboard_log=str(tmp_path))
    model.learn(32)
    model.learn(32, tb_log_name="again")
    assert sorted(os.listdir(tmp_path)) == ["TransformerPPO_1", "again_1"]


def test_statistics_of_episodes() -> None:
    """Monitor's episodes reach the model, the newest ``stats_window_size`` of them."""
    env = make_vec_env(lambda: SampledEnv(length=2), n_envs=2)
    model = tiny_model(env, stats_window_size=3).learn(64)
    assert model.ep_info_buffer is not None and len(model.ep_info_buffer) == 3
    assert all(info["l"] in (2, 3) for info in model.ep_info_buffer)
