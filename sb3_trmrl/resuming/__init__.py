"""Checkpoints from which an interrupted run continues exactly."""
