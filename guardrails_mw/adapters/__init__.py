"""The seams: where guardrails meet LangChain and LangGraph."""
