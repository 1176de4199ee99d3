"""What there is in timm ships: a small network of each family that timm keeps for tests, as ONNX and pt2."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from export_tiny import STATISTICS
from torch import Tensor, nn

from limbeck.export.checking import largest_difference
from limbeck.export.formats import FORMATS
from limbeck.export.shipment import Shipment, described
from limbeck.members import Network

pytest.importorskip("onnx", reason="ONNX files need it; pip install 'limbeck[export]'")
pytest.importorskip("onnxscript", reason="ONNX files need it; pip install 'limbeck[export]'")
pytest.importorskip("onnxruntime", reason="ONNX files need it; pip install 'limbeck[export]'")

SMALLER = {"swin_tiny_patch4_window7_224": {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 24},
           "mobilevit_xxs": {}, "fastvit_t8": {}, "hrnet_w18_small": {}, "repvgg_a0": {}, "regnetx_002": {},
           "mobilenetv4_conv_small_035": {}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*timm.list_models("test_*"), *SMALLER])
def test_a_small_network_of_each_family_ships(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = timm.get_pretrained_cfg(name).input_size if name.startswith("test_") else (3, 64, 64)
    network = Network(timm.create_model(name, num_classes=5, **SMALLER.get(name, {})), name=f"timm:{name}", size=size,
                      statistics=STATISTICS).eval()
    shipment, images = Shipment(network, size, described(network, size, "classification", ())), torch.rand(8, *size)
    for form in ("onnx", "pt2"):
        path = tmp_path / form
        path.write_bytes(FORMATS[form].content(shipment))
        largest_difference(FORMATS[form].opened(path, shipment), network, images, form)


def test_attention_with_a_bias_of_places_ships(tmp_path: Path) -> None:
    """Its answer lies otherwise in memory under a fused kernel than in the products that ONNX makes of it."""
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.three = nn.Parameter(torch.randn(1, 2, 16, 16)), nn.Linear(16, 48)

        def forward(self, x: Tensor) -> Tensor:
            three = self.three(x.flatten(2).mT).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)  # (3, N, heads, L, 8)
            mixed = nn.functional.scaled_dot_product_attention(*three.unbind(0), attn_mask=2 * self.bias)
            return mixed.transpose(1, 2).reshape(x.shape[0], 16, 16).mean(1)

    network = Network(nn.Sequential(nn.Conv2d(3, 16, 4, 4), Biased()), name="biased", size=(3, 16, 16),
                      statistics=STATISTICS).eval()
    shipment = Shipment(network, (3, 16, 16), described(network, (3, 16, 16), "classification", ()))
    (tmp_path / "file").write_bytes(FORMATS["onnx"].content(shipment))
    answer = FORMATS["onnx"].opened(tmp_path / "file", shipment)
    assert largest_difference(answer, network, torch.rand(8, 3, 16, 16), "it") < 1e-5
