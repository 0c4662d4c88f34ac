"""Credentials in texts: provider tokens, private keys, passwords under telling names."""

from __future__ import annotations

from guardrails_mw.gates.secrets.gate import SecretsConfig, SecretsGate

__all__ = ["SecretsConfig", "SecretsGate"]
