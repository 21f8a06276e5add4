"""Checkpoints, from which an interrupted training run continues exactly."""

from sb3_trmrl.resuming.resumption import Resumption, resume_training
from sb3_trmrl.resuming.training_checkpoint import TrainingCheckpoint

__all__ = ["Resumption", "TrainingCheckpoint", "resume_training"]
