"""Data-parallel training: several processes (ranks) with environments of their own train one model."""
