"""The files that a network ships in: how each is made, and how it is read again without the network."""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.errors import Mistake, nearest
from limbeck.export.shipment import INPUT, OUTPUT, Shipment, as_large
from limbeck.runs import plain_weights

Answer = Callable[[Tensor], Tensor]
KEY = "limbeck"  # under which a file says what it is


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: What it is called.
        suffix: Of the file.
        runs_in: What computes with it.
        content: The file's bytes.
        opened: Reads it again, and answers images in [0, 1]; it may take the architecture from the shipment.
        packages: Which it needs beside limbeck's own, all in the extra `export`.
    """

    name: str
    suffix: str
    runs_in: str
    content: Callable[[Shipment], bytes]
    opened: Callable[[Path, Shipment], Answer]
    packages: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse it where a package lacks.

        Raises:
            Mistake: If one does.
        """
        lacking = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if lacking:
            raise Mistake(f"{self.name} files need {', '.join(lacking)}, which Python does not find. Install with: "
                          f"pip install 'limbeck[export]', or leave {self.name} out of --to.")


def _safetensors(shipment: Shipment) -> bytes:
    from safetensors.torch import save

    return save(plain_weights(shipment.network), metadata={"format": "pt", **note(shipment)})


def _from_safetensors(path: Path, shipment: Shipment) -> Answer:
    from safetensors.torch import load_file

    fresh = shipment.network.fresh(0)
    fresh.module.load_state_dict(load_file(path), strict=True)
    fresh.eval()
    return lambda images: as_large(fresh.logits(images), images)


def _pt2(shipment: Shipment) -> bytes:
    file = io.BytesIO()
    torch.export.save(shipment.graph, file, extra_files=note(shipment))
    return file.getvalue()


def _from_pt2(path: Path, shipment: Shipment) -> Answer:
    with path.open("rb") as file:
        answer: Answer = torch.export.load(io.BytesIO(file.read())).module()
    return answer


def _onnx(shipment: Shipment) -> bytes:
    import onnx

    # Attention is taken apart in two passes, of which the first must not count on a fused kernel's order in memory.
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # the exporter's, of its own parts
        program = torch.onnx.export(shipment.graph, dynamo=True, verbose=False, input_names=[INPUT],
                                    output_names=[OUTPUT])
    assert program is not None, "with dynamo=True there is one"
    model = program.model_proto
    graph, constants = model.graph, {one.name for one in model.graph.initializer}
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # how the exporter came to it; as large as a small network itself
    between = [info for info in graph.value_info if info.name not in constants]  # who turns weights keeps no note of it
    del graph.value_info[:]
    graph.value_info.extend(between)
    onnx.helper.set_model_props(model, note(shipment))
    return model.SerializeToString()


def _from_onnx(path: Path, shipment: Shipment) -> Answer:
    return onnx_session(path)


def onnx_session(path: Path) -> Answer:
    """Answers of an ONNX file in onnxruntime, on the CPU, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def note(shipment: Shipment) -> dict[str, str]:
    """What a file says of itself, as every format can hold it."""
    return {KEY: json.dumps(shipment.about)}


FORMATS = {one.name: one for one in (
    Format("safetensors", ".safetensors", "PyTorch", _safetensors, _from_safetensors),
    Format("onnx", ".onnx", "onnxruntime", _onnx, _from_onnx, ("onnx", "onnxscript", "onnxruntime")),
    Format("pt2", ".pt2", "torch.export", _pt2, _from_pt2))}


def formats(text: str | Sequence[str]) -> list[Format]:
    """The formats named, by commas.

    Raises:
        Mistake: If there is none of a name, or no name.
    """
    names = list(dict.fromkeys(name.strip() for name in (text.split(",") if isinstance(text, str) else text)))
    if not any(names):
        raise Mistake(f"--to needs formats, by commas; got '{text}'. There are {', '.join(FORMATS)}.")
    for name in names:
        if name not in FORMATS:
            raise Mistake(f"there is no format '{name}' to export to; {nearest(name, FORMATS)}")
    return [FORMATS[name] for name in names]


def said(path: Path) -> dict[str, Any]:
    """What the small JSON beside exported files says; empty where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
