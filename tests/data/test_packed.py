"""Packed parts: the same pixels, labels and names come back, from any number of parts; what is amiss is named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from limbeck.config import DataSettings
from limbeck.data import Batches, open_data
from limbeck.data.sources.packed import open_packed, pack
from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake


@pytest.fixture
def source(noise: Callable[..., torch.Tensor]) -> Source:
    """30 + 9 images of 8x8."""
    train, test = Part(noise(30), torch.arange(30) % 3), Part(noise(9, seed=1), torch.arange(9) % 3)
    return Source("noise at 8x8", ("ant", "bee", "cow"), train, test, "validation")


@pytest.mark.parametrize("most", [10**6, 3000, 1])
def test_what_was_packed_comes_back(source: Source, tmp_path: Path, most: int) -> None:
    files = pack(source, tmp_path, most)
    assert [file.name for file in files] == [f"part-{i}-of-{len(files)}.safetensors" for i in range(1, len(files) + 1)]
    assert len(files) == {10**6: 1, 3000: 5, 1: 39}[most]
    data = open_data(DataSettings(source=f"packed:{tmp_path}"))
    assert (data.name, data.classes, data.image_size) == ("noise at 8x8", ("ant", "bee", "cow"), (8, 8))
    assert "its split 'validation' is scored" in data.notes[0]
    assert source.test is not None
    for split, part in ((data.train, source.train), (data.test, source.test)):
        assert isinstance(part.images, torch.Tensor)
        assert torch.equal(split.store.sample(split.index), part.images)
        assert split.labels is not None
        assert part.targets is not None
        assert torch.equal(split.labels, part.targets)


@pytest.mark.parametrize("most", [10**6, 3000])
def test_parts_are_no_larger_than_asked(source: Source, tmp_path: Path, most: int) -> None:
    header = 1500
    assert all(file.stat().st_size <= most + header for file in pack(source, tmp_path, most))


def test_a_choice_and_a_batch(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path, 3000)
    data = open_data(DataSettings(source=f"packed:{tmp_path}", classes=2, per_class=4))
    assert (len(data.train), len(data.test)) == (8, 6)
    batch = next(Batches(data.train, 8, train=False).epoch())
    assert batch.targets is not None
    assert batch.targets.tolist() == [0, 1] * 4
    assert isinstance(source.train.images, torch.Tensor)
    assert torch.equal(batch.images[1], source.train.images[1] / 255)


def test_without_labels_and_without_a_test_split(source: Source, tmp_path: Path) -> None:
    pack(replace(source, classes=(), train=replace(source.train, targets=None), test=None, scored=""), tmp_path, 3000)
    again = open_packed(str(tmp_path))
    assert again.train.targets is None
    assert again.test is None
    assert len(again.train.images) == 30


def test_mirrors_are_remembered(source: Source, tmp_path: Path) -> None:
    pack(replace(source, mirrored=False), tmp_path, 10**6)
    assert open_data(DataSettings(source=f"packed:{tmp_path}")).augmentation.kind == "crop"


def test_no_parts(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"parts as benchmarks/pack.py writes them; .* has no part-1-of-N.*Give"):
        open_packed(str(tmp_path))


def test_a_folder_in_use(source: Source, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Mistake, match=r"a new or empty folder; .* holds something. Empty it"):
        pack(source, tmp_path, 3000)


def test_a_part_lacks(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path, 3000)[1].unlink()
    with pytest.raises(Mistake, match=r"needs all parts of one packing.*lacks part \[2\] of 5. Put all of them there"):
        open_packed(str(tmp_path))


def test_parts_of_two_packings(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path / "one", 3000)
    other = pack(replace(source, name="others"), tmp_path / "other", 3000)
    shutil.copy(other[1], tmp_path / "one")
    with pytest.raises(Mistake, match="has some of 'noise at 8x8' and of 'others', packed apart"):
        open_packed(str(tmp_path / "one"))


def test_a_damaged_part(source: Source, tmp_path: Path) -> None:
    (file,) = pack(source, tmp_path, 10**6)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(Mistake, match=r"part-1-of-1.safetensors is damaged \(.*Copy it or pack the data again"):
        open_packed(str(tmp_path))


def test_another_file_of_the_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "part-1-of-1.safetensors")
    with pytest.raises(Mistake, match=r"of format limbeck-packed-1; .* has the format None. Pack the data again"):
        open_packed(str(tmp_path))


def test_a_picture_that_cannot_be_read_is_named(source: Source, tmp_path: Path) -> None:
    pack(source, tmp_path, 10**6)
    again = open_packed(str(tmp_path))
    pictures = again.train.images
    assert not isinstance(pictures, torch.Tensor)
    assert pictures.select([4, 7]).name(1) == "image 7 of split 'train'"
    assert pictures.select([4, 7]).read([1]) == pictures.read([7])
