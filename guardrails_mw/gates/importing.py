"""What a policy names in Python: ``my_app.gates:no_competitors``."""

from __future__ import annotations

from importlib import import_module

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.gate import offered

__all__ = ["imported"]


def imported(path: str, *, field: str, group: str = "") -> object:
    """The object that an import path or, where there is a group, the bare name of an entry point stands for.

    Args:
        path: ``package.module:name`` (the name may be dotted), or an entry point of `group`.
        field: the policy's key, for the error.
        group: entry point group for bare names; none if empty.

    Raises:
        PolicyError: it cannot be imported; names what could not be found and what is nearest.

    >>> imported("json:dumps", field="call").__name__
    'dumps'
    """
    if ":" not in path and group:
        path = _entry_point(path, field, group)
    module_name, colon, names = path.partition(":")
    if not (colon and module_name and names):
        raise PolicyError(f"{path!r} is not an import path; write package.module:name", field=field)
    found = _module(module_name, field)
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            public = sorted(each for each in dir(found) if not each.startswith("_"))
            raise PolicyError(f"{module_name} has no {names!r}; {nearest(name, public[:50])}", field=field) from None
    return found


def _entry_point(name: str, field: str, group: str) -> str:
    points = {point.name: point.value for point in offered(group)}
    if name not in points:
        hint = nearest(name, sorted(points)) if points else f"no installed package offers any in {group!r}"
        raise PolicyError(f"{name!r} is neither package.module:name nor an installed check; {hint}", field=field)
    return points[name]


def _module(name: str, field: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        via = "" if name == missing or name.startswith(f"{missing}.") else f", which {name} imports,"
        raise PolicyError(f"the module {missing}{via} cannot be found", field=field) from None
    except Exception as error:  # whatever an author's module raises, the policy cannot be used
        problem = f"importing {name} failed: {type(error).__name__}: {str(error)[:200]}"
        raise PolicyError(problem, field=field) from error
