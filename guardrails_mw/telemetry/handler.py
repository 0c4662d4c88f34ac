"""Spans of a LangChain or LangGraph run, from callbacks.

Every span names its parent by the run ids that the host passes, never by the current context, so the tree
is right in threads, under asyncio, in streams and in parallel branches. This is the only module here that
imports langchain-core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from opentelemetry.trace import SpanContext, Status, StatusCode

from guardrails_mw.errors import GuardrailsError
from guardrails_mw.telemetry.anchors import Anchor, Anchors
from guardrails_mw.telemetry.draft import new_context, seeded_context
from guardrails_mw.telemetry.snapshot import snapshot
from guardrails_mw.telemetry.vocabulary import Attributes, kind, level, place, usage

__all__ = ["Emitter", "TraceHandler"]

_OPEN = 10_000
"""Spans that may be open at once; beyond that the oldest was abandoned by its host."""

_UNSET, _OK = Status(StatusCode.UNSET), Status(StatusCode.OK)
_USER_KEYS = ("guardrails_actor", "langfuse_user_id", "user_id")
_GRAPHS = ("langgraph", "langchain_create_agent")


class Emitter(Protocol):
    """What the handler needs of `Tracing`: a place for finished spans, and the spans that others hang under."""

    content: Literal["redacted", "none"]
    anchors: Anchors

    def keep(self, thread: str, run: str) -> None:
        """Have the id of a thread's new run kept for resumes in other processes. Never raises."""

    def kept(self, thread: str) -> str:
        """The id kept for a thread; empty where there is none. Never raises."""

    def emit(
        self,
        name: str,
        identity: tuple[SpanContext, SpanContext | None],
        times: tuple[int, int],
        *,
        describe: Callable[[], Attributes],
        contents: Mapping[str, object],
        status: Status,
    ) -> None:
        """Send a finished span; the arguments are those of `Draft`."""


