"""The seams: where guardrails meet LangChain and LangGraph."""

from importlib.util import find_spec

for _name in ("langchain_core", "langgraph"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"the seams need {_name}: pip install 'guardrails-mw[langchain]'", name=_name)
