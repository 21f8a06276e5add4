"""Export of trained agents to files that are safe to load, and the Hugging Face Hub to share them."""

from sb3_trmrl.sharing.agent import ExportedAgent, load_agent
from sb3_trmrl.sharing.export import export_agent
from sb3_trmrl.sharing.hub import load_from_hub, push_to_hub
from sb3_trmrl.sharing.strict_json import InvalidAgentFile

__all__ = ["ExportedAgent", "InvalidAgentFile", "export_agent", "load_agent", "load_from_hub", "push_to_hub"]
