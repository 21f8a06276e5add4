"""Checks of the arguments of TransformerPPO and its policy, and defaults of earlier versions."""

from typing import Any

from sb3_trmrl.algorithms import arguments
from sb3_trmrl.algorithms.arguments import Check, check_schedule, or_none
from sb3_trmrl.common.checks import check_non_negative

#: Format of the zip of a model. It changes when an earlier version could not load the zip, or would load it with other
#: defaults. A zip without a number has format 1
ZIP_FORMAT = 3

#: Arguments of the constructor, which are also the names of the attributes
CHECKS: dict[str, Check] = {**arguments.PPO_CHECKS, "vf_learning_rate": or_none(check_schedule)}

#: Arguments that may be schedules, by the attribute of the model that holds the schedule, or None
SCHEDULES = {
    "lr_schedule": "learning_rate",
    "vf_lr_schedule": "vf_learning_rate",
    "clip_range": "clip_range",
    "clip_range_vf": "clip_range_vf",
}

#: Arguments of the policy that its transformer does not check
POLICY_CHECKS: dict[str, Check] = {**arguments.POLICY_CHECKS, "action_head_gain": check_non_negative}


def explicit_defaults(policy_kwargs: dict[str, Any], zip_format: int) -> dict[str, Any]:
    """Return arguments of a policy that was saved in a zip of this format, with defaults that have changed since."""
    defaults = {}
    if zip_format < 3 and policy_kwargs.get("memory") is None:
        defaults["memory"] = "window"
    if zip_format < 2 and policy_kwargs.get("memory") == "full" and policy_kwargs.get("positional_encoding") is None:
        defaults["positional_encoding"] = "none"
    return {**policy_kwargs, **defaults}
