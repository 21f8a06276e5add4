"""The only place that changes rl-zoo3. It has no plug-in mechanism, so its tables and two names are replaced here."""

from typing import Any

import rl_zoo3.enjoy
import rl_zoo3.train
import rl_zoo3.utils
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_trmrl.transformer_ppo import TransformerPPO
from sb3_trmrl.zoo.defaults import ALGO
from sb3_trmrl.zoo.experiment import TrMRLExperimentManager
from sb3_trmrl.zoo.hyperparams_opt import convert_trmrl_params, sample_trmrl_params
from sb3_trmrl.zoo.named_values import StoreValues
from sb3_trmrl.zoo.runs import search_current_folder


def register(**manager_kwargs: Any) -> None:
    """Register TransformerPPO as ``--algo trmrl``, with further arguments of :class:`TrMRLExperimentManager`."""
    search_current_folder()  # files of runs may name classes of the user
    rl_zoo3.ALGOS[ALGO] = TransformerPPO
    HYPERPARAMS_SAMPLER[ALGO] = sample_trmrl_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_trmrl_params

    def make_manager(*args: Any, **kwargs: Any) -> TrMRLExperimentManager:
        return TrMRLExperimentManager(*args, **kwargs, **manager_kwargs)

    # The scripts look these names up in their modules when they are called; record_video imports from `utils`
    rl_zoo3.train.ExperimentManager = make_manager  # type: ignore[assignment, attr-defined]
    for module in (rl_zoo3.train, rl_zoo3.enjoy, rl_zoo3.utils):
        module.StoreDict = StoreValues  # type: ignore[attr-defined]