@dataclass(slots=True)
class _Run:
    """An open span."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    root: UUID
    shared: Attributes
    attributes: Attributes
    contents: dict[str, object]
    step: int | None = None
    start: int = field(default_factory=time.time_ns)


class TraceHandler(BaseCallbackHandler):
    """Turns callbacks into spans: agent, chain, model, tool, retriever.

    A fresh top-level invocation starts a trace. A resume of a thread goes on in the trace of the thread's
    last invocation, under its first span. The thread is ``thread_id``, the user is ``guardrails_actor`` or
    ``langfuse_user_id`` in the config's metadata.

    A run is traced by ``guardrails_run`` in the config's metadata, else by the run id of its first root; the
    same id gives the same trace in every process. `Tracing.began` and `Tracing.run_of` keep it for a thread.

    Args:
        tracing: where spans go. Use `Tracing.handler`: two handlers on one run would show it twice.
    """

    raise_error = False
    run_inline = False

    def __init__(self, tracing: Emitter) -> None:
        self._tracing = tracing
        self._open: dict[UUID, _Run] = {}

    def on_chain_start(
        self,
        serialized: Mapping[str, object] | None,
        inputs: object,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        name: str | None = None,
        **_: object,
    ) -> None:
        """Open the span of a chain, graph or node."""
        meta = metadata or {}
        name = name or _named(serialized, "chain")
        resumed = inputs is None or getattr(inputs, "resume", None) is not None
        what = "agent" if _is_agent(name, meta, parent_run_id is None) else "chain"
        attributes = kind(what) | ({"gen_ai.agent.name": name} if what == "agent" else {})
        self._begin((run_id, parent_run_id), name, attributes, inputs=inputs, meta=meta, resumed=resumed)

    def on_chain_end(self, outputs: object, *, run_id: UUID, **_: object) -> None:
        """Close the span."""
        self._end(run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """Close the span with what went wrong."""
        self._fail(run_id, error)

    def on_chat_model_start(
        self,
        serialized: Mapping[str, object],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        **extra: object,
    ) -> None:
        """Open the span of a model call."""
        shown: object = messages[0] if len(messages) == 1 else messages
        self._begin_model((run_id, parent_run_id), serialized, shown, meta=metadata or {}, extra=extra)

    def on_llm_start(
        self,
        serialized: Mapping[str, object],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        **extra: object,
    ) -> None:
        """Open the span of a call to a completion model."""
        shown: object = prompts[0] if len(prompts) == 1 else prompts
        self._begin_model((run_id, parent_run_id), serialized, shown, meta=metadata or {}, extra=extra)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: object) -> None:
        """Close the span with the answer and the tokens used."""
        run = self._open.get(run_id)
        if run is None:
            return
        answers = [generation for row in response.generations for generation in row]
        messages = [answer.message for answer in answers if isinstance(answer, ChatGeneration)]
        run.attributes |= _used(messages)
        outputs: list[object] = [*(messages or (answer.text for answer in answers))]
        self._end(run_id, outputs[0] if len(outputs) == 1 else outputs)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """Close the span with what went wrong."""
        self._fail(run_id, error)

    def on_tool_start(
        self,
        serialized: Mapping[str, object] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        inputs: Mapping[str, object] | None = None,
        name: str | None = None,
        **_: object,
    ) -> None:
        """Open the span of a tool call."""
        name = name or _named(serialized, "tool")
        attributes = kind("tool") | {"gen_ai.tool.name": name, "tool.name": name}
        self._begin((run_id, parent_run_id), name, attributes, inputs=inputs or input_str, meta=metadata or {})

    def on_tool_end(self, output: object, *, run_id: UUID, **_: object) -> None:
        """Close the span with the tool's result."""
        self._end(run_id, output)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """Close the span with what went wrong."""
        self._fail(run_id, error)

    def on_retriever_start(
        self,
        serialized: Mapping[str, object] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        name: str | None = None,
        **_: object,
    ) -> None:
        """Open the span of a retrieval."""
        name = name or _named(serialized, "retriever")
        self._begin((run_id, parent_run_id), name, kind("retriever"), inputs=query, meta=metadata or {})

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **_: object) -> None:
        """Close the span with the documents found."""
        self._end(run_id, documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """Close the span with what went wrong."""
        self._fail(run_id, error)

    def _begin_model(
        self,
        ids: tuple[UUID, UUID | None],
        serialized: Mapping[str, object],
        shown: object,
        *,
        meta: Mapping[str, object],
        extra: Mapping[str, object],
    ) -> None:
        params = extra.get("invocation_params")
        asked = params.get("model") or params.get("model_name") if isinstance(params, Mapping) else None
        model = str(meta.get("ls_model_name") or asked or _named(serialized, "model"))
        attributes = kind("model") | {
            "gen_ai.request.model": model,
            "llm.model_name": model,
            "langfuse.observation.model.name": model,
        }
        if provider := meta.get("ls_provider"):
            attributes["gen_ai.provider.name"] = str(provider)
        self._begin(ids, f"chat {model}", attributes, inputs=shown, meta=meta)

    def _begin(
        self,
        ids: tuple[UUID, UUID | None],
        name: str,
        attributes: Attributes,
        *,
        inputs: object,
        meta: Mapping[str, object],
        resumed: bool = False,
    ) -> None:
        run_id, parent_id = ids
        thread = str(meta.get("thread_id") or "")
        user = next((str(meta[key]) for key in _USER_KEYS if meta.get(key)), "")
        above = self._tracing.anchors.get("span", str(parent_id)) if parent_id else None
        if above is None:
            context, parent = self._rooted(run_id, thread, meta, resumed)
            root, shared = run_id, place(thread, user)
            if parent is None:
                attributes["langfuse.internal.is_app_root"] = True
        else:
            context, parent = new_context(above.context.trace_id), above.context
            opener = self._open.get(parent_id) if parent_id else None
            root = opener.root if opener else run_id
            shared = opener.shared if opener else place(thread, user)
        step = meta.get("langgraph_step")
        for key in ("langgraph_node", "langgraph_step"):
            if key in meta:
                attributes[f"langfuse.observation.metadata.{key}"] = str(meta[key])
        run = _Run(name, context, parent, root, shared, attributes, self._shown("input", inputs))
        run.step = step if isinstance(step, int) else None
        self._tracing.anchors.put("span", str(run_id), Anchor(context, run.step))
        self._open[run_id] = run
        if len(self._open) > _OPEN:
            self._abandon(next(iter(self._open)))

    def _rooted(
        self, run_id: UUID, thread: str, meta: Mapping[str, object], resumed: bool
    ) -> tuple[SpanContext, SpanContext | None]:
        """The identity of a top-level span: a new trace, or below the first span of the run it resumes."""
        anchors, seed = self._tracing.anchors, str(meta.get("guardrails_run") or "")
        if not seed and resumed and thread:
            last = anchors.get("thread", thread)
            seed = self._tracing.kept(thread) or (last.run if last else "")
        again = bool(seed) and (resumed or anchors.get("run", seed) is not None)
        seed = seed or str(run_id)
        first = seeded_context(seed)
        context, parent = (new_context(first.trace_id), first) if again else (first, None)
        anchor = Anchor(context, run=seed)
        anchors.put("run", seed, anchor)
        anchors.put("trace", format(context.trace_id, "032x"), anchor)
        if thread:
            anchors.put("thread", thread, anchor)
            if not again:
                self._tracing.keep(thread, seed)
        return context, parent

    def _shown(self, which: str, value: object) -> dict[str, object]:
        return {} if self._tracing.content == "none" else {which: snapshot(value)}

    def _end(self, run_id: UUID, outputs: object) -> None:
        run = self._open.pop(run_id, None)
        if run is not None:
            run.contents |= self._shown("output", outputs)
            self._close(run_id, run, _OK)

    def _fail(self, run_id: UUID, error: BaseException) -> None:
        """Close a span that ended by an exception, which a pause or a block of ours may also be."""
        run = self._open.pop(run_id, None)
        if run is None:
            return
        status = _UNSET
        if isinstance(error, GuardrailsError):  # a block is a result; its text holds codes only
            run.attributes |= level("ERROR", str(error)) | {"error.type": type(error).__name__}
        elif _is_pause(error):
            run.attributes |= level("DEFAULT", "interrupt")
        else:
            name = type(error).__name__
            message = name if self._tracing.content == "none" else f"{name}: {_plain_text(error)}"
            run.attributes |= level("ERROR", message) | {"error.type": name}
            status = Status(StatusCode.ERROR, message)
        self._close(run_id, run, status)

    def _abandon(self, run_id: UUID) -> None:
        """Close a span whose host never did, for example because another callback raised."""
        run = self._open.pop(run_id, None)
        if run is not None:
            run.attributes |= level("WARNING", "open")
            self._close(run_id, run, _UNSET)

    def _close(self, run_id: UUID, run: _Run, status: Status) -> None:
        if run.root == run_id:
            for other in [key for key, item in self._open.copy().items() if item.root == run_id]:
                self._abandon(other)
        attributes = run.shared | run.attributes
        attributes["graph.node.name"] = run.name
        attributes["graph.node.id"] = format(run.context.span_id, "016x")
        if run.parent:
            attributes["graph.node.parent_id"] = format(run.parent.span_id, "016x")
        identity = (run.context, run.parent)
        times = (run.start, time.time_ns())
        self._tracing.emit(run.name, identity, times, describe=lambda: attributes, contents=run.contents, status=status)


def _named(serialized: Mapping[str, object] | None, default: str) -> str:
    """The name of a component as it describes itself."""
    if not serialized:
        return default
    path = serialized.get("id")
    return str(serialized.get("name") or (path[-1] if isinstance(path, list) and path else default))


def _is_agent(name: str, meta: Mapping[str, object], is_root: bool) -> bool:
    """Whether a chain is a whole graph: metadata is inherited, so below the root only names tell."""
    if name in ("LangGraph", meta.get("lc_agent_name")):
        return True
    return is_root and meta.get("ls_integration") in _GRAPHS


def _is_pause(error: BaseException) -> bool:
    """Whether langgraph only leaves a node by this exception: an interrupt, a jump, a drain."""
    return any(c.__name__ == "GraphBubbleUp" and c.__module__.startswith("langgraph") for c in type(error).__mro__)


def _plain_text(error: BaseException) -> str:
    """An exception's text with quoted line breaks made real, so that redaction sees where words begin."""
    return str(error).replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")


def _used(messages: Sequence[BaseMessage]) -> Attributes:
    """The model that answered and its tokens, added up over all answers."""
    tokens_in = tokens_out = 0
    model = ""
    for message in messages:
        usage_metadata = getattr(message, "usage_metadata", None) or {}
        tokens_in += int(usage_metadata.get("input_tokens", 0))
        tokens_out += int(usage_metadata.get("output_tokens", 0))
        model = model or str(message.response_metadata.get("model_name", ""))
    return usage(model, tokens_in, tokens_out)
