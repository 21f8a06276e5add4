"""Tests of data-parallel training."""
