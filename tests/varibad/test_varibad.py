"""Collection, updates and files of VariBAD."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trmrl import (
    AdaptationEvalCallback,
    MultiEpisodeTrial,
    PreviousTransitionObservation,
    VariBAD,
    VariBADPolicy,
    evaluate_adaptation,
)
from sb3_trmrl.varibad.trials import Trial, TrialBuffer
from tests.helpers.agents import ACTION_SPACES, MIXED, SampledEnv
from tests.helpers.environments import EarlyEnd, early_end
from tests.helpers.masked import MaskedEnv
from tests.helpers.resuming import Hooks

TINY: dict[str, Any] = dict(gru_hidden_size=8, latent_dim=2, net_arch=[8])


def make_env(n_envs: int = 3, normalize: bool = False, **kwargs: Any) -> VecEnv:
    """Trials of two episodes, each of 3 to 10 steps"""
    env: VecEnv = DummyVecEnv([partial(early_end, **kwargs)] * n_envs)
    env.seed(0)
    return VecNormalize(env) if normalize else env


def make_model(env: Any = None, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> VariBAD:
    settings: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=2, seed=0, device="cpu", learning_rate=1e-2)
    return VariBAD(
        "VariBADPolicy",
        make_env() if env is None else env,
        policy_kwargs={**TINY, **(policy_kwargs or {})},
        **{**settings, **kwargs},
    )


def weights(model: VariBAD) -> dict[str, th.Tensor]:
    modules = {"policy": model.policy, "decoders": model.decoders}
    return {
        f"{name}.{key}": value.clone() for name, each in modules.items() for key, value in each.state_dict().items()
    }


# Collection


def assert_on_policy(callback: Any) -> None:
    model = callback.model
    random_state = np.random.get_state()
    for batch in deepcopy(model.rollout_buffer).get(10):
        is_discrete = isinstance(model.action_space, spaces.Discrete)
        actions = batch.actions.long().flatten() if is_discrete else batch.actions
        with th.no_grad():
            values, log_prob, _ = model.policy.evaluate_actions(batch.observations, actions)
        th.testing.assert_close(log_prob, batch.old_log_prob, atol=1e-5, rtol=0)
        th.testing.assert_close(values.flatten(), batch.old_values, atol=1e-5, rtol=0)
    np.random.set_state(random_state)


@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("use_sde", [False, True])
def test_before_the_first_step_the_update_computes_what_collection_did(space: str, use_sde: bool) -> None:
    if use_sde and not isinstance(ACTION_SPACES[space], spaces.Box):
        pytest.skip("gSDE is for Box actions")
    env = DummyVecEnv(
        [lambda: PreviousTransitionObservation(SampledEnv(MIXED, ACTION_SPACES[space]))] * 2  # type: ignore[list-item]
    )
    callback = Hooks(end=assert_on_policy)
    model = make_model(env, use_sde=use_sde, decode_states=True)
    before = weights(model)
    model.learn(96, callback)
    assert callback.rollouts == 3
    after = weights(model)
    for part in ("encoder.gru", "action_net", "value_net", "decoders.reward", "decoders.state", "standardizer"):
        names = [name for name in before if part in name]
        assert any(not th.equal(before[name], after[name]) for name in names), part
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("n_steps", [5, 16])
def test_beliefs_are_those_of_the_current_encoder_since_the_trial_began(n_steps: int) -> None:
    """Also where a trial began in an earlier rollout, whose encoder was another"""
    seen: list[Any] = []

    def check(callback: Hooks) -> None:
        buffer: Any = callback.model.rollout_buffer
        seen.append((deepcopy(buffer.observations), buffer.episode_starts.copy()))
        policy, state = callback.model.policy, None
        for observations, starts in seen:
            for t in range(n_steps):
                own = {key: value[t] for key, value in observations.items() if key != "belief"}
                _, state = policy.predict(own, state, starts[t])
                if observations is seen[-1][0]:
                    expected = policy.encoder.belief(th.as_tensor(state[0])).detach().numpy()
                    np.testing.assert_allclose(observations["belief"][t], expected, atol=1e-5)

    make_model(n_steps=n_steps, batch_size=n_steps, vae_learning_rate=1e-2).learn(n_steps * 3 * 5, Hooks(end=check))
    assert len(seen) == 5 and not np.allclose(seen[-1][0]["belief"], seen[0][0]["belief"])


@pytest.mark.parametrize("normalize", [False, True])
def test_recorded_trials_are_those_that_were_played(normalize: bool) -> None:
    """With VecNormalize, without its normalisation: rewards are the environment's own."""
    played: list[list[dict[str, Any]]] = [[] for _ in range(3)]
    finished: list[list[dict[str, Any]]] = []

    def step(callback: Hooks) -> None:
        env: Any = callback.model.get_env()
        raw = env.get_original_obs() if normalize else callback.locals["new_obs"]
        rewards = env.get_original_reward() if normalize else callback.locals["rewards"]
        for i, done in enumerate(callback.locals["dones"]):
            action = callback.locals["actions"][i]
            played[i].append({"reward": rewards[i], "action": action, "next": {k: v[i].copy() for k, v in raw.items()}})
            if done:
                last = callback.locals["infos"][i]["terminal_observation"]
                own = {key: value for key, value in last.items() if key != "belief"}
                played[i][-1]["next"] = env.unnormalize_obs(own) if normalize else own
                finished.append(played[i])
                played[i] = []

    model = make_model(make_env(normalize=normalize)).learn(192, Hooks(step=step))
    trials = model.trial_buffer.sample(1000)
    assert len(trials) == len(finished) > 5
    by_rewards = {tuple(np.float32([s["reward"] for s in each])): each for each in finished}
    for trial in trials:
        steps = by_rewards[tuple(trial.rewards)]
        assert trial.actions.tolist() == [each["action"] for each in steps]
        for key, values in trial.observations.items():
            expected = np.stack([each["next"][key] for each in steps])
            np.testing.assert_allclose(values[1:], expected, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(trial.observations["prev_reward"][1:-1, 0], trial.rewards[:-1], atol=1e-3)
        assert set(trial.observations["prev_done"].flatten()) <= {0.0, 1.0}
    # All steps have a next state, except the last ones of the first of two episodes
    batch = model.batch_maker()(trials)
    assert (batch.steps.sum(dim=1) - batch.has_next_state.sum(dim=1)).tolist() == [1] * len(trials)


def test_rewards_beyond_the_clipping_of_vec_normalize_are_recorded_as_they_were() -> None:
    """A rare reward is many standard deviations large when it comes, and fewer later on."""

    class Rare(EarlyEnd):
        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return observation * (100.0 if self.np_random.uniform() < 0.02 else 1.0), float(self.time == 2), *rest

    env = DummyVecEnv([lambda: PreviousTransitionObservation(MultiEpisodeTrial(Rare(), trial_end="truncated"))] * 3)
    normalized = VecNormalize(env, clip_obs=1.0)
    seen: list[np.ndarray] = []
    model = make_model(normalized)
    model.learn(192, Hooks(step=lambda _: seen.append(normalized.get_original_obs()["observation"].copy())))
    largest = max(np.abs(each).max() for each in seen)
    trials = model.trial_buffer.sample(1000)
    for trial in trials:
        np.testing.assert_array_equal(trial.observations["prev_reward"][1:, 0], trial.rewards)
    assert largest > 50 and max(np.abs(trial.observations["observation"][1:-1]).max() for trial in trials) > 50


def test_checkpoints_keep_the_newest_trials_if_the_buffer_shrinks() -> None:
    def trial(number: int) -> Trial:
        return Trial({"prev_done": np.zeros((2, 1))}, np.zeros((1, 1)), np.array([float(number)]))

    for n_trials in (2, 5, 8):
        buffer = TrialBuffer(5)
        for number in range(n_trials):
            buffer.add(trial(number))
        assert buffer.resized(5) is buffer
        for size in (3, 9):
            resized = buffer.resized(size)
            kept = {float(each.rewards[0]) for each in resized.sample(100)}
            oldest = max(0, n_trials - min(size, 5))
            assert resized.size == size and kept == set(map(float, range(oldest, n_trials)))
            resized.add(trial(99))  # in place of the oldest one, if there is no room
            left = {float(each.rewards[0]) for each in resized.sample(100)} - {99.0}
            assert left == (kept if len(kept) < size else kept - {float(oldest)})


def test_a_truncated_trial_is_continued_with_the_belief_of_all_its_transitions() -> None:
    checked = []

    def step(callback: Hooks) -> None:
        for i, done in enumerate(callback.locals["dones"]):
            if done:
                model: Any = callback.model
                trial = model._belief_env.recorder.finished[-1]
                hidden = model.policy.encoder.encode(model.batch_maker()([trial]).next_tokens())[0, -1]
                belief = callback.locals["infos"][i]["terminal_observation"]["belief"]
                np.testing.assert_allclose(belief, model.policy.encoder.belief(hidden).detach().numpy(), atol=1e-5)
                checked.append(belief)

    make_model(make_env(1, trial_end="truncated")).learn(64, Hooks(step=step))
    assert len(checked) >= 3


# Updates


def test_the_loss_of_the_policy_has_no_gradient_in_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = []

    def remember(model: Any, n_updates: int) -> None:
        encoders.append([each.grad for each in model.policy.encoder.parameters()])

    monkeypatch.setattr(VariBAD, "train_vae", remember)
    model = make_model()
    before = weights(model)
    model.learn(96)
    after = weights(model)
    assert encoders and all(gradient is None for each in encoders for gradient in each)
    assert all(th.equal(before[name], after[name]) for name in before if "encoder" in name or "decoders" in name)
    assert any(not th.equal(before[name], after[name]) for name in before if "action_net" in name)
    optimized = {id(each) for group in model.policy.optimizer.param_groups for each in group["params"]}
    assert not optimized & {id(each) for each in model.policy.encoder.parameters()}


def test_the_autoencoder_changes_neither_actor_nor_critic_and_leaves_no_gradients() -> None:
    model = make_model().learn(96)
    before = weights(model)
    for each in model.policy.parameters():
        each.grad = None
    model.train_vae(2)
    after = weights(model)
    changed = {name for name in before if not th.equal(before[name], after[name])}
    assert changed and all("encoder" in name or "decoders" in name for name in changed)
    # PPO clips the norm over all parameters of the policy
    assert all(each.grad is None for each in model.policy.parameters())


def test_targets_are_standardized_with_the_moments_of_all_trials() -> None:
    model = make_model(decode_states=True, standardize_targets=True).learn(192)
    trials = model.trial_buffer.sample(1000)
    rewards = th.as_tensor(np.concatenate([trial.rewards for trial in trials]))
    found: Any = model.decoders.reward_standardizer
    th.testing.assert_close(found.mean[0], rewards.mean())
    th.testing.assert_close(found.variance[0], rewards.var(unbiased=False))


def test_the_same_seed_gives_the_same_model() -> None:
    found = [weights(make_model(make_env(normalize=True), seed=seed).learn(96)) for seed in (0, 0, 1)]
    th.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not th.equal(found[0]["policy.value_net.weight"], found[2]["policy.value_net.weight"])


def test_log() -> None:
    logged: dict[str, Any] = {}
    model = make_model(decode_states=True)
    model.learn(96, Hooks(start=lambda callback: logged.update(callback.logger.name_to_value)), log_interval=None)
    own = {"vae_loss", "kl", "reward_reconstruction", "state_reconstruction"}
    assert {f"train/{name}" for name in (*own, "value_loss", "approx_kl")} <= set(logged)


def test_a_gradient_that_is_not_finite_changes_no_weights() -> None:
    model = make_model().learn(96)
    with th.no_grad():
        model.decoders.reward.layers[-1].bias.fill_(float("nan"))  # type: ignore[union-attr, union-attr, index]
    before = [each.clone() for each in model.policy.encoder.parameters()]
    with pytest.raises(FloatingPointError, match="autoencoder"):
        model.train_vae(1)
    assert all(th.equal(a, b) for a, b in zip(before, model.policy.encoder.parameters(), strict=True))


# Acting, evaluation and files


def play(act: Callable[..., Any], n_envs: int = 3, n_steps: int = 30) -> np.ndarray:
    env = make_env(n_envs)
    observations, state, starts = env.reset(), None, np.ones(n_envs, dtype=bool)
    actions = []
    for _ in range(n_steps):
        action, state = act(observations, state, starts, deterministic=True)
        actions.append(action)
        observations, _, starts, _ = env.step(action)
    return np.array(actions)


def test_saved_models_and_policies_act_and_train_alike(tmp_path: Path) -> None:
    model = make_model(decode_states=True, reward_decoder_inputs=["state", "action"], standardize_targets=True)
    model.learn(192)
    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy.pth"))
    loaded = VariBAD.load(tmp_path / "model", env=make_env())
    assert len(loaded.trial_buffer) == 0
    policy = VariBADPolicy.load(str(tmp_path / "policy.pth"))
    copied = make_model(decode_states=True, reward_decoder_inputs=["state", "action"], standardize_targets=True, seed=5)
    copied.set_parameters(model.get_parameters())
    expected = play(model.predict)
    assert len(set(expected.flatten().tolist())) == 2
    for other in (loaded, policy, copied):
        np.testing.assert_array_equal(play(other.predict), expected)
    th.testing.assert_close(weights(loaded), weights(model), rtol=0, atol=0)
    th.testing.assert_close(copied.vae_optimizer.state_dict(), model.vae_optimizer.state_dict(), rtol=0, atol=0)
    slower = VariBAD.load(tmp_path / "model", env=make_env(), vae_learning_rate=0.0, learning_rate=0.0).learn(96)
    th.testing.assert_close(weights(slower)["policy.encoder.mean.weight"], weights(model)["policy.encoder.mean.weight"])
    loaded.learn(96)
    assert not th.equal(weights(loaded)["policy.encoder.mean.weight"], weights(model)["policy.encoder.mean.weight"])


def test_predictions_do_not_depend_on_other_environments() -> None:
    model = make_model().learn(192)
    env = make_env()
    observations, state = env.reset(), None
    alone: list[Any] = [None] * 3
    starts = np.ones(3, dtype=bool)
    for _ in range(30):
        actions, state = model.predict(observations, state, starts, deterministic=True)
        for i in range(3):
            own = {key: value[i] for key, value in observations.items()}  # type: ignore[union-attr]
            action, alone[i] = model.predict(own, alone[i], starts[i : i + 1], deterministic=True)
            assert np.shape(action) == () and action == actions[i]
            np.testing.assert_allclose(alone[i][0][0], state[0][i], atol=1e-5)
        observations, _, starts, _ = env.step(actions)


def test_without_a_state_a_trial_begins() -> None:
    model = make_model().learn(96)
    observation = {key: np.ones((2, *space.shape), np.float32) for key, space in model.observation_space.spaces.items()}  # type: ignore[attr-defined]
    _, state = model.predict(observation, episode_start=np.zeros(2, dtype=bool))
    assert not state[0].any()
    _, state = model.predict(observation, state)
    assert state[0].all()
    _, state = model.predict(observation, state, np.array([True, False]))
    assert not state[0][0].any() and state[0][1].any()


def test_wrong_predictions() -> None:
    model = make_model()
    observation: Any = make_env().reset()
    _, state = model.predict(observation)
    for wrong, message in (
        (dict(state=(state[0][:2],)), r"`state` must have .*\(3, 8\) for 3 observation\(s\), got .*\(2, 8\)"),
        (dict(state="state"), "`state` must be a state from predict"),
        (dict(state=state, episode_start=[True]), "`episode_start` must have one boolean for each of 3"),
        (dict(observation={"observation": observation["observation"]}), "`observation` must be a dictionary"),
        (dict(observation=observation["observation"]), "`observation` must be a dictionary .* got ndarray"),
        (dict(observation={**observation, "prev_reward": np.full((3, 1), np.nan)}), "non-finite observation"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(**{"observation": observation, **wrong})


def test_evaluation_with_the_statistics_of_the_model(tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env("GridNavi-v0", 2, seed=0), norm_reward=True)
    model = make_model(env)
    eval_env = VecNormalize(make_vec_env("GridNavi-v0", 2, seed=0), training=False, norm_reward=False)
    callbacks = [
        EvalCallback(eval_env, n_eval_episodes=2, eval_freq=10, best_model_save_path=str(tmp_path), verbose=0),
        AdaptationEvalCallback("GridNavi-v0", n_eval_episodes=2, eval_freq=10, verbose=0),
    ]
    model.learn(64, callbacks)  # type: ignore[arg-type]
    assert np.isfinite(callbacks[1].last_mean_reward)
    result = evaluate_adaptation(model, "GridNavi-v0", n_eval_tasks=3, n_eval_episodes=2)
    assert result.returns.shape == (3, 2)
    best = VariBAD.load(tmp_path / "best_model", env=eval_env)
    mean, _ = evaluate_policy(best, eval_env, n_eval_episodes=2)
    assert np.isfinite(mean)


def test_environments_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match=r"`env` must be .* Dict .*PreviousTransitionObservation"):
        make_model("CartPole-v1")
    with pytest.raises(ValueError, match="does not support action masks"):
        make_model(PreviousTransitionObservation(MaskedEnv())).learn(16)


def test_a_reward_that_is_not_finite_is_named() -> None:
    class Poisoned(gym.Wrapper):
        def step(self, action: Any) -> Any:
            observation, _, terminated, truncated, info = self.env.step(action)
            return observation, float("nan"), terminated, truncated, info

    env = DummyVecEnv([early_end, lambda: Poisoned(early_end())])
    with pytest.raises(ValueError, match="non-finite reward from environment 1"):
        make_model(env).learn(16)
