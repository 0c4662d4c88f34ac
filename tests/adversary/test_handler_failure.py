"""What fails inside the handler itself must stay a block, whatever swallows it on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from guardrails_mw import Guard, GuardrailBlocked
from guardrails_mw.document import Document
from guardrails_mw.policy import Policy
from guardrails_mw.testing import ScriptedChatModel

POLICY = "version: 1\ngates: {injection: {type: injection}}\nstages: {input: [injection]}"


def test_a_swallowed_failure_of_the_handler_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry after a failure of the handler cannot bring the run to an ordinary end."""
    with Guard(Policy.load(Document(POLICY), base=tmp_path)) as guard:
        decide, failures = guard.enforcer.deciding, [True]

        async def once(*args: object) -> object:
            if failures:
                failures.pop()
                raise LookupError("raw content")
            return await decide(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(guard.enforcer, "deciding", once)
        chain = RunnableLambda(lambda text: text) | ScriptedChatModel(replies=["one", "two"]).with_retry()
        with pytest.raises(GuardrailBlocked, match=r"error\.callback") as caught:
            chain.invoke("hello", {"callbacks": guard.callbacks()})
        assert "raw content" not in str(caught.value)
