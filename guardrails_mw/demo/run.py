"""Plays the demo's conversations with a guarded agent and says whether each ended as it had to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import SecretStr
from rich.console import Console

from guardrails_mw.demo.conversations import Conversation, load
from guardrails_mw.demo.screen import Screen, speaking
from guardrails_mw.demo.server import HEADER, JUDGE, MODEL, ModelServer
from guardrails_mw.demo.shop import Shop
from guardrails_mw.guard import Guard
from guardrails_mw.spend import spend

__all__ = ["resource", "run"]

_POLICIES = {"support": "support-agent.yaml", "form": "ticket-form.yaml"}
_SCHEMAS = ("schemas/order.json", "schemas/ticket.json")
_PROMPTS = {
    "support": "You are the support agent of a coffee shop. Use the tools. Be brief. Ids look like C-1001 and 1001.",
    "form": "Sort the message into a ticket. Answer with JSON alone: topic (delivery, return, billing or other), "
    "urgency (1 to 5), summary.",
}
_REVIEWER = "dana"


def resource(name: str) -> Path:
    """A file of the demo: from the installed package, or from `configs` in a source checkout.

    Raises:
        FileNotFoundError: in neither.
    """
    package = Path(__file__).parent
    for folder in (package, package.parents[1] / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(name)


def run(
    folder: Path | None = None,
    conversations: Path | None = None,
    *,
    only: Sequence[str] = (),
    verbose: bool = False,
    console: Console | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Play the demo.

    Offline, a scripted model server on loopback answers. With ``OPENAI_API_KEY`` or ``OPENAI_BASE_URL`` in the
    environment a real model does (``OPENAI_MODEL``, else gpt-4o-mini); what depends on the script is then only
    reported, and what must never happen is still enforced.

    Args:
        folder: where shop, policies, record and checkpoints go; a new temporary one if left out.
        conversations: another file of conversations.
        only: ids of the conversations to play; all if empty.
        verbose: show also the decisions that let everything pass.
        console: where to print.
        env: the environment; the process's own if left out.

    Returns:
        0 if every conversation ended as expected, 1 if one did not, 2 if there was nothing to play.
    """
    console = console or Console()
    env = dict(os.environ if env is None else env)
    folder = (folder or Path(tempfile.mkdtemp(prefix="guardrails-demo-"))).resolve()
    if (folder / "shop.db").exists():
        console.print(f"{folder} holds an earlier demo; choose another folder", style="red", soft_wrap=True)
        return 2
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    shop = Shop(folder / "shop.db")
    try:
        known = load(conversations or resource("conversations.jsonl"), {"secret": shop.secret})
    except (OSError, ValueError) as error:
        console.print(str(error), style="red", soft_wrap=True)
        return 2
    chosen = [item for item in known if not only or item.id in only]
    if not chosen:
        console.print(f"no such conversation; there are: {', '.join(item.id for item in known)}", style="red")
        return 2
    with ExitStack() as stack:
        server = stack.enter_context(ModelServer({item.id: item.replies for item in chosen}))
        stage = _Stage(folder, shop, server, env, stack)
        return stage.play(chosen, Screen(console, verbose=verbose))


@dataclass
class _Outcome:
    """What came of a conversation."""

    text: str = ""
    end: str = ""
    reasons: set[str] = field(default_factory=set)
    asked: int = 0


