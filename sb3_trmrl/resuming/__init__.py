"""Checkpoints, from which an interrupted training run continues exactly."""

from sb3_trmrl.resuming.resumption import Resumption, resume_training
from sb3_trmrl.resuming.training_checkpoint import TrainingCheckpoint
from sb3_trmrl.transformer_ppo.transformer_ppo import TransformerPPO

# Algorithms do not import this package
TransformerPPO.register_resumer(resume_training)

__all__ = ["Resumption", "TrainingCheckpoint", "resume_training"]
