"""Evaluation of adaptation to held-out tasks, with frozen weights (paper, section 5.1)."""
