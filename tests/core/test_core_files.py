"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from limbeck.errors import Mistake
from limbeck.files import unwritable, write_whole, written_beside


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_text_are_written_and_nothing_beside_them(tmp_path):
    write_whole(tmp_path / "new" / "a.bin", b"\x00\xff")
    write_whole(tmp_path / "new" / "b.txt", "größer")
    write_whole(tmp_path / "new" / "b.txt", "größer\n")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "new" / "b.txt").read_text(encoding="utf-8") == "größer\n"
    assert left(tmp_path / "new") == ["a.bin", "b.txt"]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["fsync", "write", "replace"])
def full(request, monkeypatch) -> None:
    """A disk that is full when the content is written, when it is flushed, or when the file is renamed."""
    if request.param == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    elif request.param == "replace":
        monkeypatch.setattr(Path, "replace", full_disk)
    else:
        really_open = Path.open

        class Full:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, content):
                self.file.write(content[:3])
                full_disk()

        monkeypatch.setattr(Path, "open", lambda path, *args, **more: Full(really_open(path, *args, **more)))


@pytest.mark.usefixtures("full")
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with open(path, "wb") as file:  # Path's own ways to write may be what fails
        file.write(b"old")
    with pytest.raises(Mistake, match=r"checkpoint\.pt could not be written: the disk is full.*is unharmed.*Make room"):
        write_whole(path, b"new content")
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
    with open(path, "rb") as file:
        assert file.read() == b"old"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert left(tmp_path) == ["checkpoint.pt"]
    assert path.read_bytes() == b"old"


def test_a_file_where_the_folder_should_be_is_a_mistake(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(Mistake, match=r"run/config\.yaml could not be written"):
        write_whole(tmp_path / "run" / "config.yaml", "x")
    with pytest.raises(Mistake, match=r"could not be written"):
        write_whole(tmp_path / "run" / "deeper" / "config.yaml", "x")
    assert (tmp_path / "run").read_text() == "not a folder"


def test_a_folder_where_the_file_should_be_is_a_mistake(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(Mistake, match=r"config\.yaml could not be written: Is a directory"):
        write_whole(tmp_path / "config.yaml", "x")
    assert left(tmp_path) == ["config.yaml"]


def test_other_reasons_are_given_in_the_systems_words():
    assert "Permission denied" in str(unwritable(Path("x"), PermissionError(errno.EACCES, "Permission denied")))
    assert "the disk is full" in str(unwritable(Path("x"), OSError(errno.EDQUOT, "Disk quota exceeded")))
    assert "odd" in str(unwritable(Path("x"), OSError("odd")))


def test_what_is_looked_at_first_is_renamed_only_if_it_is_accepted(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with written_beside(path, b"one") as beside:
        assert (beside.read_bytes(), path.exists()) == (b"one", False)
    with pytest.raises(ValueError, match="not good"), written_beside(path, b"two"):
        raise ValueError("not good")
    assert path.read_bytes() == b"one"
    assert left(path.parent) == ["a.bin"]


def test_what_fails_while_it_is_looked_at_is_no_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), written_beside(tmp_path / "a.bin", b""):
        (tmp_path / "nowhere").open()