class _Stage:
    """Shop, model, guards and checkpoints of one demo."""

    def __init__(self, folder: Path, shop: Shop, server: ModelServer, env: dict[str, str], stack: ExitStack) -> None:
        self.folder, self.shop, self.server, self.env = folder, shop, server, env
        real = env.get("OPENAI_API_KEY") or env.get("OPENAI_BASE_URL")
        self.real = (env.get("OPENAI_MODEL") or "gpt-4o-mini") if real else ""
        self.env.setdefault("EXPORT_WITHIN", "1s")  # one conversation waits until nobody has answered
        if not env.get("LLAMA_GUARD_URL"):
            self.env |= {"LLAMA_GUARD_URL": server.url, "LLAMA_GUARD_MODEL": JUDGE}
        for name in (*_POLICIES.values(), *_SCHEMAS):
            shutil.copyfile(resource(name), folder / name)
        for name in _POLICIES.values():
            _add_traces(folder / name, env)
        self.tools = {"support": shop.tools, "form": []}
        self.guards = {
            app: stack.enter_context(Guard.from_yaml(folder / name, tools=self.tools[app], env=self.env))
            for app, name in _POLICIES.items()
        }
        for guard in self.guards.values():
            guard.warm()
        self.checkpoints = stack.enter_context(SqliteSaver.from_conn_string(str(folder / "checkpoints.db")))

    def play(self, conversations: Sequence[Conversation], screen: Screen) -> int:
        """All conversations, then the summary. Returns the exit status."""
        began, good, failed = time.perf_counter(), 0, False
        for guard in self.guards.values():
            guard.engine.observers.append(screen.decision)
        screen.console.print(self._opening(), style="dim", soft_wrap=True)
        screen.console.print()
        for number, conversation in enumerate(conversations, start=1):
            screen.heading(conversation, number, len(conversations))
            unsafe, unmet = self._played(conversation, screen)
            failed = failed or bool(unsafe) or bool(unmet and not self.real)
            good += not (unsafe or unmet)
        self._close(screen, good, len(conversations), time.perf_counter() - began)
        return int(failed)

    def _played(self, conversation: Conversation, screen: Screen) -> tuple[list[str], list[str]]:
        """Play one conversation; what was wrong with it, see `_held_against`."""
        began, first, outcome = time.perf_counter(), len(screen.decisions), _Outcome()
        self.shop.ran.clear()
        try:
            _Play(self, conversation, screen, outcome).all_turns()
        except Exception as error:  # noqa: BLE001 - one conversation that breaks must not hide the others
            outcome.end = f"error {type(error).__name__}"
        for decision in screen.decisions[first:]:
            outcome.reasons |= {f"{check.gate}:{check.verdict.reason}" for check in speaking(decision)}
        unsafe, unmet = self._held_against(conversation, outcome)
        took = time.perf_counter() - began
        screen.verdict([*unsafe, *unmet], outcome.end, took, enforced=bool(unsafe) or not self.real)
        return unsafe, unmet

    def model(self, conversation: Conversation) -> BaseChatModel:
        """The model for a conversation: a real one, or the one that reads from the script."""
        if self.real:
            key = self.env.get("OPENAI_API_KEY") or "none"
            base = self.env.get("OPENAI_BASE_URL") or None
            return ChatOpenAI(model=self.real, api_key=SecretStr(key), base_url=base)
        headers = {HEADER: conversation.id}
        return ChatOpenAI(
            model=MODEL, base_url=self.server.url, api_key=SecretStr("none"), default_headers=headers, max_retries=0
        )

    def _opening(self) -> str:
        offline = "a scripted model server on loopback (set OPENAI_API_KEY for a real model)"
        return f"Policy {_POLICIES['support']}, {f'model {self.real}' if self.real else offline}"

    def _held_against(self, conversation: Conversation, outcome: _Outcome) -> tuple[list[str], list[str]]:
        """What must never happen and did, and what was expected and did not come about."""
        expect, ran = conversation.expect, self.shop.ran
        seen = "" if self.real else self.server.seen(conversation.id)
        unsafe = [f"reached the user: {text}" for text in expect.not_in_output if text in outcome.text]
        unsafe += [f"reached the model: {text}" for text in expect.not_seen if text in seen]
        unsafe += [f"must not run, and ran: {name}" for name in expect.not_ran if name in ran]
        unmet = [f"missing in what the user reads: {text}" for text in expect.in_output if text not in outcome.text]
        for what, wanted, got in (
            ("end", expect.end, outcome.end),
            ("tools", expect.ran, ran),
            ("reasons", sorted(expect.reasons), sorted(outcome.reasons)),
            ("questions", len(conversation.people), outcome.asked),
        ):
            if wanted != got:
                unmet.append(f"{what}: expected {_listed(wanted)}, got {_listed(got)}")
        return unsafe, unmet

    def _close(self, screen: Screen, good: int, total: int, seconds: float) -> None:
        guard, name = self.guards["support"], self.folder / _POLICIES["support"]
        runs = [item.run for item in guard.ledger.runs(limit=10_000)]
        shown = next((asked.run for asked in guard.approvals.list(None)), runs[0] if runs else "RUN")
        costs = spend(guard.ledger, "run")
        tokens = sum(each.input_tokens + each.output_tokens for each in costs)
        screen.summary(good, total, sum(each.usd_micro for each in costs) / 1_000_000, tokens, seconds)
        screen.fact("Record", str(self.folder / "guardrails.db"))
        screen.look(
            [
                (f"guardrails-mw runs list --policy {name}", "every run on record"),
                (f"guardrails-mw runs show {shown} --policy {name}", "one of them, step by step"),
                (f"guardrails-mw approvals list --all --policy {name}", "what people were asked"),
                (f"guardrails-mw explain --policy {name}", "what the policy means"),
            ]
        )


