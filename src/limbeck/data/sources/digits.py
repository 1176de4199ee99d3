"""The built-in data: 1,797 handwritten digits of 8x8 pixels, so that everything can be tried without a download."""

from __future__ import annotations

import torch

from limbeck.data.sources.source import Part, Source


def open_digits() -> Source:
    """scikit-learn's digits, grey shown as RGB; it comes in one part, so that a fifth is cut off to be scored."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)              # (N, 8, 8), from 0..16
    images = grey[:, None].expand(-1, 3, -1, -1).contiguous()
    classes = tuple(str(name) for name in digits.target_names)
    return Source("digits", classes, Part(images, torch.from_numpy(digits.target).long()), mirrored=False)
