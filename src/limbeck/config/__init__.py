"""Typed settings of every verb: a YAML file, then flags, then `--set section.key=value`."""

from limbeck.config.reading import NULL, as_yaml, assignments, job_of, merged, read_job, read_yaml, sections, validated
from limbeck.config.settings import (
    CacheSettings,
    DataSettings,
    Job,
    MethodSettings,
    NetworkSettings,
    OptimizerSettings,
    ProcessSettings,
    RecipeSettings,
    ScheduleSettings,
    SearchSettings,
    Settings,
    TrainingSettings,
)

__all__ = ["NULL", "CacheSettings", "DataSettings", "Job", "MethodSettings", "NetworkSettings", "OptimizerSettings",
           "ProcessSettings", "RecipeSettings", "ScheduleSettings", "SearchSettings", "Settings", "TrainingSettings",
           "as_yaml", "assignments", "job_of", "merged", "read_job", "read_yaml", "sections", "validated"]
