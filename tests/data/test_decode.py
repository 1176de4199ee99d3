"""Decoding: every mode becomes RGB, images stand upright, and what cannot be read is named."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data import decode
from limbeck.data.decode import Unreadable, decode_all, middle, open_rgb, readable, squared
from limbeck.data.sources.folder import Files
from limbeck.errors import Mistake


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def palette(*, transparency: int | None = None) -> bytes:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return encoded(image) if transparency is None else encoded(image, transparency=transparency)


def sixteen(value: int) -> bytes:
    return encoded(Image.fromarray(np.full((2, 2), value, np.uint16)))


MODES = {
    "RGB": (encoded(Image.new("RGB", (2, 2), (10, 20, 30))), (10, 20, 30)),
    "grey": (encoded(Image.new("L", (2, 2), 77)), (77, 77, 77)),
    "one bit": (encoded(Image.new("1", (2, 2), 1)), (255, 255, 255)),
    "palette": (palette(), (10, 20, 30)),
    "palette, transparent": (palette(transparency=1), (255, 255, 255)),
    "grey, half transparent": (encoded(Image.new("LA", (2, 2), (0, 51))), (204, 204, 204)),
    "RGBA, opaque": (encoded(Image.new("RGBA", (2, 2), (10, 20, 30, 255))), (10, 20, 30)),
    "RGBA, transparent": (encoded(Image.new("RGBA", (2, 2), (10, 20, 30, 0))), (255, 255, 255)),
    "RGB, one colour transparent": (encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)), (255,) * 3),
    "16 bits": (sixteen(0x4DFF), (0x4D,) * 3),
    "16 bits, white": (sixteen(0xFFFF), (255,) * 3),
    "32 bits, as 16": (encoded(Image.new("I", (2, 2), 0x4D00), "TIFF"), (0x4D,) * 3),
    "CMYK": (encoded(Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
}


@pytest.mark.parametrize(("content", "colour"), MODES.values(), ids=MODES)
def test_every_mode_becomes_rgb(content: bytes, colour: tuple[int, ...]) -> None:
    image = open_rgb(content, "it")
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == colour


def test_photographs_stand_upright() -> None:
    image = Image.new("RGB", (16, 8), "black")
    image.paste((255, 255, 255), (0, 0, 8, 8))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left of the file is the top of the scene
    upright = open_rgb(encoded(image, "JPEG", exif=exif, quality=100), "it")
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == (255, 255, 255)
    assert upright.getpixel((4, 13)) == (0, 0, 0)


@pytest.mark.parametrize("content", [
    b"", b"no image", encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)))[:150],
    encoded(Image.new("F", (2, 2)), "TIFF")], ids=["empty", "text", "cut short", "floats"])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(Unreadable, match=r"every image must be readable; .*odd\.png is not \(.*skip_unreadable"):
        open_rgb(tmp_path / "odd.png", str(tmp_path / "odd.png"))


def test_the_square_in_the_middle() -> None:
    strips = Image.new("RGB", (12, 4), "red")
    strips.paste((0, 0, 255), (4, 0, 8, 4))
    assert middle(strips) == (4, 0, 8, 4)
    assert middle(strips, 0.5) == (5, 1, 7, 3)
    assert np.asarray(squared(strips, 4, middle(strips)))[:, 1:-1, 2].min() == 255
    assert squared(strips, 3, middle(strips)).size == (3, 3)


def test_resizing_averages_rather_than_picks() -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    small = np.asarray(squared(board, 8, middle(board)))
    assert np.abs(small.astype(int) - 128).max() < 8


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Nine grey images of growing brightness, the fourth of which is damaged."""
    for i in range(9):
        Image.new("RGB", (6, 4), (20 * i,) * 3).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    return Files([tmp_path / f"{i}.png" for i in range(9)])


def test_images_are_decoded_in_order_and_the_unreadable_left_out(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "CHUNK", 2)
    monkeypatch.setattr(decode, "THREADS", 2)
    pixels, kept = decode_all(files, None, skip=True)
    assert pixels.shape == (8, 3, 4, 6)
    assert pixels.dtype == torch.uint8
    assert kept.tolist() == [0, 1, 2, 4, 5, 6, 7, 8] == readable(files).tolist()
    assert torch.equal(pixels[:, 0, 0, 0], 20 * kept)
    assert decode_all(files, 2, skip=True)[0].shape == (8, 3, 2, 2)


def test_an_unreadable_image_stops_unless_skipped(files: Files) -> None:
    with pytest.raises(Unreadable, match=r"3\.png is not"):
        decode_all(files, None, skip=False)


def test_unequal_sizes_need_a_size(files: Files, tmp_path: Path) -> None:
    Image.new("RGB", (5, 7)).save(tmp_path / "3.png")
    with pytest.raises(Mistake, match=r"need one size; .*0\.png has 6x4 pixels, .*3\.png 5x7\. Give the size"):
        decode_all(files, None, skip=False)
    assert decode_all(files, 4, skip=False)[0].shape == (9, 3, 4, 4)


def test_nothing_readable_is_a_mistake(files: Files) -> None:
    with pytest.raises(Mistake, match=r"at least one image must be readable; none of 1 is, as .*3\.png"):
        decode_all(files.select([3]), None, skip=True)
