"""A new agent: the middleware guards its model and its tools, and asks people where the policy says so."""

from __future__ import annotations

from pathlib import Path

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from shop_tools import TOOLS

from guardrails_mw import Guard
from guardrails_mw.testing import ScriptedChatModel, calls

guard = Guard.from_yaml(Path(__file__).with_name("policy.yaml"), tools=TOOLS)
model = ScriptedChatModel(
    replies=[
        calls(("find_order", {"order_id": "1001"})),
        calls(("refund", {"order_id": "1001", "amount": 249.0})),
        "I have refunded 249.00.",
    ]
)
agent = create_agent(model, TOOLS, middleware=[guard.middleware()], checkpointer=InMemorySaver())
config = {"configurable": {"thread_id": "t1", "actor": {"id": "lena", "roles": ["support"]}}}

result = agent.invoke({"messages": "My order 1001 arrived broken."}, config)
question = result["__interrupt__"][0].value
print("asked:", question["action"], question["args"], question["reason"])

guard.approvals.approve(question["id"], by="dana")
for message in agent.invoke(Command(resume=True), config)["messages"]:
    print(f"{message.type}: {message.text}")
