"""The autoencoder against naive references: the ELBO, its KL divergence, and the exact posterior of a bandit."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from torch.distributions import Normal, kl_divergence

from sb3_trmrl.algorithms.transitions import TokenReader
from sb3_trmrl.varibad import VariBAD
from sb3_trmrl.varibad.networks import Encoder, Gaussian, Standardizer
from sb3_trmrl.varibad.trials import Batch, BatchMaker, Trial
from sb3_trmrl.varibad.vae import Decoders, choose, elbo_losses
from tests.helpers.agents import TRANSITION

LATENT, ACTIONS, KL_WEIGHT = 3, spaces.Discrete(2), 0.3


def random_trial(n_steps: int, rng: np.random.Generator) -> Trial:
    """A trial with an inner episode that ends after the second step"""
    n = n_steps + 1
    observations = {
        "observation": rng.normal(size=(n, 3)).astype(np.float32),
        "prev_action": rng.random((n, 2)).astype(np.float32),
        "prev_reward": rng.normal(size=(n, 1)).astype(np.float32),
        "prev_done": (np.arange(n) == 2).astype(np.float32)[:, None],
    }
    return Trial(observations, rng.integers(2, size=n_steps), rng.normal(size=n_steps).astype(np.float32))


def networks(**kwargs: Any) -> tuple[Encoder, Decoders]:
    th.manual_seed(0)
    settings: dict[str, Any] = dict(
        reward_arch=[8], state_arch=[8], reward_inputs=["next_state"], reward_distribution="gaussian", standardize=False
    )
    return Encoder(3, 2, LATENT, 7, (4, 5, 6)), Decoders(3, 2, LATENT, **{**settings, **kwargs})


def trials_and_batch() -> tuple[list[Trial], Batch]:
    rng = np.random.default_rng(0)
    trials = [random_trial(n, rng) for n in (6, 4, 2)]
    return trials, BatchMaker(TokenReader(TRANSITION), ACTIONS, None, th.device("cpu"))(trials)


def naive_encoder(encoder: Encoder, trial: Trial) -> list[Normal]:
    """The posterior before the first step and after each, with a loop over steps."""
    hidden = th.zeros(1, encoder.hidden_size)
    posteriors = []
    for t in range(len(trial.rewards) + 1):
        if t > 0:
            entry = {key: th.as_tensor(value[t]) for key, value in trial.observations.items()}
            parts = [
                encoder.action_embedding(entry["prev_action"]),
                encoder.state_embedding(entry["observation"]),
                encoder.reward_embedding(entry["prev_reward"]),
                entry["prev_done"],
            ]
            hidden = encoder.gru(th.cat(parts).reshape(1, 1, -1), hidden.unsqueeze(0))[1][0]
        posteriors.append(Normal(encoder.mean(hidden)[0], th.exp(0.5 * encoder.log_variance(hidden)[0])))
    return posteriors


def naive_terms(decoders: Decoders, trial: Trial, latent: th.Tensor) -> tuple[list[th.Tensor], list[th.Tensor]]:
    """Losses of all rewards and states that are decoded from one latent, with a loop over steps."""
    rewards, states = [], []
    observations = th.as_tensor(trial.observations["observation"])
    n_steps = len(trial.rewards)
    for i in range(n_steps):
        action = F.one_hot(th.as_tensor(trial.actions[i]), 2).float()
        parts = {"state": observations[i], "action": action, "next_state": observations[i + 1]}
        knows_next_state = i + 1 == n_steps or trial.observations["prev_done"][i + 1] == 0

        def decode(decoder: Any, read: list[th.Tensor], latent: th.Tensor = latent) -> th.Tensor:
            layer = decoder.latent_layer(latent) + decoder.input_layer(th.cat(read))
            return th.as_tensor(decoder.layers(layer))

        if knows_next_state or "next_state" not in decoders.reward_inputs:
            predicted = decode(decoders.reward, [parts[name] for name in decoders.reward_inputs])
            if decoders.is_bernoulli:
                probability = th.sigmoid(predicted[0])
                rewards.append(-th.log(probability if trial.rewards[i] > 0 else 1 - probability))
            else:
                rewards.append((predicted[0] - float(trial.rewards[i])) ** 2)
        if knows_next_state:
            predicted = decode(decoders.state, [parts["state"], action])
            states.append(((predicted - observations[i + 1]) ** 2).mean())
    return rewards, states


@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("inputs", [["next_state"], ["state", "action"]])
def test_the_elbo_equals_a_double_loop(distribution: str, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each posterior decodes all transitions, past and future; its KL divergence is from the previous posterior."""
    monkeypatch.setattr(Gaussian, "sample", lambda self: self.mean + 0.5 * th.exp(0.5 * self.log_variance))
    encoder, decoders = networks(reward_distribution=distribution, reward_inputs=inputs)
    trials, batch = trials_and_batch()
    total, n_pairs, kls, all_rewards, all_states = th.zeros(()), 0, [], [], []
    for trial in trials:
        posteriors = naive_encoder(encoder, trial)
        for t, posterior in enumerate(posteriors):
            reference = posteriors[t - 1] if t > 0 else Normal(th.zeros(LATENT), th.ones(LATENT))
            kls.append(kl_divergence(posterior, reference).sum())
            rewards, states = naive_terms(decoders, trial, posterior.mean + 0.5 * posterior.stddev)
            total = total + sum(rewards) + sum(states) + KL_WEIGHT * kls[-1]
            all_rewards += rewards
            all_states += states
            n_pairs += len(trial.rewards)
    found = elbo_losses(encoder, decoders, batch, KL_WEIGHT)
    assert found.reward is not None and found.state is not None
    th.testing.assert_close(found.loss, total / n_pairs)
    for value, naive in ((found.kl, kls), (found.reward, all_rewards), (found.state, all_states)):
        th.testing.assert_close(value, th.stack(naive).mean())
    parameters = [*encoder.parameters(), *decoders.parameters()]
    gradients = th.autograd.grad(found.loss, parameters)
    th.testing.assert_close(gradients, th.autograd.grad(total / n_pairs, parameters), rtol=1e-4, atol=1e-6)


