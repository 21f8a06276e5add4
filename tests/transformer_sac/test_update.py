"""The update, against SB3's SAC with the same network, and against losses computed for one transition at a time."""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_trmrl import TransformerSAC
from sb3_trmrl.memory.extractor import TransformerExtractor
from sb3_trmrl.memory.replay_buffer import MemoryReplaySamples
from sb3_trmrl.memory.sequences import Sequences
from sb3_trmrl.memory.windows import Windows
from sb3_trmrl.transformer_sac.update import gradient_step
from tests.helpers.agents import BOX_ACTION, TRANSITION, VECTOR, SampledEnv
from tests.helpers.sac import same, tiny_sac, weights

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES: dict[str, Any] = dict(d_model=8, n_layers=2, n_heads=2, dim_feedforward=12)
SHARING: dict[str, dict[str, Any]] = {
    "own": {},
    "shared-critic": dict(share_features_extractor=True, shared_memory_loss="critic"),
    "shared-actor": dict(share_features_extractor=True, shared_memory_loss="actor"),
}


class OneToken(BaseFeaturesExtractor):
    """What remains of the transformer with a single token: its own value is all that it attends to."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, SIZES["d_model"])
        transformer = TransformerExtractor(space, context_length=1, positional_encoding="none", **SIZES)
        self.embedding, self.layers = transformer.embedding, nn.ModuleList(transformer.encoder.layers)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        x: th.Tensor = self.embedding(observations)
        for layer in self.layers:
            attention: Any = layer.attention
            x = x + attention.out(attention.value(x))
            feedforward: Any = layer.feedforward
            x = x + feedforward(x)
        return x


@pytest.mark.parametrize("ent_coef", ["auto", 0.2])
@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("use_sde", [False, True])
def test_with_one_token_it_is_sac(ent_coef: Any, is_shared: bool, use_sde: bool) -> None:
    """Five updates with the same transitions give the same losses and weights, up to rounding."""
    env = SampledEnv(VECTOR, BOX_ACTION)
    common: dict[str, Any] = dict(net_arch=[16], optimizer_kwargs=dict(eps=1e-5), share_features_extractor=is_shared)
    arguments: dict[str, Any] = dict(learning_rate=1e-2, ent_coef=ent_coef, use_sde=use_sde, seed=0, device="cpu")
    ours = TransformerSAC(
        "TrMRLPolicy",
        env,
        **arguments,
        policy_kwargs=dict(common, **SIZES, context_length=1, positional_encoding="none", shared_memory_loss="actor"),
    )
    plain = SAC("MlpPolicy", env, **arguments, policy_kwargs=dict(common, features_extractor_class=OneToken))
    names = [name.replace("encoder.layers", "layers") for name in ours.policy.state_dict()]
    plain.policy.load_state_dict(
        dict(zip(names, (each.clone() for each in ours.policy.state_dict().values()), strict=True)), strict=False
    )
    ours.learn(99, log_interval=None)  # no update yet
    plain._setup_learn(0)
    batches = [ours.replay_buffer.sample(70) for _ in range(5)]
    with_arrays = [
        batch._replace(observations=batch.observations.newest(), next_observations=batch.next_observations.newest())
        for batch in batches
    ]
    losses = []
    for model, samples in ((ours, batches), (plain, with_arrays)):
        drawn = iter(
            [SimpleNamespace(**each._asdict(), discounts=None) if model is plain else each for each in samples]
        )
        model.replay_buffer = SimpleNamespace(sample=lambda *_, drawn=drawn, **__: next(drawn))  # type: ignore[assignment]
        model._current_progress_remaining = 1.0
        th.manual_seed(3)
        model.train(5, 70)
        values = model.logger.name_to_value
        losses.append([values[f"train/{key}"] for key in ("actor_loss", "critic_loss", "ent_coef")])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    theirs = plain.policy.state_dict()
    for name, value in zip(names, ours.policy.state_dict().values(), strict=True):
        np.testing.assert_allclose(value, theirs.get(name, value), rtol=1e-4, atol=1e-5)
    assert len(set(names) & set(theirs)) >= len(theirs)
    if ent_coef == "auto":
        assert ours.log_ent_coef is not None and ours.log_ent_coef.item() == pytest.approx(plain.log_ent_coef.item())


def naive_action(actor: Any, memory: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Return an action (A,) for one memory, and its log probability."""
    latent = actor.latent_pi(memory)
    mean, log_std = actor.mu(latent), actor.log_std(latent).clamp(-20, 2)
    gaussian = mean + log_std.exp() * noise
    action = gaussian.tanh()
    densities = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - (1 - action**2 + 1e-6).log()
    return action, densities.sum()


def naive_memory(part: Any, batch: Windows | Sequences, index: int) -> th.Tensor:
    """Return the episodic memory of one window or sequence, which is encoded alone."""
    transformer = part.features_extractor
    if isinstance(batch, Windows):
        rows = batch.index[index, : batch.lengths[index]]
    else:
        begins, row = np.cumsum((0, *batch.lengths)), int(batch.outputs[index])
        rows = np.arange(begins[begins <= row].max(), row + 1)
    memories = transformer.working_memories(batch.tokens, rows, np.arange(len(rows)))
    memory: th.Tensor = transformer.encoder(memories[None], th.tensor([len(rows)]))[0]
    return memory


def clones(module: Any) -> list[th.Tensor]:
    return [each.detach().clone() for each in module.parameters()]


def lowest(critic: Any, memory: th.Tensor, action: th.Tensor) -> th.Tensor:
    return th.stack([q(th.cat([memory, action])) for q in critic.q_networks]).min()


