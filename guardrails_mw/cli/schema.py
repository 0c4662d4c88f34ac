"""The command ``schema``."""

from __future__ import annotations

from guardrails_mw.cli.output import write_json

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON Schema of policy files, for editors.

    It holds the keys of every installed gate.

    Example: guardrails-mw schema > policy.schema.json, and as the first line of a policy:
    # yaml-language-server: $schema=policy.schema.json
    """
    from guardrails_mw.policy_schema import policy_schema

    write_json(policy_schema())
