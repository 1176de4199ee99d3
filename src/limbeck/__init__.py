"""limbeck: distil big vision networks into small ones."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.wiring.own import loss

__all__ = ["__version__", "loss"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`limbeck.loss`, imported when it is asked for: it needs torch, and `limbeck --help` does not."""
    if name == "loss":
        from limbeck.wiring.own import loss

        return loss
    raise AttributeError(f"module 'limbeck' has no attribute '{name}'")
