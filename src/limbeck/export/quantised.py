"""An ONNX file in 8-bit integers: convolutional networks throughout, transformers in their matrix products."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from limbeck.export.shipment import INPUT


class _Reader:
    """Images as onnxruntime's calibration reads them."""

    def __init__(self, batches: Iterable[Tensor]):
        self.batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


def quantised(model: bytes, batches: Iterable[Tensor]) -> bytes:
    """A model of weights in int8, a scale for each output channel, and activations in uint8, a scale for each tensor.

    Activations are scaled by what training images show of them. In networks that normalise by layer (transformers and
    their like) few channels are so large that nothing is left of the others; there only matrix products are quantised,
    their activations scaled anew in every batch. Weights take 7 of the 8 bits: on processors without VNNI, products of
    8 bits overflow where pairs are summed.

    Args:
        model: An ONNX file's bytes, float32.
        batches: Images in [0, 1] that show the range of every activation.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, plain, small = (Path(folder) / f"{name}.onnx" for name in ("given", "plain", "int8"))
        given.write_bytes(model)
        quant_pre_process(str(given), str(plain), skip_symbolic_shape=True)
        how = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
        if any(node.op_type == "LayerNormalization" for node in onnx.load(plain).graph.node):
            quantize_dynamic(str(plain), str(small), op_types_to_quantize=["MatMul", "Gemm"], **how)
        else:
            quantize_static(str(plain), str(small), _Reader(batches), quant_format=QuantFormat.QDQ,
                            activation_type=QuantType.QUInt8, **how)
        return small.read_bytes()
