"""The losses equal naive ones, and their gradients reach the networks that they should."""

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trmrl import PEARL
from sb3_trmrl.pearl import update as update_module
from sb3_trmrl.pearl.buffers import Transitions
from sb3_trmrl.pearl.update import actor_loss, critic_loss, joined, update
from tests.helpers.pearl import copies, tiny_pearl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> PEARL:
    model = tiny_pearl(copies(2), learning_rate=1e-2)
    return model.learn(1)


TASKS = np.array([2, 0, 3])


def sample(model: PEARL) -> tuple[Transitions, th.Tensor]:
    """Return a batch and the context of three tasks."""
    return model.replay_buffer.sample(TASKS, 4), model.replay_buffer.sample_context(TASKS, 5)


def test_a_batch_has_rows_of_its_tasks(model: PEARL) -> None:
    model.replay_buffer._arrays[2][:] = np.arange(model.n_train_tasks)[:, None, None]  # the rewards
    batch, context = sample(model)
    assert batch.states.shape == (3, 4, 3) and context.shape == (3, 5, 6)
    assert (context[..., -1] == th.as_tensor(TASKS)[:, None]).all()
    assert (batch.rewards[..., 0] == th.as_tensor(TASKS)[:, None]).all()


def test_the_critics_loss_is_that_of_naive_loops(model: PEARL) -> None:
    (batch, _), ent_coef = sample(model), th.tensor(0.3)
    batch.dones[0, 1] = batch.dones[2, 3] = 1.0
    latents = th.randn(3, 2)
    th.manual_seed(1)
    found = critic_loss(model, batch, latents, ent_coef)
    th.manual_seed(1)
    noise = th.randn(12, 2)
    errors = []
    for task in range(3):
        for row in range(4):
            after = th.cat((batch.next_states[task, row], latents[task]))[None]
            mean, log_std, _ = model.actor.get_action_dist_params(after)
            before_tanh = mean + log_std.exp() * noise[4 * task + row]
            log_prob = th.distributions.Normal(mean, log_std.exp()).log_prob(before_tanh).sum()
            action = before_tanh.tanh()
            log_prob = log_prob - (1 - action**2 + 1e-6).log().sum()
            value = min(q.item() for q in model.critic_target(after, action)) - 0.3 * log_prob.item()
            target = 5 * batch.rewards[task, row].item()
            if not batch.dones[task, row].item():
                target += 0.99 * value
            now = th.cat((batch.states[task, row], latents[task]))[None]
            errors += [(q.item() - target) ** 2 for q in model.critic(now, batch.actions[task, row][None])]
    assert found.item() == pytest.approx(sum(errors) / 12, rel=1e-4)


def gradients(module: th.nn.Module) -> float:
    return sum(float(each.grad.abs().sum()) for each in module.parameters() if each.grad is not None)


def test_the_critics_loss_trains_the_encoder_but_not_the_actor(model: PEARL) -> None:
    model.policy.zero_grad()
    batch, context = sample(model)
    critic_loss(model, batch, model.encoder(context).sample(), th.tensor(0.3)).backward()
    assert gradients(model.encoder) > 0 and gradients(model.critic) > 0
    assert gradients(model.actor) == 0 and gradients(model.critic_target) == 0


def changed(model: PEARL) -> dict[str, bool]:
    """Take one gradient step, and return which networks have changed."""
    names = ("actor", "critic", "encoder")
    before = {name: [each.detach().clone() for each in getattr(model, name).parameters()] for name in names}
    update(model, 1)
    return {
        name: any(not th.equal(a, b) for a, b in zip(before[name], getattr(model, name).parameters(), strict=True))
        for name in names
    }


def test_gradient_paths(model: PEARL, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> th.Tensor:
        return th.zeros((), requires_grad=True)

    def fresh(**kwargs: Any) -> PEARL:
        # Without the moments of earlier gradients, which move weights also without a gradient
        other = tiny_pearl(copies(2), learning_rate=1e-2, **kwargs)
        other.replay_buffer = model.replay_buffer
        return other

    with monkeypatch.context() as patch:
        patch.setattr(update_module, "critic_loss", nothing)
        assert changed(fresh(kl_weight=0.0)) == {"actor": True, "critic": False, "encoder": False}
        assert changed(fresh(kl_weight=0.1)) == {"actor": True, "critic": False, "encoder": True}
    other = fresh(kl_weight=0.0)
    with monkeypatch.context() as patch:
        silent = lambda *_: sum(0.0 * each.sum() for each in other.actor.parameters())  # noqa: E731
        patch.setattr(update_module, "actor_loss", silent)
        assert changed(other) == {"actor": False, "critic": True, "encoder": True}


def test_the_actors_loss_is_that_of_sac(model: PEARL) -> None:
    batch, _ = sample(model)
    inputs = joined(batch.states, th.randn(3, 2))
    actions, log_prob = model.actor.action_log_prob(inputs)
    found = actor_loss(model, inputs, actions, log_prob[:, None], th.tensor(0.3))
    first, second = model.critic(inputs, actions)
    rows = zip(log_prob.tolist(), first.tolist(), second.tolist(), strict=True)
    expected = np.mean([0.3 * log_p - min(a[0], b[0]) for log_p, a, b in rows])
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_weight_of_the_divergence_is_that_of_a_sum_over_tasks(
    model: PEARL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a critics' loss of zero, the encoder's gradient is that of the weighted sum."""
    _, context = sample(model)
    monkeypatch.setattr(model.replay_buffer, "sample_context", lambda *_: context)
    monkeypatch.setattr(update_module, "critic_loss", lambda *_: th.zeros((), requires_grad=True))
    weights = [each.detach().clone() for each in model.encoder.parameters()]
    model.encoder.zero_grad()
    (0.1 * sum(each.kl_to_prior() for each in map(model.encoder, context))).backward()
    expected = [each.grad.clone() for each in model.encoder.parameters() if each.grad is not None]
    update(model, 1)
    for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
        assert parameter.grad is not None
        th.testing.assert_close(parameter.grad, gradient)
    assert any(not th.equal(a, b) for a, b in zip(weights, model.encoder.parameters(), strict=True))


def test_the_target_follows_the_critic() -> None:
    model = tiny_pearl(copies(2), tau=0.25, target_update_interval=2, gradient_steps=1).learn(1)
    old = [each.detach().clone() for each in model.critic_target.parameters()]
    update(model, 1)
    for before, target, critic in zip(old, model.critic_target.parameters(), model.critic.parameters(), strict=True):
        th.testing.assert_close(target, 0.75 * before + 0.25 * critic)
    old = [each.detach().clone() for each in model.critic_target.parameters()]
    model.tau = 0.0
    update(model, 1)
    assert all(th.equal(a, b) for a, b in zip(old, model.critic_target.parameters(), strict=True))


def test_the_interval_between_updates_of_the_target(model: PEARL, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(update_module, "polyak_update", lambda *arguments: calls.append(arguments))
    model.target_update_interval = 2
    update(model, 5)
    assert len(calls) == 3