class _Play:
    """One conversation on the stage."""

    def __init__(self, stage: _Stage, conversation: Conversation, screen: Screen, outcome: _Outcome) -> None:
        self._stage, self._conversation, self._screen, self._outcome = stage, conversation, screen, outcome
        self._guard = stage.guards[conversation.app]
        self._people = list(conversation.people)
        self._agent = create_agent(
            stage.model(conversation),
            stage.tools[conversation.app],
            system_prompt=_PROMPTS[conversation.app],
            middleware=[self._guard.middleware()],
            checkpointer=stage.checkpoints,
        )
        self._config: RunnableConfig = {
            "configurable": {"thread_id": conversation.id, "actor": conversation.actor},
            "metadata": {"guardrails_actor": str(conversation.actor.get("id", ""))},
            "callbacks": self._guard.traces(),
        }

    def all_turns(self) -> None:
        """Say everything the user says, and answer every question on the way."""
        for turn in self._conversation.turns:
            self._screen.said("user", turn if isinstance(turn, str) else _described(turn))
            question = self._stream({"messages": [{"role": "user", "content": turn}]})
            while question is not None:
                self._outcome.asked += 1
                self._answer(question)
                question = self._stream(Command(resume=True))
            last = self._agent.get_state(self._config).values["messages"][-1]
            self._outcome.text += f"\n{last.text}"
            self._outcome.end = "refused" if "guardrails" in last.response_metadata else "answered"
            self._screen.said("agent", last.text)

    def _stream(self, what: object) -> dict[str, object] | None:
        """Run the agent until it has answered, or has a question to a person."""
        question: dict[str, object] | None = None
        for mode, data in self._agent.stream(what, self._config, stream_mode=["messages", "updates"]):  # type: ignore[call-overload]
            if mode == "messages":
                piece = cast("tuple[BaseMessage, object]", data)[0]
                if isinstance(piece, AIMessage | AIMessageChunk):
                    self._outcome.text += piece.text
                continue
            for update in cast("Mapping[str, object]", data).values():
                if isinstance(update, tuple) and update:
                    question = update[0].value
                elif isinstance(update, Mapping):
                    self._note(update.get("messages"))
        return question

    def _note(self, messages: object) -> None:
        """What people's answers led to stands in the tool's message."""
        for message in messages if isinstance(messages, list) else []:
            mark = message.additional_kwargs.get("guardrails") if isinstance(message, ToolMessage) else None
            if isinstance(mark, dict) and mark["gate"] == "approval":
                self._outcome.reasons.add(f"{mark['gate']}:{mark['reason']}")
                self._screen.stopped(message.name or "", str(mark["reason"]))

    def _answer(self, question: Mapping[str, object]) -> None:
        """Do what the people of this conversation do."""
        id_, action = str(question["id"]), str(question["action"])
        deed = self._people.pop(0) if self._people else "reject"
        if deed == "approve":
            self._guard.approvals.approve(id_, by=_REVIEWER)
            self._screen.person(action, f"{_REVIEWER} approves")
        elif deed == "approve-elsewhere":
            self._screen.person(action, f"{_REVIEWER} approves in another process")
            self._approve_elsewhere(id_)
        elif deed == "reject":
            self._guard.approvals.reject(id_, by=_REVIEWER, feedback="not without a return")
            self._screen.person(action, f"{_REVIEWER} rejects")
        else:
            wait = max(0.0, float(cast("float", question["due"])) - time.time())
            self._screen.person(action, f"nobody answers within {wait:.1f} s")
            time.sleep(wait + 0.05)

    def _approve_elsewhere(self, id_: str) -> None:
        policy = self._stage.folder / _POLICIES[self._conversation.app]
        arguments = ["approvals", "approve", id_, "--by", _REVIEWER, "--policy", str(policy)]
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", "from guardrails_mw.cli.app import main; main()", *arguments],
            env=self._stage.env,
            check=True,
            capture_output=True,
            timeout=60,
        )


def _add_traces(policy: Path, env: Mapping[str, str]) -> None:
    """Where the environment names a receiver of traces, the demo's copy of a policy sends them there."""
    lines = []
    if env.get("LANGFUSE_PUBLIC_KEY") and env.get("LANGFUSE_SECRET_KEY"):
        lines.append("  langfuse: true")
    if base := env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        lines.append(f'  otlp: [{{endpoint: "{base.rstrip("/")}/v1/traces"}}]')
    if lines:
        text = policy.read_text(encoding="utf-8")
        policy.write_text("\n".join([text, "traces:", *lines, ""]), encoding="utf-8")


def _described(blocks: Sequence[Mapping[str, object]]) -> str:
    return " ".join(str(block.get("text") or f"[{block.get('type')}]") for block in blocks)


def _listed(value: object) -> str:
    return (", ".join(map(str, value)) or "nothing") if isinstance(value, list) else str(value)
