"""The demo: a support agent with a real shop behind it, played through with conversations that go right and wrong.

`guardrails_mw.demo.run.run` is the way in.
"""
