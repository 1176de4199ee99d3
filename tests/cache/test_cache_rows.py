"""What is stored of a view and what is read of it."""

from __future__ import annotations

import math
import re

import pytest
import torch

from limbeck.cache.rows import Row, error
from limbeck.errors import Mistake


def logits(images: int = 5, classes: int = 10, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(images, classes, generator=torch.Generator().manual_seed(0))


def test_float32_comes_back_to_the_bit_and_feature_maps_in_their_shape() -> None:
    maps, tokens = torch.randn(5, 3, 2, 2), torch.randn(5, 7, 4)
    row = Row({"logits": (10,), "stage3": (3, 2, 2), "tokens": (7, 4)}, "float32")
    outputs = {"logits": logits(), "stage3": maps, "tokens": tokens}
    rows = row.encode(outputs)
    assert (rows.dtype, rows.shape) == (torch.uint8, (5, row.size))
    assert row.size == 4 * (10 + 12 + 28)
    read = row.decode(rows[[3, 1]])
    assert all(torch.equal(read[tap], outputs[tap][[3, 1]]) for tap in outputs)


@pytest.mark.parametrize(("precision", "relative"), [("float16", 2**-11), ("bf16", 2**-8)])
def test_half_precision_rounds_once(precision: str, relative: float) -> None:
    row = Row({"logits": (9,)}, precision)
    assert row.size == 20  # 18 bytes, padded
    read = row.decode(row.encode({"logits": logits(classes=9)}))["logits"]
    torch.testing.assert_close(read, logits(classes=9), rtol=relative, atol=1e-6)
    assert torch.equal(row.encode({"logits": read}), row.encode({"logits": logits(classes=9)}))


def test_float16_cuts_what_it_cannot_hold() -> None:
    row = Row({"logits": (2,)}, "float16")
    assert row.decode(row.encode({"logits": torch.tensor([[1e6, -1e6]])}))["logits"].tolist() == [[65504, -65504]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("tail", ["smooth", "renorm"])
def test_top_k_is_recovered_as_published(tail: str, temperature: float) -> None:
    """FKD's marginal smoothing and re-normalisation, image by image."""
    row = Row({"logits": (10,)}, "float32", 3, tail, temperature)
    read = (row.decode(row.encode({"logits": logits()}))["logits"] / temperature).softmax(1)
    for z, p in zip((logits().double() / temperature).softmax(1), read.double(), strict=True):
        top = z.topk(3)
        rest = (1 - top.values.sum()) / 7 if tail == "smooth" else torch.tensor(0.0).double()
        expected = rest.repeat(10)
        expected[top.indices] = top.values if tail == "smooth" else top.values / top.values.sum()
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-7)


def test_a_golden_row() -> None:
    """p = (1/2, 1/4, 1/8, 1/8): its two largest are kept, and 1/4 is left to two classes."""
    z = torch.tensor([[8.0, 4.0, 2.0, 2.0]]).log()[:, [2, 0, 3, 1]]
    row = Row({"logits": (4,)}, "float32", 2)
    assert row.fields == [("logits", torch.float32, 3), ("logits", torch.uint8, 2)]
    kept = row.encode({"logits": z})
    torch.testing.assert_close(kept[0, :12].view(torch.float32), torch.tensor([0.5, 0.25, 0.25]).log())
    assert kept[0, 12:].tolist() == [1, 3, 0, 0]
    torch.testing.assert_close(row.decode(kept)["logits"].exp(), torch.tensor([[0.125, 0.5, 0.125, 0.25]]))


@pytest.mark.parametrize("precision", ["float16", "bf16"])
def test_a_sure_teacher_leaves_something_to_the_rest_in_half_precision_too(precision: str) -> None:
    sure = torch.zeros(1, 100)
    sure[0, 17] = 16.0
    row = Row({"logits": (100,)}, precision, 5)
    read = row.decode(row.encode({"logits": sure}))["logits"]
    assert read.isfinite().all()
    torch.testing.assert_close((read / 4).softmax(1), (sure / 4).softmax(1), rtol=0.02, atol=1e-4)
    assert error(sure, read, 1.0) < 1e-6


@pytest.mark.parametrize(("classes", "kind"), [(256, torch.uint8), (257, torch.int16), (40000, torch.int32)])
def test_classes_are_integers_as_small_as_they_can_be(classes: int, kind: torch.dtype) -> None:
    row, z = Row({"logits": (classes,)}, "float16", 2), torch.zeros(1, classes)
    z[0, -1], z[0, 0] = 9, 8
    assert row.fields[1] == ("logits", kind, 2)
    assert row.decode(row.encode({"logits": z}))["logits"].topk(2).indices.tolist() == [[classes - 1, 0]]


def test_the_error_is_the_divergence_and_more_classes_make_it_smaller() -> None:
    full = logits(200, 20)
    read = {k: Row({"logits": (20,)}, "float32", k).encode({"logits": full}) for k in (2, 5, 10)}
    found = [error(full, Row({"logits": (20,)}, "float32", k).decode(rows)["logits"], 1.0) for k, rows in read.items()]
    assert found[0] > found[1] > found[2] > 0
    p = full.double().softmax(1)
    q = Row({"logits": (20,)}, "float32", 2).decode(read[2])["logits"].double().softmax(1)
    assert found[0] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)
    assert error(full, full, 4.0) == 0


def test_classes_that_get_nothing_keep_losses_finite() -> None:
    row = Row({"logits": (10,)}, "float16", 3, "renorm")
    read = row.decode(row.encode({"logits": logits()}))["logits"]
    student = torch.log_softmax(logits(scale=1.0) / 4, 1)
    loss = torch.nn.functional.kl_div(student, torch.log_softmax(read / 4, 1), reduction="batchmean", log_target=True)
    assert math.isfinite(float(loss))


@pytest.mark.parametrize(("k", "shape"), [(0, (10,)), (10, (10,)), (2, (10, 4, 4))])
def test_keeping_all_or_more_or_some_of_a_map_is_refused(k: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(Mistake, match=rf"keeps some of the logits .* got {k}, where they are {re.escape(str(shape))}"):
        Row({"logits": shape}, top_k=k)
