"""The clip rule: a dropped pathway costs nothing from then on, and nothing is compiled again for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from catalogue import trainer
from clipping import EPOCHS, IMAGES, clipped
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it
def test_dropped_pathways_are_not_called_and_nothing_is_compiled_again(tmp_path: Path) -> None:
    torch._dynamo.reset()
    method, compiled = clipped(), CompileCounterWithBackend("aot_eager")
    calls: Counter[str] = Counter()
    for name in method.searchable():
        method.terms[name].connect.compile(backend=compiled)
        method.terms[name].connect_source.register_forward_hook(lambda *_, name=name: calls.update([name]))
    run, frames = trainer(method, tmp_path, epochs=EPOCHS, images=IMAGES), []
    end_epoch = run._end_epoch
    run._end_epoch = lambda *given: (frames.append(compiled.frame_count), end_epoch(*given))  # type: ignore[method-assign]
    try:
        run.fit()
    finally:
        torch._dynamo.reset()
    names, steps = method.searchable(), IMAGES // 8
    assert calls == {name: steps * min(place, EPOCHS) for place, name in enumerate(names) if place}
    assert frames[0] > 0
    assert frames == [frames[0]] * EPOCHS


