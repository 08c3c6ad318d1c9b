"""The judge: how good a cell's answers are, and what makes that doubtful."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.conventions import IGNORED
from harness import scores
from harness.sweep.answers import Answers


def judge_answers(answers: Answers, baseline: Answers) -> dict[str, Any]:
    """Return how good the answers are, and fidelity and agreement to a baseline's.

    Where labels are known: accuracy and macro F1, or for labels that are numbers R².
    """
    found: dict[str, Any] = {}
    predicted, labels = answers.get("predicted"), answers.get("labels")
    if predicted is None or labels is None or len(predicted) != len(labels):
        pass
    elif labels.dtype.kind == "f":
        found["r2"] = scores.r2_interval(predicted, labels)
    else:
        judged = labels != IGNORED
        hits = predicted == labels
        found["accuracy"] = (
            scores.wilson_interval(int(hits[judged].sum()), int(judged.sum()))
            if labels.ndim == 1
            else scores.clustered_interval(hits & judged, judged)
        )
        found["macro_f1"] = scores.macro_f1(predicted[judged], labels[judged])
    if baseline:
        found["fidelity"] = scores.relative_fidelity(answers["outputs"], baseline["outputs"])
        wanted = baseline.get("predicted")
        classes = predicted if predicted is not None and predicted.dtype.kind == "i" else None
        if classes is not None and wanted is not None and wanted.shape == classes.shape:
            found["agreement"] = float(np.mean(classes == wanted))
    return found


def find_right(answers: Answers) -> NDArray[np.bool_] | None:
    """Return whether each test example that is judged was answered right; None without classes."""
    if not has_classes(answers):
        return None
    judged = answers["labels"] != IGNORED
    right = np.asarray(answers["predicted"] == answers["labels"])[judged]
    return right if right.size else None


def has_classes(answers: Answers) -> bool:
    """Tell whether there is one class for each test example, and a label."""
    predicted, labels = answers.get("predicted"), answers.get("labels")
    if predicted is None or labels is None or len(predicted) != len(labels):
        return False
    return labels.dtype.kind != "f" and labels.ndim == 1


def doubt_answers(answers: Answers, baseline: Answers) -> list[str]:
    """Return what makes quality doubtful: outputs that are no numbers, shapes read in two ways.

    Minus infinity and the like stand for "not allowed"; NaN and infinity mostly for an overflow.
    """
    found = []
    labels = answers.get("labels")
    if "outputs" in answers and answers["outputs"].size:
        outputs = scores.mark_masked(answers["outputs"])
        wanted = scores.mark_masked(baseline.get("outputs", outputs))
        alike = wanted.shape == outputs.shape
        lost = np.isinf(outputs) | np.isnan(outputs)
        same = (wanted == outputs) | (np.isnan(wanted) & np.isnan(outputs)) if alike else ~lost
        alone = lost & ~same
        missed = np.isinf(wanted) & ~lost if alike else np.zeros(1, bool)
        broken = np.isnan(outputs) | (outputs == np.inf)
        if not alike:
            found.append(f"the outputs are {outputs.size} numbers, and the baseline's "
                         f"{wanted.size}: there is no fidelity")  # fmt: skip
        told = ""
        if alike and (alone.any() or missed.any()):
            told = "is 0" if scores.relative_fidelity(outputs, wanted) == 0 else "is not known"
        if alone.any() and alike:
            found.append(f"{_share(alone)} of the outputs are NaN or infinite where the baseline's "
                         f"are not, or are another: fidelity {told}")  # fmt: skip
        elif missed.any():
            found.append(f"{_share(missed)} of the outputs are numbers where the baseline's are "
                         f"infinite, or a mask: fidelity {told}")  # fmt: skip
        elif lost.all():
            found.append("none of the outputs is a finite number of 32 bits: fidelity tells no "
                         "more than whether they are the same")  # fmt: skip
        elif broken.any():
            found.append(f"{_share(broken)} of the outputs are NaN or infinite; fidelity leaves "
                         "out where the baseline's are too")  # fmt: skip
    if labels is not None and labels.dtype.kind != "f":
        if labels.size and (labels == IGNORED).all():
            found.append(f"all labels are {IGNORED}, which says that nothing is to be judged")
        shape = tuple(answers["shape"].tolist())
        if len(shape) > 2 and shape[:1] + shape[2:] == shape[:-1] == labels.shape:
            found.append(
                f"classes may lie along the second dimension of outputs {shape} or along the last; "
                "they are taken from the second"
            )
    return found


def _share(marked: Any) -> str:
    share = float(np.mean(marked))
    return f"{share * 100:.0f} %" if share >= 0.01 else "some"
