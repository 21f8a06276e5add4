"""The only place that changes rl-zoo3: it has no plug-in mechanism, so its tables and one name are filled in here."""

from typing import Any

import rl_zoo3.train
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.zoo.experiment import TrMRLExperimentManager
from sb3_trmrl.zoo.hyperparams_opt import convert_trmrl_params, sample_trmrl_params

#: Name of the algorithm on the command line
ALGO = "trmrl"


def register(**manager_kwargs: Any) -> None:
    """
    Make rl-zoo3 know ``--algo trmrl``. Every one of its scripts builds its choices from these tables when it is called.

    :param manager_kwargs: Further arguments of :class:`TrMRLExperimentManager`
    """
    rl_zoo3.ALGOS[ALGO] = TransformerPPO
    HYPERPARAMS_SAMPLER[ALGO] = sample_trmrl_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_trmrl_params

    def make_manager(*args: Any, **kwargs: Any) -> TrMRLExperimentManager:
        return TrMRLExperimentManager(*args, **kwargs, **manager_kwargs)

    # `rl_zoo3.train.train` looks this name up in its module when it is called.
    rl_zoo3.train.ExperimentManager = make_manager  # type: ignore[assignment, attr-defined]
