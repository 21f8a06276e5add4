"""Names and defaults of the commands. Their parsers import this module, so it imports neither PyTorch nor rl-zoo3."""

from __future__ import annotations

import os

#: Name of TransformerPPO on the command line
ALGO = "trmrl"
#: Names of the package's algorithms, which `zoo/registration.py` registers
ALGORITHMS = (ALGO, "trmrl_sac", "pearl", "varibad", "maml_trpo")
#: Where rl-zoo3's train writes. Its enjoy and record_video read from the folder of downloaded agents by default
LOG_FOLDER = "logs"
#: Environment steps between two checkpoints of `train`
CHECKPOINT_FREQ = 50_000


def default_num_threads() -> int:
    """Return the number of threads for PyTorch: that in ``OMP_NUM_THREADS`` if the user has set it, otherwise 1."""
    # More threads speed up large updates on an idle machine. Beside other load they wait for each other
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(first) if first.isdecimal() and int(first) > 0 else 1
