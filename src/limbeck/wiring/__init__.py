"""From settings to a method: its function, its options, its blend with others, its weights."""

from limbeck.wiring.stages import build_stages, function, needs_teacher, networks_of, options, own_options, parts_of

__all__ = ["build_stages", "function", "needs_teacher", "networks_of", "options", "own_options", "parts_of"]
