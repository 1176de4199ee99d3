"""Brings a data set to one size and packs it, lossless, into parts that a device machine can be sent one by one.

    python benchmarks/pack.py ../shared/data/tiny-imagenet-100 .packed/tiny-imagenet-100 --size 32

The images are those that limbeck itself would train on with `data.size`: the result is opened again, and must have the
same fingerprint (images, labels, class names). Runs then read it as `--data packed:FOLDER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from limbeck.config import DataSettings
from limbeck.data import Data, Split, open_data
from limbeck.data.images import Images
from limbeck.data.sources import open_source
from limbeck.data.sources.packed import pack
from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake

MIB = 2**20


def packable(settings: DataSettings, data: Data) -> Source:
    """A data set in memory as a source, named after the folder or data set it comes from, and its size.

    Raises:
        Mistake: If its images are not held in memory.
    """
    source, (height, width) = open_source(settings), data.image_size
    name = data.name.rpartition(":")[2].rstrip("/").rpartition("/")[2]
    return Source(f"{name} at {width}x{height}", data.classes, _part(data.train), _part(data.test),
                  source.scored or "test", source.mirrored)


def _part(split: Split) -> Part:
    if not isinstance(split.store, Images):
        raise Mistake(f"packing needs images in memory; these {len(split)} are streamed. Give a smaller --size")
    return Part(split.store.sample(split.index), split.labels)


def main() -> None:
    """Pack, open again, compare, and say how large the parts are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="what `limbeck --data` takes")
    parser.add_argument("folder", type=Path, help="takes the parts; new or empty")
    parser.add_argument("--size", type=int, help="pixels a side; the images' own by default")
    parser.add_argument("--most", type=int, default=58, help="MiB a part; the device machine takes 64 a call, with the "
                                                             "working tree and the wheels among them")
    chosen = parser.parse_args()
    settings = DataSettings(source=chosen.source, size=chosen.size)
    data = open_data(settings)
    files = pack(packable(settings, data), chosen.folder, chosen.most * MIB)
    again = open_data(DataSettings(source=f"packed:{chosen.folder}"))
    if again.fingerprint != data.fingerprint:
        raise SystemExit(f"{chosen.folder} does not give back what was packed: fingerprint {again.fingerprint}, "
                         f"not {data.fingerprint}")
    for file in files:
        print(f"{file}  {file.stat().st_size / MIB:.1f} MiB")
    print(f"{len(data.train):,} + {len(data.test):,} images, fingerprint {data.fingerprint}")


if __name__ == "__main__":
    main()
