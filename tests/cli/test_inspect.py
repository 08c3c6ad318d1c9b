"""`paretogrid inspect`: the layer table of a model, prepared as a run would."""

import json
import subprocess
from collections.abc import Callable

import pytest

from harness.sweep.launcher import Launcher

Command = Callable[..., subprocess.CompletedProcess[str]]


def layers(command: Command, *arguments: str) -> list[dict[str, object]]:
    done = command("inspect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "paretogrid.inspect/1"
    rows: list[dict[str, object]] = document["layers"]
    return rows


def test_every_layer_has_its_shape_parameters_products_bytes_and_bits(command: Command) -> None:
    rows = {row["name"]: row for row in layers(command, "digits-dense-16")}
    assert rows["1"] == {
        "name": "1", "kind": "Linear", "shape": [16], "params": 64 * 16 + 16,
        "nonzero_params": rows["1"]["nonzero_params"], "macs": 64 * 16,
        "weight_bytes": 4 * (64 * 16 + 16), "sparsity": rows["1"]["sparsity"], "bits": 32.0,
    }  # fmt: skip
    assert sum(int(str(row["params"])) for row in rows.values()) == 1210
    assert rows["2"]["kind"] == "ReLU"
    assert rows["2"]["bits"] is None


def test_techniques_show_in_zeros_and_bits(command: Command) -> None:
    pruned = layers(command, "linear-classifier", "--technique", "prune-magnitude(0.9)")
    assert pruned[1]["nonzero_params"] == 74  # 64 of 640 weights, and 10 biases
    stored = layers(command, "linear-classifier", "--technique", "affine(4)")
    assert stored[1]["kind"] == "Linear (AffineCode)"
    assert stored[1]["params"] == 650
    assert stored[1]["weight_bytes"] == 320 + 8 + 40


def test_products_between_layers_have_a_row_of_their_own(launcher: Launcher) -> None:
    import torch

    from bench import registry
    from harness.measure.counts import count_macs
    from harness.measure.layers import BETWEEN, list_layers

    registry.load_built_ins()
    subject = registry.build("model", "mnist1d-transformer")
    found = list_layers(subject.module, subject.inputs)
    between = [layer for layer in found if layer.kind == BETWEEN]
    assert [layer.macs for layer in between] == [2 * 2 * 10 * 10 * 64]  # QKᵀ and AV, two blocks
    assert sum(layer.macs for layer in found) == count_macs(subject.module, subject.inputs)[0]
    own = [layer for layer in found if layer.kind == "SignalTransformer (own)"]
    assert [layer.params for layer in own] == [10 * 64]
    total = sum(p.numel() for p in subject.module.parameters())
    assert sum(layer.params for layer in found) == total
    assert isinstance(subject.inputs[0], torch.Tensor)


def test_a_person_reads_a_table_with_sums(command: Command) -> None:
    done = command("inspect", "digits-dense-16")
    assert done.returncode == 0
    heading, *rows, sums = [line for line in done.stdout.splitlines() if line.strip()]
    assert heading.split() == ["layer", "kind", "output", "parameters", "MACs", "stored", "zero",
                               "bits"]  # fmt: skip
    assert len(rows) == 4
    assert sums.split()[:3] == ["all", "1,210", "1,184"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-mpl"], "Did you mean 'digits-mlp'?"),
        (["digits-mlp", "--technique", "affine(9)"], "bits must be from 1 to 8"),
        (["digits-mlp", "--technique", "fuse"], "found no batch norm"),
        (["linear-classifier", "--technique", "distill('digits-mlp')"], "more than its teacher"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(
    command: Command, arguments: list[str], words: str
) -> None:
    done = command("inspect", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