def test_chosen_steps_are_different_and_uniform() -> None:
    allowed = th.tensor([[True] * 5, [True] * 3 + [False] * 2])
    counts = th.zeros(2, 5)
    for _ in range(600):
        chosen, is_allowed = choose(allowed, 2)
        assert is_allowed.all() and (chosen[:, 0] != chosen[:, 1]).all()
        counts.scatter_add_(1, chosen, th.ones(2, 2))
    expected = th.tensor([[240.0] * 5, [400.0] * 3 + [0.0] * 2])
    assert (counts - expected).abs().max() < 60  # 5 standard deviations
    chosen, is_allowed = choose(allowed, 4)
    assert is_allowed.sum(dim=1).tolist() == [4, 3]


def test_a_few_terms_estimate_all() -> None:
    """Mean losses over random terms and transitions are unbiased."""
    encoder, decoders = networks()
    trials, _ = trials_and_batch()
    batch = BatchMaker(TokenReader(TRANSITION), ACTIONS, None, th.device("cpu"))(trials[:1])
    with th.no_grad():
        exact = th.stack([th.stack(elbo_losses(encoder, decoders, batch, 0.0)[1:]) for _ in range(50)])  # type: ignore[arg-type]
        few = th.stack([th.stack(elbo_losses(encoder, decoders, batch, 0.0, 2, 3)[1:]) for _ in range(300)])  # type: ignore[arg-type]
    error = few.std(dim=0) / 300**0.5 + exact.std(dim=0) / 50**0.5
    assert ((few.mean(dim=0) - exact.mean(dim=0)).abs() < 4 * error).all()


def test_truncated_gradients_stop_after_some_steps() -> None:
    encoder, _ = networks()
    _, batch = trials_and_batch()
    embedded = []
    encoder.state_embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    full = encoder.encode(batch.next_tokens())
    cut = encoder.encode(batch.next_tokens(), bptt_steps=2)
    th.testing.assert_close(cut, full)
    gradients = [th.autograd.grad(out[0, 4].sum(), each)[0] for out, each in zip((full, cut), embedded, strict=True)]
    assert (gradients[0][0, :5] != 0).any(dim=1).all()
    assert (gradients[1][0, :5] != 0).any(dim=1).tolist() == [False] * 4 + [True]


