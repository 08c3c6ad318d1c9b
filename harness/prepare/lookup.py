"""Lookup: what a grid's names stand for, in a worker that has the user's files and plugins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import registry
from bench.errors import Refusal, SpecError
from bench.spec import find_files, parse_pipeline, spell_out
from bench.subject import Subject, as_subject

STAGES = ("recipe", "compression", "execution")


def look_up_technique(text: str) -> dict[str, Any]:
    """Return a pipeline in canonical form, with what is known of its steps."""
    found = [registry.find("technique", str(call)) for call in parse_pipeline(text)]
    stages = [STAGES.index(entry.stage) for entry, _ in found]
    if stages != sorted(stages):
        raise SpecError(
            f"{text!r}: the steps are in the wrong order. First recipes (how a model is "
            "trained), then compressions, then executions (precision, layout)."
        )
    kept = [(entry, call) for entry, call in found if entry.name != "baseline"] or found[:1]
    devices = [set(entry.devices) for entry, _ in kept if entry.devices]
    return {
        "text": " + ".join(str(call) for _, call in kept),
        "devices": sorted(set.intersection(*devices)) if devices else [],
        "realization": "+".join(dict.fromkeys(e.realization for e, _ in kept if e.realization)),
        "recipes": sum(entry.stage == "recipe" for entry, _ in kept),
        "spelled": " + ".join(spell_out(call, entry.parameters) for entry, call in kept),
    }


def look_up_model(text: str, techniques: Sequence[str] = ()) -> dict[str, Any]:
    """Return a model's canonical name and its task; built once, to find mistakes early.

    `wrong` says why it is no model, where it is none; `refusals` and `mistakes`, by pipeline, which
    of them do not suit it and why.
    """
    _, call = registry.find("model", text)
    found: dict[str, Any] = {"text": str(call), "task": str(call), "wrong": ""}
    reasons: dict[str, dict[str, str]] = {"refusals": {}, "mistakes": {}}
    try:
        subject = as_subject(registry.build("model", text), text)
    except SpecError as mistake:
        if not find_files(text):  # what the grid says of a model of ours is wrong
            raise
        return found | reasons | {"wrong": str(mistake)}
    except Exception:  # a model that cannot be built becomes failed cells, with its message
        return found | reasons
    for technique in techniques:
        try:
            check_pipeline(technique, subject)
        except Refusal as refusal:
            reasons["refusals"][technique] = str(refusal)
        except SpecError as mistake:
            reasons["mistakes"][technique] = str(mistake)
        except Exception:  # what else goes wrong fails its cells, with its message
            continue
    return found | reasons | {"task": subject.task(str(call))}


def check_pipeline(text: str, subject: Subject) -> None:
    """Raise SpecError or Refusal where a pipeline does not suit a model that is not trained yet.

    A later step can be refused only when it is applied: the steps before it change the model.
    """
    for number, call in enumerate(parse_pipeline(text)):
        try:
            registry.check_technique(str(call), subject)
        except Refusal:
            if number == 0:
                raise