@pytest.mark.parametrize("batch_size", [24, 70])  # the encoder for short windows is used from 64 on
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("memory", ["window", "full"])
def test_gradients_equal_those_of_a_naive_implementation(memory: str, sharing: str, batch_size: int) -> None:
    model = tiny_sac(
        space=TRANSITION,
        learning_starts=1000,
        learning_rate=1.0,
        gamma=0.9,
        ent_coef=0.3,
        policy_kwargs=dict(
            SHARING[sharing],
            optimizer_class=th.optim.SGD,
            memory=memory,
            context_length=4 if memory == "window" else 50,
            positional_encoding="sinusoidal",
        ),
        replay_buffer_kwargs=dict(sequence_length=3) if memory == "full" else None,
    )
    model.learn(60, log_interval=None)
    np.random.seed(0)
    batch = model.replay_buffer.sample(batch_size)
    assert 0 < batch.dones.sum() < batch_size and len(set(batch.observations.lengths)) > 1
    old, new = deepcopy(model.policy), model.policy
    seeds = th.manual_seed(5).get_state()
    noise, next_noise = th.randn(batch_size, 2), th.randn(batch_size, 2)
    th.set_rng_state(seeds)
    statistics = gradient_step(model, batch)

    critic_loss, actor_loss = th.zeros(()), th.zeros(())
    for i in range(batch_size):
        with th.no_grad():
            memory = naive_memory(old.actor, batch.next_observations, i)
            action, log_prob = naive_action(old.actor, memory, next_noise[i])
            value = lowest(old.critic_target, naive_memory(old.critic_target, batch.next_observations, i), action)
            target = batch.rewards[i] + (1 - batch.dones[i]) * 0.9 * (value - 0.3 * log_prob)
        memory = naive_memory(old.critic, batch.observations, i)
        memory = memory.detach() if sharing == "shared-actor" else memory
        for q in old.critic.q_networks:
            critic_loss = critic_loss + 0.5 * ((q(th.cat([memory, batch.actions[i]])) - target) ** 2).sum() / batch_size

        memory = naive_memory(old.actor, batch.observations, i)
        memory = memory.detach() if sharing == "shared-critic" else memory
        action, log_prob = naive_action(old.actor, memory, noise[i])
        # The actor's loss reads critics that have been updated, but the transformer of an actor that has not
        reader = old.critic if sharing == "shared-actor" else new.critic
        value = lowest(new.critic, naive_memory(reader, batch.observations, i).detach(), action)
        actor_loss = actor_loss + (0.3 * log_prob - value) / batch_size

    assert statistics["critic_loss"] == pytest.approx(critic_loss.item(), rel=1e-4)
    assert statistics["actor_loss"] == pytest.approx(actor_loss.item(), rel=1e-4)
    for before, after, loss in ((old.critic, new.critic, critic_loss), (old.actor, new.actor, actor_loss)):
        trained = before.trained_parameters()
        gradients = th.autograd.grad(loss, trained)
        for a, b, gradient in zip(trained, after.trained_parameters(), gradients, strict=True):
            np.testing.assert_allclose((a - b).detach(), gradient, rtol=2e-3, atol=1e-5)
            assert gradient.abs().max() > 1e-4 or gradient.ndim == 1


@pytest.mark.parametrize("sharing", SHARING)
def test_which_loss_trains_which_transformer(sharing: str) -> None:
    model = tiny_sac(policy_kwargs=SHARING[sharing]).learn(11, log_interval=None)
    batch = model.replay_buffer.sample(8)
    before = [clones(part) for part in (model.actor, model.critic, model.critic_target)]
    gradient_step(model, batch)
    changed = [
        not same(old, clones(part))
        for old, part in zip(before, (model.actor, model.critic, model.critic_target), strict=True)
    ]
    assert changed == [True, True, False], "targets follow only after the step"
    is_shared = model.actor.features_extractor is model.critic.features_extractor
    assert is_shared == (sharing != "own")
    assert model.critic_target.features_extractor is not model.critic.features_extractor
    owners = [
        part
        for part in (model.actor, model.critic)
        for group in part.optimizer.param_groups
        if any(
            each is parameter for each in group["params"] for parameter in model.actor.features_extractor.parameters()
        )
    ]
    assert owners == [model.critic if sharing == "shared-critic" else model.actor]


def test_targets_follow_slowly() -> None:
    model = tiny_sac(tau=0.25, learning_starts=20, gradient_steps=1).learn(20, log_interval=None)
    before = clones(model.critic_target)
    model.train(1, 8)
    for old, new, target in zip(before, clones(model.critic), clones(model.critic_target), strict=True):
        np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-7)


def test_layer_norm_of_the_critics() -> None:
    model = tiny_sac(policy_kwargs=dict(critic_layer_norm=True)).learn(15, log_interval=None)
    for critic in (model.critic, model.critic_target):
        assert [type(layer).__name__ for layer in critic.q_networks[1]] == ["Linear", "LayerNorm", "ReLU", "Linear"]
        assert critic.qf1 is critic.q_networks[1]
    assert any(each is model.critic.q_networks[0][1].weight for each in model.critic.parameters())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model = tiny_sac().learn(11, log_interval=None)
    batch = model.replay_buffer.sample(8)
    before = weights(model)
    wrong: MemoryReplaySamples = batch._replace(rewards=batch.rewards * th.inf)
    with pytest.raises(FloatingPointError, match=r"loss of the critic is (inf|nan): .*learning_rate"):
        gradient_step(model, wrong)
    assert same(before, weights(model))
