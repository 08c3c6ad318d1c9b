"""What every technique keeps, on an MLP, a convolutional network and a transformer."""

import copy
import dataclasses
import zipfile
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bench import Refusal, Subject, registry
from bench.data import Dataset, Split, load_dataset
from bench.subject import as_subject
from bench.training import train
from harness.measure.counts import count_macs
from harness.measure.macs import MacCounter
from harness.measure.traffic import count_traffic
from harness.measure.weights import count_weights
from harness.prepare.kept import save_subject

registry.load_built_ins()

MODELS = ("digits-mlp", "mnist1d-cnn", "mnist1d-transformer")
WITH_PARAMETERS = {
    "prune-magnitude": "prune-magnitude(0.8, finetune_epochs=1)",
    "prune-random": "prune-random(0.8, finetune_epochs=1)",
    "prune-gradient": "prune-gradient(0.8, finetune_epochs=2, steps=2)",
    "prune-l0": "prune-l0(0.8, gate_epochs=1)",
    "prune-channels": "prune-channels(0.5, finetune_epochs=1)",
    "prune-neurons": "prune-neurons(0.5, finetune_epochs=1, importance='gradient')",
    "prune-inputs": "prune-inputs(0.5, finetune_epochs=1)",
    "distill": "distill('shrink(0.5)')",
    "shrink": "shrink(0.5)",
    "affine": "affine(3)",
    "binary": "binary(finetune_epochs=1)",
    "share-weights": "share-weights(8, finetune_epochs=1)",
    "low-rank": "low-rank(rank=4)",
    "drop-layers": "drop-layers(1, finetune_epochs=1)",
    "optimizer": "optimizer('momentum')",
    "l1": "l1(0.001)",
    "l2": "l2(0.001)",
    "activation": "activation('tanh')",
    "width": "width(0.5)",
    "depth": "depth(2.0)",
    "few-labels": "few-labels(0.5)",
    "pretrain": "pretrain('autoencoder', epochs=1)",
    "finetune": "finetune('head')",
    "qat": "qat(4, finetune_epochs=1)",
}
TECHNIQUES = [WITH_PARAMETERS.get(name, name) for name in registry.names("technique")]
CUDA_ONLY = {entry.name for entry in registry.entries("technique") if entry.devices == ("cuda",)}
REFUSED = {
    ("fuse", "digits-mlp"): "no batch norm",
    ("fuse", "mnist1d-transformer"): "no batch norm",
    ("dropout", "mnist1d-transformer"): None,
    ("depth", "mnist1d-cnn"): "has no parameter 'depth'",
    ("prune-inputs", "mnist1d-cnn"): "reads all input features first",
    ("prune-inputs", "mnist1d-transformer"): "reads all input features first",
    ("drop-layers", "mnist1d-cnn"): None,
}
"""Pairs that do not exist and words of the reason; None: it may go either way."""
COMPANY = {"recipe": "prune-magnitude(0.5)", "compression": "affine(4)",
           "execution": "prune-magnitude(0.5)"}  # fmt: skip
"""With what a technique of each stage is composed: behind it, or for executions before it."""


def few(data: Dataset) -> Dataset:
    """Keep the first 200 examples of each split."""
    train_split, tune, test = (
        Split(split.inputs[:200], split.labels[:200])
        for split in (data.train, data.tune, data.test)
    )
    return Dataset(data.name, train_split, tune, test, data.classes)


@cache
def small(name: str) -> Subject:
    """Build an untrained model on few examples, with a recipe of two epochs."""
    torch.manual_seed(0)
    data = few(load_dataset(name.split("-", maxsplit=1)[0]))
    subject = as_subject(registry.build("model", name, data), name)
    subject.module.eval()
    assert subject.recipe is not None
    recipe = dataclasses.replace(subject.recipe, epochs=2)
    return dataclasses.replace(subject, recipe=recipe, origin=name)


def name_of(technique: str) -> str:
    return technique.partition("(")[0]


def entry_of(technique: str) -> registry.Entry:
    return registry.find("technique", technique)[0]


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    """Apply one technique; a recipe's model is trained by it, as a run does."""
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return train(made) if entry_of(technique).stage == "recipe" else made


@cache
def made_by(technique: str, model: str) -> Subject | str:
    """What a technique makes of a model, or why it refuses."""
    try:
        return apply(technique, small(model))
    except Refusal as refusal:
        return str(refusal)


def known(technique: str, model: str) -> Subject:
    made = made_by(technique, model)
    if isinstance(made, str):
        pytest.skip(f"refused: {made}")
    if name_of(technique) in CUDA_ONLY:
        pytest.skip("its kernels are a CUDA card's: tests/bench/test_tensor_cores.py")
    return made


def outputs(subject: Subject) -> Tensor:
    with torch.inference_mode():
        found: Tensor = subject.module.eval()(*subject.inputs)
    return found


pairs = pytest.mark.parametrize(
    ("technique", "model"),
    [
        pytest.param(one, model, marks=[] if model == MODELS[0] else pytest.mark.slow)
        for one in TECHNIQUES
        for model in MODELS
    ],
)


@pairs
def test_it_is_refused_only_where_that_is_known(technique: str, model: str) -> None:
    made = made_by(technique, model)
    expected = REFUSED.get((name_of(technique), model), "")
    if isinstance(made, str):
        assert expected is None or (expected and expected in made), made
    else:
        assert not expected


