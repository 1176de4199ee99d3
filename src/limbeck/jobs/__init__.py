"""What the verbs do: a job checked, its parts assembled, trained, its results written; finished runs opened again."""

from limbeck.jobs.doing import (
    check,
    evaluate,
    execute,
    found_process,
    look_at_teacher,
    resume,
    search_epochs,
    staged,
)

__all__ = ["check", "evaluate", "execute", "found_process", "look_at_teacher", "resume", "search_epochs", "staged"]
