"""
Transformer memory and meta-reinforcement learning for Stable-Baselines3.

Importing the package registers its environments with Gymnasium. Its names are imported when they are first used,
because most of them need PyTorch, which takes seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

import sb3_trmrl.envs  # noqa: F401  (registers the environments)
from sb3_trmrl.common.methods import IMPLEMENTATIONS

if TYPE_CHECKING:
    from sb3_trmrl.envs.batched_vec_env import BatchedVecEnv
    from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
    from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback
    from sb3_trmrl.maml_trpo import MAMLTRPO, MAMLPolicy
    from sb3_trmrl.pearl import PEARL, PEARLPolicy
    from sb3_trmrl.resuming import TrainingCheckpoint
    from sb3_trmrl.sharing import ExportedAgent, InvalidAgentFile, load_agent, load_from_hub, push_to_hub
    from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
    from sb3_trmrl.transformer_sac import TransformerSAC, TransformerSACPolicy
    from sb3_trmrl.trials.held_out import share_tasks
    from sb3_trmrl.trials.multi_episode_trial import MultiEpisodeTrial
    from sb3_trmrl.trials.previous_transition import PreviousTransitionObservation
    from sb3_trmrl.varibad import VariBAD, VariBADPolicy

__version__ = "0.1.0"

__all__ = [
    "MAMLTRPO",
    "PEARL",
    "AdaptationEvalCallback",
    "BatchedVecEnv",
    "ExportedAgent",
    "InvalidAgentFile",
    "MAMLPolicy",
    "MultiEpisodeTrial",
    "PEARLPolicy",
    "PreviousTransitionObservation",
    "TrMRLPolicy",
    "TrainingCheckpoint",
    "TransformerPPO",
    "TransformerSAC",
    "TransformerSACPolicy",
    "VariBAD",
    "VariBADPolicy",
    "evaluate_adaptation",
    "load_agent",
    "load_from_hub",
    "push_to_hub",
    "share_tasks",
]

_MODULES = {
    "AdaptationEvalCallback": "evaluation.callbacks",
    "BatchedVecEnv": "envs.batched_vec_env",
    "ExportedAgent": "sharing",
    "InvalidAgentFile": "sharing",
    "MAMLPolicy": "maml_trpo",
    "MAMLTRPO": "maml_trpo",
    "MultiEpisodeTrial": "trials.multi_episode_trial",
    "PEARL": "pearl",
    "PEARLPolicy": "pearl",
    "PreviousTransitionObservation": "trials.previous_transition",
    "TrMRLPolicy": "transformer_ppo",
    "TrainingCheckpoint": "resuming",
    "TransformerPPO": "transformer_ppo",
    "TransformerSAC": "transformer_sac",
    "TransformerSACPolicy": "transformer_sac",
    "VariBAD": "varibad",
    "VariBADPolicy": "varibad",
    "evaluate_adaptation": "evaluation.adaptation",
    "load_agent": "sharing",
    "load_from_hub": "sharing",
    "push_to_hub": "sharing",
    "share_tasks": "trials.held_out",
}

# Algorithms do not import these packages
IMPLEMENTATIONS["export"] = "sb3_trmrl.sharing:export_agent"
IMPLEMENTATIONS["export_onnx"] = "sb3_trmrl.sharing.onnx_export:export_onnx"
IMPLEMENTATIONS["resume"] = "sb3_trmrl.resuming:resume_training"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # not asked for again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
