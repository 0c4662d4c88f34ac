"""What a policy changes about the signatures: add, weigh otherwise, silence."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.gates.injection.signatures import Signature, SignatureSet

__all__ = ["Tuning", "Weights", "tuned"]


class Weights(BaseModel):
    """Weights of one signature by channel; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    user: float | None = Field(default=None, gt=0)
    """The weight of what users and models write."""
    tool_result: float | None = Field(default=None, gt=0)
    """The weight in results of tools, and in retrieved documents unless those have one of their own."""
    retrieved: float | None = Field(default=None, gt=0)
    """The weight in retrieved documents."""


class Tuning(BaseModel):
    """Keys of ``signatures``. Ids are those of findings, such as ``role.dan``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    add: tuple[str | Signature, ...] = ()
    """Signatures of your own: a file in the form of the package's `signatures.yaml`, or written out here."""
    weights: dict[str, float | Weights] = {}
    """New weights by id: one number for every channel, or `user`, `tool_result` and `retrieved` apart."""
    silence: tuple[str, ...] = ()
    """Ids that are not looked for."""


def tuned(base: SignatureSet, tuning: Tuning, folder: Path | None) -> SignatureSet:
    """The signatures with a policy's changes; `base` itself where there are none.

    Args:
        base: what the changes start from.
        tuning: the changes.
        folder: where relative paths of files start.

    Raises:
        PolicyError: an unknown id, an id that is taken, a file or pattern that cannot be used, an example that
            its own pattern does not find; names the field.
    """
    if tuning == Tuning():
        return base
    merged = {signature.id: signature for signature in base.signatures}
    added, vocabulary = _added(base, tuning, folder)
    for place, signature in added:
        if signature.id in merged:
            raise PolicyError(f"the id {signature.id!r} is taken; 'weights' and 'silence' change it", field=place)
        merged[signature.id] = signature
    for id_, weight in tuning.weights.items():
        field = f"signatures.weights.{id_}"
        merged[id_] = _weighed(_known(merged, id_, field), weight, field)
    for index, id_ in enumerate(tuning.silence):
        _known(merged, id_, f"signatures.silence.{index}")
    kept = [signature for id_, signature in merged.items() if id_ not in tuning.silence]
    if not kept:
        raise PolicyError("every signature is silenced; leave the gate out instead", field="signatures.silence")
    return SignatureSet(kept, base.words, base.vocabulary | vocabulary)


def _added(
    base: SignatureSet, tuning: Tuning, folder: Path | None
) -> tuple[list[tuple[str, Signature]], frozenset[str]]:
    """Every added signature, its pattern complete, with the field that it comes from; and their vocabulary."""
    found: list[tuple[str, Signature]] = []
    vocabulary: frozenset[str] = frozenset()
    for index, entry in enumerate(tuning.add):
        field = f"signatures.add.{index}"
        try:
            if isinstance(entry, str):
                own = SignatureSet.read((folder or Path()) / entry, base.words)
            else:
                own = SignatureSet([entry], base.words)
        except ValueError as error:
            raise PolicyError(str(error), field=field) from None
        for signature in own.signatures:
            _proven(own, signature, field)
            found.append((field, signature.model_copy(update={"pattern": own.patterns[signature.id]})))
        vocabulary |= own.vocabulary
    return found, vocabulary


def _proven(own: SignatureSet, signature: Signature, field: str) -> None:
    """A signature that does not find its own example is dead, most often for a capital letter in its pattern."""
    for view in own.views(signature.example):
        if any(hit.id == signature.id for hit, _ in own.scan(view.text, view.name)):
            return
    hint = "patterns meet text in lower case, without accents, with one blank between words"
    raise PolicyError(f"{signature.id} does not find its own example; {hint}", field=field)


def _weighed(signature: Signature, weight: float | Weights, field: str) -> Signature:
    same = None if isinstance(weight, Weights) else weight
    own = (
        weight if isinstance(weight, Weights) else Weights.model_construct(user=same, tool_result=same, retrieved=same)
    )
    if isinstance(weight, float) and weight <= 0:
        raise PolicyError("a weight is above 0; 'silence' turns a signature off", field=field)
    user = signature.weight if own.user is None else own.user
    tool = signature.tool_result if own.tool_result is None else own.tool_result
    found = signature.retrieved if own.retrieved is None else own.retrieved
    return signature.model_copy(update={"weight": user, "tool_result": tool, "retrieved": found})


def _known(merged: dict[str, Signature], id_: str, field: str) -> Signature:
    if id_ in merged:
        return merged[id_]
    close = get_close_matches(id_, merged, n=1)
    family = (close[0] if close else id_).partition(".")[0]
    same = sorted(known for known in merged if known.startswith(f"{family}."))
    raise PolicyError(f"no signature {id_!r}; {nearest(id_, same or sorted(merged))}", field=field)
