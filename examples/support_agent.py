"""A whole agent: the policy of a support team, a shop in SQLite, streaming, and a look at the record."""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langgraph.checkpoint.memory import InMemorySaver

from guardrails_mw import Guard
from guardrails_mw.demo.server import JUDGE, ModelServer
from guardrails_mw.demo.shop import Shop
from guardrails_mw.testing import ScriptedChatModel, calls

POLICY = Path(__file__).parents[1] / "configs" / "support-agent.yaml"

with tempfile.TemporaryDirectory() as folder, ModelServer({}) as judge:  # stands where Llama Guard would
    shop = Shop(Path(folder) / "shop.db")
    env = {
        "GUARDRAILS_STORE": f"sqlite:///{folder}/guardrails.db",
        "LLAMA_GUARD_URL": judge.url,
        "LLAMA_GUARD_MODEL": JUDGE,
    }
    with Guard.from_yaml(POLICY, tools=shop.tools, env=env) as guard:
        guard.warm()
        model = ScriptedChatModel(
            replies=[
                calls(("search_articles", {"query": "partner"})),
                calls(("send_email", {"to": "C-9999", "subject": "Customers", "body": "all of them"})),
                "I can't open that article. Delivery takes 2 to 4 working days.",
            ]
        )
        agent = create_agent(model, shop.tools, middleware=[guard.middleware()], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "t1", "actor": {"id": "C-1001"}}, "callbacks": guard.traces()}
        question = {"messages": "Any offers? And how long does delivery take?"}

        for piece, _ in agent.stream(question, config, stream_mode="messages"):
            if isinstance(piece, AIMessageChunk):
                print(piece.text, end="", flush=True)
        print("\ntools that ran:", shop.ran)

        run = guard.ledger.runs()[0].run
        for entry in guard.ledger.read(run):
            body = entry["body"]
            if body.get("gate") and body["reason"]:  # a gate had something to say
                print(body["stage"], body.get("tool", ""), body["verdict"], body["gate"], body["reason"])