def test_the_standardizer_has_the_moments_of_all_values() -> None:
    values = th.randn(100, 3, generator=th.Generator().manual_seed(0)) * 5 + 2
    standardizer = Standardizer(3)
    th.testing.assert_close(standardizer(values / 10), values / 10)
    for part in values.split([1, 40, 59]):
        standardizer.update(part)
    th.testing.assert_close(standardizer.mean, values.mean(dim=0))
    th.testing.assert_close(standardizer.variance, values.var(dim=0, unbiased=False))
    forgetful = Standardizer(3, window=50)
    for _ in range(20):
        forgetful.update(values)
        forgetful.update(values + 7)
    assert ((forgetful.mean - values.mean(dim=0)) / 7 > 0.6).all()


#: Probabilities of a reward of the two arms, in two equally probable tasks
TASKS = np.array([(0.9, 0.2), (0.2, 0.9)])


def bandit_trial(n_pulls: int, rng: np.random.Generator) -> Trial:
    """Random pulls in a random task"""
    task, arms = rng.integers(2), rng.integers(2, size=n_pulls)
    rewards = (rng.random(n_pulls) < TASKS[task, arms]).astype(np.float32)
    flags = np.zeros((n_pulls + 1, 1), np.float32)
    previous = np.concatenate([np.zeros((1, 2), np.float32), np.eye(2, dtype=np.float32)[arms]])
    prev_reward = np.concatenate([[0.0], rewards]).astype(np.float32)[:, None]
    return Trial(dict(observation=flags, prev_action=previous, prev_reward=prev_reward, prev_done=flags), arms, rewards)


def test_the_belief_tends_to_the_exact_posterior() -> None:
    """After any number of pulls, the decoded probability of a reward is that of Bayes' rule."""
    model = VariBAD(
        "VariBADPolicy",
        gym.make("BernoulliBandit-v0", n_arms=2, n_pulls=30),
        n_steps=2,
        batch_size=2,
        vae_buffer_size=15_000,
        vae_batch_trials=50,
        vae_learning_rate=1e-2,
        kl_weight=1.0,
        n_elbo_terms=8,
        n_decoded_transitions=None,
        reward_distribution="bernoulli",
        reward_decoder_inputs=["action"],
        reward_decoder_arch=[16],
        policy_kwargs=dict(latent_dim=2, gru_hidden_size=32),
        seed=0,
        device="cpu",
    )
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(0)
    for _ in range(15_000):
        model.trial_buffer.add(bandit_trial(30, rng))
    model.train_vae(300)

    trials = [bandit_trial(30, rng) for _ in range(200)]
    arms, rewards = (np.array([getattr(trial, name) for trial in trials]) for name in ("actions", "rewards"))
    likelihoods = [np.where(rewards > 0, task[arms], 1 - task[arms]) for task in TASKS]
    log_odds = np.log(likelihoods[0] / likelihoods[1]).cumsum(axis=1)
    first_task = 1 / (1 + np.exp(-np.concatenate([np.zeros((200, 1)), log_odds], axis=1)))[..., None]
    exact = first_task * TASKS[0] + (1 - first_task) * TASKS[1]  # trial, number of pulls, arm
    encoder, decoder = model.policy.encoder, model.decoders.reward
    assert decoder is not None
    with th.no_grad():
        hidden = encoder.encode(model.batch_maker()(trials).next_tokens())
        posterior = encoder.posterior(th.cat([th.zeros_like(hidden[:, :1]), hidden], dim=1))
        samples = [th.sigmoid(decoder(posterior.sample(), th.eye(2).expand(200, 2, 2))) for _ in range(50)]
    errors = np.abs(th.stack(samples).mean(dim=0).squeeze(-1).numpy() - exact).mean(axis=(0, 2))
    assert errors.max() < 0.06
    assert np.abs(exact - exact[:, :1]).mean(axis=(0, 2))[-1] > 0.3  # the error of a belief that stays at the prior
