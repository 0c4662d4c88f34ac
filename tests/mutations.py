"""Every law broken on purpose: ``python tests/mutations.py [NAME ...]``.

Each mutation replaces one text in one file of a copy of the project and runs the tests that hold the law. They must
fail. A mutation whose text is gone, or whose tests pass, is an error: either the law moved or nothing holds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("guardrails_mw", "tests", "docs", "benchmarks", "configs", "examples", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Mutation:
    """What is broken, where and how, and the tests that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_CAUGHT = "            except BaseException as error:  # noqa: BLE001 - belongs to the flow, which sorts it out\n"

MUTATIONS = (
    Mutation(
        "a gate that raises is passed over",
        "guardrails_mw/asking.py",
        'return Check(step.gate.name, Verdict(step.on_error, f"error.{code}"), seconds, code)',
        'return Check(step.gate.name, Verdict(Action.ALLOW, f"error.{code}"), seconds, code)',
        ("tests/faults/test_matrix.py::test_core", "tests/laws/test_law1_gates.py"),
    ),
    Mutation(
        "what no `except Exception` catches escapes from a gate",
        "guardrails_mw/asking.py",
        "        if isinstance(error, PASS_THROUGH):",
        "        if not isinstance(error, Exception):",
        ("tests/laws/test_law1_gates.py::test_raising_is_a_block",),
    ),
    Mutation(
        "what is no verdict counts as one that allows",
        "guardrails_mw/asking.py",
        'return self._broken(step, "not_a_verdict", seconds)',
        "return Check(step.gate.name, Verdict(), seconds)",
        ("tests/laws/test_law1_gates.py::test_nonsense_is_a_block",),
    ),
    Mutation(
        "a late answer counts",
        "guardrails_mw/asking.py",
        "if seconds > step.deadline:",
        "if seconds > step.deadline + 3600:",
        ("tests/laws/test_law1_gates.py::test_overrun_is_a_block",),
    ),
    Mutation(
        "an isolated gate is not killed",
        "guardrails_mw/workers.py",
        "            self._kill()\n            self._begin()",
        "            self._begin()",
        ("tests/faults/test_deadlines.py::test_what_overruns_in_its_own_process_is_killed",),
    ),
    Mutation(
        "queue lets a request through that has waited in vain",
        "guardrails_mw/building.py",
        '"queue": Action.BLOCK',
        '"queue": Action.FLAG',
        ("tests/faults/test_queue.py::test_waiting_ends_with_an_error",),
    ),
    Mutation(
        "a request that has waited is not asked about again",
        "guardrails_mw/asking.py",
        "            check = await self._once(step, event)\n            if not check.error:\n                break",
        "            if not check.error:\n                break",
        ("tests/faults/test_queue.py::test_a_request_goes_on_when_its_gate_is_back",),
    ),
    Mutation(
        "callbacks wait in a loop's way",
        "guardrails_mw/asking.py",
        "            return not self._closed.wait(self._seconds)\n        return False",
        "            return not self._closed.wait(self._seconds)\n        return not self._closed.wait(self._seconds)",
        ("tests/faults/test_queue.py::test_callbacks_do_not_stall_a_loop",),
    ),
    Mutation(
        "who waits stays in the register",
        "guardrails_mw/backlog.py",
        "                self._store.swap(key, body, None)",
        "                self._store.get(key)",
        ("tests/faults/test_queue.py::test_waiting_ends_with_an_error",),
    ),
    Mutation(
        "a raised block ends no run",
        "guardrails_mw/latch.py",
        "            self._ended.setdefault(run, block)",
        "            self._ended.setdefault(run + block[0], block)",
        ("tests/faults/test_latch.py::test_wrappers_of_a_guarded_model",),
    ),
    Mutation(
        "nobody asks whether a run has ended",
        "guardrails_mw/adapters/host.py",
        "        self.going_on(run)\n",
        "",
        ("tests/faults/test_latch.py::test_middlewares_that_try_again",),
    ),
    Mutation(
        "a wrapped chain forgets the block that was swallowed in it",
        "guardrails_mw/adapters/runnable.py",
        "        self._runs.going_on(call.here.where.run)\n        return await",
        "        return await",
        ("tests/faults/test_latch.py::test_a_wrapped_chain_stays_blocked",),
    ),
    Mutation(
        "a wrapped graph forgets the block that was swallowed in it",
        "guardrails_mw/adapters/compiled.py",
        '        self.doorman.runs.over(kwargs["control"])\n',
        "",
        ("tests/faults/test_latch.py::test_tool_nodes_that_are_tried_again",),
    ),
    Mutation(
        "a callback's block is not raised again at the end of the run",
        "guardrails_mw/adapters/callback.py",
        "entry.root == run_id and (block := self._underway.forget(run_id)):",
        "entry.root == run_id and (block := self._underway.forget(run_id)) and not block:",
        ("tests/faults/test_latch.py::test_a_step_that_gives_up_under_callbacks",),
    ),
    Mutation(
        "what cannot be recorded happens all the same",
        "guardrails_mw/engine.py",
        "Verdict(self._settings.on_record_failure, code)",
        "Verdict(Action.FLAG, code)",
        ("tests/laws/test_law4_recorded.py",),
    ),
    Mutation(
        "an endpoint's error status counts as an answer",
        "guardrails_mw/gates/llama_guard/endpoint.py",
        'raise GateError("llama_guard.http")',
        "pass",
        ("tests/gates/llama_guard/test_endpoint.py::test_another_status_than_200_is_an_error",),
    ),
    Mutation(
        "the ledger keeps contents as they are",
        "guardrails_mw/recorder.py",
        'body["content"] = _cut(self._redactor.content(event, known).value)',
        'body["content"] = _cut(event.content.value)',
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "the ledger's keys hold ids that others chose",
        "guardrails_mw/recorder.py",
        "return self._names(name)",
        "return name",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "an exporter sends spans as they are",
        "guardrails_mw/telemetry/boundary.py",
        "return self._exporter.export([self._boundary.outgoing(span) for span in spans])",
        "return self._exporter.export([span if span.name else self._boundary.outgoing(span) for span in spans])",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "the model's message keeps the arguments that an edit replaced",
        "guardrails_mw/adapters/exchange.py",
        "return (_with_args(call, edited) if edited.edited else call), edited if edited.blocked else None",
        "return call, edited if edited.blocked else None",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "a judge that nothing is left for is asked all the same",
        "guardrails_mw/judges.py",
        "if leave.verdict.action > Action.FLAG and not self._shadow:",
        "if False:",
        ("tests/gates/test_judges.py",),
    ),
    Mutation(
        "a sub-agent in a thread of its own has a run of its own",
        "guardrails_mw/adapters/host.py",
        "if within is not None and (within.invoked or not thread):",
        "if within is not None and not thread:",
        ("tests/adversary/test_sub_agents.py",),
    ),
    Mutation(
        "a call that was counted where it was proposed is counted again where callbacks hear it",
        "guardrails_mw/adapters/callback.py",
        "if call_id and self._seat.permits.take(",
        "if False and self._seat.permits.take(",
        ("tests/adversary/test_costs.py::test_a_call_that_was_counted_where_it_was_proposed_is_counted_once",),
    ),
    Mutation(
        "an answer is believed to be decided whatever it says",
        "guardrails_mw/adapters/answered.py",
        "return _digest(message) in self.answers",
        "return bool(self.answers)",
        ("tests/adversary/test_decided.py",),
    ),
    Mutation(
        "what a tool puts beside its result is not decided",
        "guardrails_mw/adapters/results.py",
        "        found = cargo(message)\n        if not found:",
        "        found = cargo(message)\n        if found:",
        ("tests/leaks/test_fields.py",),
    ),
    Mutation(
        "who calls a wrapped graph names the actor inside of it",
        "guardrails_mw/adapters/host.py",
        "    if isinstance(given, Actor):  # what came as JSON cannot be one",
        "    if False:",
        ("tests/adversary/test_actors.py",),
    ),
    Mutation(
        "an exception drags along the one that it stands for",
        "guardrails_mw/wait.py",
        f"                value = wait.here()\n{_CAUGHT}                failed.append(error)",
        f"                value = wait.here()\n{_CAUGHT}"
        + " " * 16
        + "wait = flow.throw(error)\n                continue",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "what stands beside a tool's result passes",
        "guardrails_mw/adapters/results.py",
        "        return await self._beside(message)",
        "        return message",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "what a provider tells of an answer passes",
        "guardrails_mw/adapters/messages.py",
        "    if free := metadata(message):",
        "    if (free := metadata(message)) and False:",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "what is said about a generation passes",
        "guardrails_mw/adapters/metadata.py",
        "return {key: kept[key] for key in info if key in kept} if info is not None else None",
        "return dict(info) if info is not None and kept is not None else None",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "scores of tokens spell what was edited",
        "guardrails_mw/adapters/metadata.py",
        "    if _SCORES in message.response_metadata:",
        '    if _SCORES + "s" in message.response_metadata:',
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "what a user puts beside a message passes",
        "guardrails_mw/adapters/exchange.py",
        "if event.stage is Stage.INPUT and beside_said(messages[index]):",
        "if event.stage is Stage.MODEL and beside_said(messages[index]):",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[middleware-invoke]",),
    ),
    Mutation(
        "loops remember ids that others chose",
        "guardrails_mw/gates/loops.py",
        'own = tool_key(tool.id, self._secret) if tool.id else ""',
        "own = tool.id",
        ("tests/canary/test_configs.py::test_shipped_policies_are_clean[default.yaml-graph-invoke]",),
    ),
    Mutation(
        "the first checkpoint holds the input as it came",
        "guardrails_mw/adapters/entrance.py",
        "                message = with_content(message, self.enforcer.passed(decision).value)",
        "                self.enforcer.passed(decision)",
        ("tests/canary/test_seams.py::test_what_is_edited_is_nowhere[graph-invoke]",),
    ),
    Mutation(
        "text blocks of a message are read one by one only",
        "guardrails_mw/asking.py",
        "if joined is None or not step.gate.joins or step.gate.remembers:",
        "if True:",
        ("tests/leaks/test_blocks.py::test_every_cut_of_a_value",),
    ),
    Mutation(
        "the record reads text blocks one by one only",
        "guardrails_mw/redaction.py",
        "    if joined is not None and isinstance(other := gate.check(joined.event), Verdict):",
        "    joined = None\n    if joined is not None and isinstance(other := gate.check(joined.event), Verdict):",
        ("tests/leaks/test_blocks.py::test_the_record_reads_blocks_together",),
    ),
    Mutation(
        "a stream shows a second text block while it arrives",
        "guardrails_mw/adapters/streaming.py",
        "(_TEXT in places or len({kind for kind, _ in places}) < len(places))",
        "_TEXT in places",
        ("tests/leaks/test_blocks.py::test_a_model_that_cuts_a_value[stream]",),
    ),
    Mutation(
        "what a chain's answer says beside its content passes",
        "guardrails_mw/adapters/runnable.py",
        "        if isinstance(result, AIMessage):\n            return cast(",
        "        if isinstance(result, int):\n            return cast(",
        ("tests/leaks/test_chains.py::test_what_a_raw_model_proposes_meets_the_rules_of_tools[invoke]",),
    ),
    Mutation(
        "what stands beside messages inside of something passes",
        "guardrails_mw/adapters/forms.py",
        "        more = _beside(value) if beside else {}",
        "        more = dict[str, object]()",
        ("tests/leaks/test_chains.py::test_an_answer_of_a_raw_model_is_edited_in_every_place[list-invoke]",),
    ),
    Mutation(
        "calls under one run id are one call",
        "guardrails_mw/adapters/exchange.py",
        "        return self.enforcer.engine.fresh_id()",
        "        return self.here.where.run",
        ("tests/adapters/test_usage.py::test_calls_under_one_run_id_are_each_counted",),
    ),
    Mutation(
        "a call that outlasts its hold is not charged what it used",
        "guardrails_mw/stores/memory.py",
        "            self._forget(stale)",
        "            self._forget(now)",
        (
            "tests/test_budget.py::test_a_call_that_outlasts_its_hold_is_charged_what_it_used",
            "tests/test_budget.py::test_what_never_started_is_given_back_however_late",
        ),
    ),
    Mutation(
        "who gives a call up gives back what another one holds",
        "guardrails_mw/engine.py",
        "held = set(held) - {check.gate for check in decision.checks if check.verdict.again}",
        "held = set(held)",
        ("tests/laws/test_law7_money.py::test_who_gives_a_call_up_gives_back_nothing_of_one_that_ran",),
    ),
    Mutation(
        "what a crash leaves behind piles up",
        "guardrails_mw/stores/redis_scripts.py",
        "  redis.call('DEL', KEYS[1] .. old)\n",
        "",
        ("tests/conformance/test_store.py::TestRedis::test_many_lost_holds_go_in_time",),
    ),
    Mutation(
        "a forked child waits for its parent's threads",
        "guardrails_mw/workers.py",
        "adrift\n        self.forget()\n        forget_in_children(self)",
        "adrift\n        self.forget()",
        ("tests/test_forks.py",),
    ),
    Mutation(
        "a forked child gives out its parent's ids",
        "guardrails_mw/forks.py",
        '        self._series = f"{secrets.token_hex(4)}."',
        '        self._series = ""',
        ("tests/test_forks.py",),
    ),
)


def broken(mutation: Mutation, copy: Path) -> str:
    """Apply a mutation to the copy and run its tests; what is wrong, if they pass."""
    file = copy / mutation.file
    source = file.read_text(encoding="utf-8")
    if source.count(mutation.old) != 1:
        return f"the text is there {source.count(mutation.old)} times in {mutation.file}"
    file.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            *mutation.tests,
        ]
        env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return "its tests do not end"
    finally:
        file.write_text(source, encoding="utf-8")
    if done.returncode == 1:
        return ""
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
    return f"its tests {'pass' if done.returncode == 0 else 'do not run'}: {''.join(last)}"


def main(names: list[str]) -> int:
    """Break what is named, or everything; the number of mutations that nobody noticed."""
    chosen = [each for each in MUTATIONS if not names or any(name in each.name for name in names)]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        for mutation in chosen:
            began = time.perf_counter()
            problem = broken(mutation, copy)
            survived += bool(problem)
            word, took = "SURVIVED" if problem else "noticed ", time.perf_counter() - began
            print(f"{word} {mutation.name} ({took:.0f} s) {problem}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations noticed")
    return survived


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
