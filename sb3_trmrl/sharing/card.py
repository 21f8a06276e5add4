"""The model card of an agent on the Hugging Face Hub."""

from __future__ import annotations

import json
from typing import Any

from stable_baselines3.sac.policies import SACPolicy

from sb3_trmrl.evaluation.adaptation_result import AdaptationResult
from sb3_trmrl.sharing.agent import ExportedAgent

_TAGS = ("reinforcement-learning", "deep-reinforcement-learning", "stable-baselines3", "transformer")

_CARD = """---
{metadata}
---

# {title}

{about}

## Use

```bash
pip install 'sb3_trmrl[hub]'
```

```python
import numpy as np
from sb3_trmrl import load_from_hub

agent = load_from_hub("{repo_id}")
# observations of one environment or of a batch; episode_start is true at the first step of an episode (a trial)
action, state = agent.predict(observation, state=None, episode_start=np.array([True]), deterministic=True)
```

The file is safetensors with JSON: loading it runs no code. The agent takes observations as the environment returns
them{normalizes}.
{results}
## Agent

| | |
|---|---|
{table}

Summary of the training:

```json
{summary}
```
"""


def model_card(
    agent: ExportedAgent, repo_id: str, result: AdaptationResult | None = None, picture: str | None = None
) -> str:
    """Return the card, YAML metadata and Markdown; ``picture`` is the plot's name in the repository."""
    policy = agent.policy
    title = repo_id.split("/")[-1]
    algorithm = str(agent.summary.get("algorithm", "TransformerPPO"))
    base = "SAC" if isinstance(policy, SACPolicy) else "PPO"
    on_env = f" on `{agent.env_id}`" if agent.env_id else ""
    settings = policy.transformer_kwargs
    rows = {
        "environment": f"`{agent.env_id}` with `{json.dumps(agent.env_kwargs)}`" if agent.env_id else "unknown",
        "observations": f"`{agent.observation_space}`",
        "actions": f"`{agent.action_space}`",
        "memory": f"{policy.memory}, {policy.context_length} steps",
        "transformer": f"{settings['n_layers']} layers, {settings['n_heads']} heads, width {settings['d_model']}",
        "parameters": f"{sum(weight.numel() for weight in policy.parameters()):,}",
    }
    return _CARD.format(
        metadata=_metadata(agent, title, result),
        title=title,
        about=f"An agent trained with {algorithm}{on_env}, from the package sb3_trmrl: {base} with a transformer "
        "memory, for Stable-Baselines3.",
        repo_id=repo_id,
        normalizes="" if agent.observation_statistics is None else " and normalises them itself",
        results="" if result is None else _results(result, picture),
        table="\n".join(f"| {name} | {_in_cell(text)} |" for name, text in rows.items()),
        summary=json.dumps(agent.summary, indent=2, ensure_ascii=False),
    )


def _in_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _metadata(agent: ExportedAgent, title: str, result: AdaptationResult | None) -> str:
    """Return the YAML metadata that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    tags = [*_TAGS, agent.env_id] if agent.env_id else list(_TAGS)
    more: dict[str, Any] = {}
    if result is not None:
        last, on_tasks = len(result.mean_returns), f"{len(result.tasks)} tasks ({result.split})"
        name = f"mean return of episode {last} on {on_tasks}" if result.unit == "tasks" else "mean return"
        evaluated = EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=result.env_id,
            dataset_name=result.env_id,
            metric_type="mean_reward",
            metric_name=name,
            metric_value=round(float(result.mean_returns[-1]), 4),
        )
        more = {"model_name": title, "eval_results": [evaluated]}
    data = ModelCardData(library_name="sb3_trmrl", pipeline_tag="reinforcement-learning", tags=tags, **more)
    return str(data.to_yaml()).strip()


def _results(result: AdaptationResult, picture: str | None) -> str:
    """Return the section about the evaluation."""
    kind = "deterministic" if result.deterministic else "stochastic"
    in_trials = result.unit == "tasks"
    subject = f"tasks of `{result.env_id}` ({result.split})" if in_trials else f"episodes of `{result.env_id}`"
    lines = [
        "",
        "## Adaptation" if in_trials else "## Evaluation",
        "",
        f"{len(result.tasks)} {subject}, frozen weights, {kind} actions, "
        f"seed {result.seed}. {result.tasks_seen_in_training()}",
        "",
        f"| episode | mean return | 95 % interval over {result.unit} |",
        "|---|---|---|",
        *(
            f"| {episode if in_trials else 'each'} | {mean:.2f} | {low:.2f} to {high:.2f} |"
            for episode, (mean, (low, high)) in enumerate(
                zip(result.mean_returns, result.interval(), strict=True), start=1
            )
        ),
        "",
    ]
    if picture is not None:
        lines += [f"![Return by episode of a trial]({picture})", ""]
    return "\n".join(lines)
