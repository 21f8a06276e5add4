"""The description of an agent: everything in a file except its tensors, as one record."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta

from sb3_trmrl.sharing.limits import MAX_NAME
from sb3_trmrl.sharing.policy_record import PolicyRecord, SACPolicyRecord
from sb3_trmrl.sharing.space_records import Leaf, Space, n_values
from sb3_trmrl.sharing.statistics import StatisticsRecord
from sb3_trmrl.sharing.strict_json import InvalidAgentFile, Record, decode, shown

FORMAT: Final = "sb3_trmrl agent"
#: Gymnasium's ids, without a module before a colon, which ``gym.make`` would import
_ENV_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


class Description(Record, kw_only=True):
    """The description of an agent, in the order of the file."""

    #: Whether the file has the critic's weights
    has_critic: ClassVar[bool] = True

    format: Literal["sb3_trmrl agent"]
    format_version: Literal[1]
    observation_space: Space
    action_space: Leaf
    policy: PolicyRecord
    normalization: StatisticsRecord | None  # None if observations are not normalised
    env_id: Annotated[str, Meta(max_length=MAX_NAME)] | None  # None if the environment is unknown
    env_kwargs: dict[str, Any]
    summary: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("observation_space", "action_space"):
            if n_values(getattr(self, name)) == 0:
                raise InvalidAgentFile(f"{name} has no numbers")
        if self.env_id is not None and not (isinstance(self.env_id, str) and _ENV_ID.fullmatch(self.env_id)):
            raise InvalidAgentFile(
                f"env_id must be a registered id without a module, such as Name-v0, got {shown(self.env_id)}"
            )

    @classmethod
    def from_json(cls, document: Any) -> Description:
        """Decode a description. Its version is checked first: another version has other fields."""
        version = document.get("format_version") if isinstance(document, dict) else None
        if not isinstance(version, int):
            return decode(document, cls, "")  # raises an error that names the field
        if version not in FORMATS:
            *others, last = map(str, FORMATS)
            raise InvalidAgentFile(
                f"format_version must be {', '.join(others)} or {last}, which this version of sb3_trmrl reads, "
                f"got {shown(version)}"
            )
        return decode(document, FORMATS[version], "")


class SACDescription(Description, kw_only=True):
    """The description of an agent that TransformerSAC trained, which older versions of this package cannot load."""

    format_version: Literal[2]  # type: ignore[assignment]
    policy: SACPolicyRecord  # type: ignore[assignment]


class ActorDescription(Description, kw_only=True):
    """The description of an agent without critic."""

    has_critic: ClassVar[bool] = False
    format_version: Literal[3]  # type: ignore[assignment]


class SACActorDescription(SACDescription, kw_only=True):
    """The description of an agent without critics that TransformerSAC trained."""

    has_critic: ClassVar[bool] = False
    format_version: Literal[4]  # type: ignore[assignment]


#: Descriptions by ``format_version``, which is increased when older versions cannot load new files
FORMATS: dict[int, type[Description]] = {
    1: Description,
    2: SACDescription,
    3: ActorDescription,
    4: SACActorDescription,
}


def format_version_of(policy: PolicyRecord | SACPolicyRecord, has_critic: bool) -> int:
    """Return the ``format_version`` of an agent with this policy, with or without its critic."""
    is_sac = isinstance(policy, SACPolicyRecord)
    return next(
        version
        for version, description in FORMATS.items()
        if description.has_critic == has_critic and issubclass(description, SACDescription) == is_sac
    )