@pairs
def test_outputs_keep_their_shape_and_type(technique: str, model: str) -> None:
    made = known(technique, model)
    found, expected = outputs(made), outputs(small(model))
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    norms = [one for one in made.module.modules() if isinstance(one, nn.BatchNorm1d)]
    assert not any(norm.training for norm in norms)


@pairs
def test_it_is_the_same_under_the_same_seed_and_leaves_its_input_alone(
    technique: str, model: str
) -> None:
    made = known(technique, model)
    subject = small(model)
    before = copy.deepcopy(subject.module.state_dict())
    assert torch.equal(outputs(apply(technique, subject)), outputs(made))
    after = subject.module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pairs
def test_its_file_holds_the_bytes_that_are_counted_and_gives_the_same_outputs(
    technique: str, model: str, tmp_path: Path
) -> None:
    made = known(technique, model)
    path = tmp_path / "state.pt"
    torch.save(made.module.state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        held = sum(one.file_size for one in archive.infolist() if "/data/" in one.filename)
    assert held == count_weights(made.module)["weight_bytes"]
    save_subject(dataclasses.replace(made, data=None), tmp_path / "subject.pt")
    loaded = torch.load(tmp_path / "subject.pt", weights_only=False)
    assert torch.equal(outputs(loaded), outputs(made))


def run_facts(subject: Subject) -> tuple[frozenset[str], frozenset[str], float]:
    """The operators that ran, the types that were multiplied, and the multiplications."""
    names = MacCounter()
    with torch.inference_mode(), names:
        subject.module.eval()(*subject.inputs)
    types = count_traffic(subject.module, subject.inputs).dtypes
    macs, _ = count_macs(subject.module, subject.inputs)
    return frozenset(map(str, names.seen)), frozenset(types), macs


@pairs
def test_its_realization_is_true(technique: str, model: str) -> None:
    made, realization = known(technique, model), entry_of(technique).realization
    subject = small(model)
    (operators, types, macs), (base_operators, base_types, base_macs) = (
        run_facts(one) for one in (made, subject)
    )
    counts, base = (count_weights(one.module) for one in (made, subject))
    if realization == "executed":  # smaller shapes, fewer layers, or other kernels
        assert macs < base_macs or operators != base_operators or types != base_types
    elif realization == "packed":  # smaller in storage, the same multiplications in the same type
        if technique != "sparse-storage":  # smaller only behind what makes zeros
            assert counts["weight_bytes"] < base["weight_bytes"]
        assert (macs, types) == (base_macs, base_types)
        assert operators >= base_operators
        assert counts["params"] == base["params"]
    elif realization == "simulated":  # the same in everything but its zeros
        assert (operators, types, macs) == (base_operators, base_types, base_macs)
        assert counts["weight_bytes"] == base["weight_bytes"]
        assert counts["nonzero_params"] < base["nonzero_params"]


@pairs
def test_it_is_composed_with_another(technique: str, model: str) -> None:
    known(technique, model)
    stage, subject = entry_of(technique).stage, small(model)
    other = COMPANY[stage]
    steps = (other, technique) if stage == "execution" else (technique, other)
    for step in steps:
        subject = apply(step, subject)
    found = outputs(subject)
    assert found.shape == outputs(small(model)).shape
    assert found.isfinite().all()


def test_every_technique_without_a_realization_changes_only_how_a_model_is_trained() -> None:
    without = {e.name for e in registry.entries("technique") if not e.realization}
    recipes = {e.name for e in registry.entries("technique") if e.stage == "recipe"}
    assert without == recipes | {"baseline"}


WHATEVER_THE_WEIGHTS = {"baseline", "bf16", "fp16", "tf32", "distill", "shrink", "drop-layers",
                        "fuse"}  # fmt: skip
"""Techniques that leave weights as they are, cast what comes of them, or train other ones; fuse
takes the layers that it can."""
LINEAR_ONLY = {"int8-dynamic", "sparse-kernels", "prune-2-4", "fp8", "sparse-2-4"}
MADE_ANEW = {
    "a mask": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    "a weight norm": parametrizations.weight_norm,
    "an older one": nn.utils.weight_norm,
    "a parametrization": parametrizations.orthogonal,
}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("way", MADE_ANEW)
def test_weights_that_are_made_anew_in_every_call_are_changed_by_no_technique_in_silence(
    technique: str, way: str
) -> None:
    """What it does to them would be undone, or it would take the other layers only."""
    entry, _ = registry.find("technique", technique)
    if entry.stage == "recipe" or entry.name in WHATEVER_THE_WEIGHTS:
        return
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    MADE_ANEW[way](module[0])
    with pytest.raises(Refusal, match=r"those of 0 are none.*prune\.remove, remove_weight_norm"):
        registry.check_technique(technique, Subject(module, (torch.zeros(2, 8),)))
    beside = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 8))
    MADE_ANEW[way](beside[0])
    plain = nn.Sequential(nn.Linear(8, 8))
    for other in (plain, *([beside] if entry.name in LINEAR_ONLY else [])):
        with suppress(Refusal) if entry.needs[1:] or entry.check else nullcontext():
            registry.check_technique(technique, Subject(other, (torch.zeros(2, 8),)))


@pytest.mark.parametrize("way", MADE_ANEW)
def test_a_norm_behind_a_layer_that_is_made_anew_is_not_folded_into_it(way: str) -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    MADE_ANEW[way](module[0])
    with pytest.raises(Refusal, match="found no batch norm"):
        registry.build("technique", "fuse", Subject(module, (torch.zeros(2, 8),)))
