"""A tiny model of each algorithm and baseline, all of which learn from families of tasks with Box actions."""

from typing import Any

from sb3_trmrl import MAMLTRPO, PEARL, TransformerPPO, TransformerSAC, VariBAD
from sb3_trmrl.algorithms.algorithm import Algorithm
from sb3_trmrl.algorithms.resumable import Resumable
from sb3_trmrl.zoo.baselines import PPO, RecurrentPPO
from tests.helpers.agents import TINY

#: Class, policy and arguments of each algorithm
_SETTINGS: dict[str, tuple[type[Algorithm], str, dict[str, Any]]] = {
    "TransformerPPO": (TransformerPPO, "TrMRLPolicy", dict(n_steps=32, batch_size=64, n_epochs=1, policy_kwargs=TINY)),
    "TransformerSAC": (
        TransformerSAC,
        "TrMRLPolicy",
        dict(batch_size=8, learning_starts=20, policy_kwargs={**TINY, "net_arch": [8]}),
    ),
    "VariBAD": (
        VariBAD,
        "VariBADPolicy",
        dict(n_steps=32, batch_size=32, n_epochs=1, vae_batch_trials=2, standardize_targets=True, learning_rate=1e-3)
        | dict(policy_kwargs=dict(gru_hidden_size=8, net_arch=[8])),
    ),
    "PEARL": (
        PEARL,
        "PEARLPolicy",
        dict(n_train_tasks=4, initial_steps=20, prior_steps=20, posterior_steps=20, tasks_per_iteration=2)
        | dict(gradient_steps=3, meta_batch_size=2, batch_size=4, context_batch_size=4)
        | dict(policy_kwargs=dict(net_arch=[8], encoder_net_arch=[8])),
    ),
    "MAMLTRPO": (
        MAMLTRPO,
        "MultiInputPolicy",
        dict(n_tasks=2, n_inner_episodes=1, policy_kwargs=dict(net_arch=[8])),
    ),
}
ALGORITHMS = list(_SETTINGS)
#: As above, for what the zoo trains with checkpoints too
_BASELINES: dict[str, tuple[type[Resumable], str, dict[str, Any]]] = {
    "PPO": (PPO, "MultiInputPolicy", dict(n_steps=32, batch_size=64, n_epochs=1, policy_kwargs=dict(net_arch=[8]))),
    "RecurrentPPO": (
        RecurrentPPO,
        "MultiInputLstmPolicy",
        dict(n_steps=32, batch_size=64, n_epochs=1, policy_kwargs=dict(net_arch=[8], lstm_hidden_size=8)),
    ),
}


def tiny(name: str, env: Any, **kwargs: Any) -> Any:
    """Return a new model."""
    algorithm, policy, arguments = {**_SETTINGS, **_BASELINES}[name]
    return algorithm(policy, env, **{"seed": 0, **arguments, **kwargs})  # type: ignore[arg-type]
