"""Weight sharing: few distinct values for each layer."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from bench.registry import PLAIN_LAYERS, technique
from bench.spec import Range
from bench.subject import Subject
from bench.techniques.codes import SharedCode
from bench.techniques.parameters import IF_TUNED, Epochs
from bench.techniques.quantization import store
from bench.training import finetune


@technique(
    "share-weights", stage="execution", realization="packed", needs=(PLAIN_LAYERS, *IF_TUNED)
)
def share_weights(
    subject: Subject,
    clusters: Annotated[int, Range(2, 256)],
    finetune_epochs: Epochs = 0,
) -> Subject:
    """Each layer's weights become one of so many values: a codebook and packed indices.

    The values are the centres of a k-means over the layer's weights. With `finetune_epochs` they
    are trained on: a value's gradient is the sum of those of its weights. Unpacked for every call.
    Source: Han et al., "Deep Compression", arXiv:1510.00149.
    """
    stored = store(subject, "share-weights", partial(SharedCode, clusters=clusters))
    stored = finetune(stored, finetune_epochs)
    for code in stored.module.modules():
        if isinstance(code, SharedCode):
            code.freeze()
    return stored
