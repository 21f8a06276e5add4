"""
Transformer memory and meta-reinforcement learning for Stable-Baselines3.

Importing the package registers its environments with Gymnasium.
"""

import sb3_trmrl.envs  # noqa: F401  (registers the environments)
from sb3_trmrl.evaluation.adaptation import evaluate_adaptation
from sb3_trmrl.evaluation.callbacks import AdaptationEvalCallback
from sb3_trmrl.resuming import TrainingCheckpoint
from sb3_trmrl.sharing import ExportedAgent, InvalidAgentFile, load_agent, load_from_hub, push_to_hub
from sb3_trmrl.transformer_ppo import TransformerPPO, TrMRLPolicy
from sb3_trmrl.trials.held_out import share_tasks
from sb3_trmrl.trials.multi_episode_trial import MultiEpisodeTrial
from sb3_trmrl.trials.previous_transition import PreviousTransitionObservation

__version__ = "0.1.0"

__all__ = [
    "AdaptationEvalCallback",
    "ExportedAgent",
    "InvalidAgentFile",
    "MultiEpisodeTrial",
    "PreviousTransitionObservation",
    "TrMRLPolicy",
    "TrainingCheckpoint",
    "TransformerPPO",
    "evaluate_adaptation",
    "load_agent",
    "load_from_hub",
    "push_to_hub",
    "share_tasks",
]
