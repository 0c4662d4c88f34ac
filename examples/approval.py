"""A question that is answered in another process, on the command line, while the agent waits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from shop_tools import TOOLS

from guardrails_mw import Guard
from guardrails_mw.testing import ScriptedChatModel, calls

POLICY = Path(__file__).with_name("policy.yaml")


def guardrails_mw(*arguments: str) -> None:
    """The program ``guardrails-mw`` in a process of its own."""
    code = "from guardrails_mw.cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, *arguments, "--policy", str(POLICY)], check=True)


with tempfile.TemporaryDirectory() as folder:
    os.environ["GUARDRAILS_STORE"] = f"sqlite:///{folder}/guardrails.db"
    with Guard.from_yaml(POLICY, tools=TOOLS) as guard:
        model = ScriptedChatModel(replies=[calls(("refund", {"order_id": "1001", "amount": 249.0})), "Refunded."])
        agent = create_agent(model, TOOLS, middleware=[guard.middleware()], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "t1"}}
        result = agent.invoke({"messages": "My order 1001 arrived broken."}, config)
        question = result["__interrupt__"][0].value["id"]

        # What a resume brings along counts for nothing: the answer has to be on record.
        still = agent.invoke(Command(resume="I approve this myself"), config)
        print("still waiting:", still["__interrupt__"][0].value["id"] == question)

        guardrails_mw("approvals", "approve", question, "--by", "dana")
        print(agent.invoke(Command(resume=True), config)["messages"][-1].text)
        guardrails_mw("runs", "list")
