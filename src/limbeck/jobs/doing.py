"""What the verbs do: a job checked, its parts assembled, trained, and its results written to the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch

from limbeck import ranks, wiring
from limbeck.config import Job
from limbeck.data import Batches
from limbeck.data.sources import check_source
from limbeck.errors import Mistake
from limbeck.evaluation.scores import score
from limbeck.jobs.finished import Finished
from limbeck.jobs.parts import Parts, Verb
from limbeck.method import Method, Stage
from limbeck.process import Learned
from limbeck.process.recorded import Recorded
from limbeck.progress import Display, duration
from limbeck.runs import Run
from limbeck.search import Search
from limbeck.sources import check_network, describe
from limbeck.tasks import Task, beats
from limbeck.training import engine, memory
from limbeck.training.profiling import Profile, Watched
from limbeck.training.teachers import check_teacher
from limbeck.training.trainer import Trainer
from limbeck.wiring.ema import with_average
from limbeck.wiring.reweighing import searches, under_replay, under_search

_SEARCH_SHARE = 1 / 6  # the paper searches 40 of 240 epochs


def execute(verb: Verb, job: Job, folder: Path, *, device: str | None = None, quiet: bool = False,
            profile: bool = False) -> Run:
    """Do a job, or go on with it, or find it done.

    Args:
        verb: `train` one network, `search` a process, or `distill`.
        job: Its settings.
        folder: Of the run; see `limbeck.runs`.
        device: `cpu`, `cuda`, `mps`; None takes the best.
        quiet: Show nothing.
        profile: Tell where the time of the first steps goes, and leave it in the run's folder.

    Returns:
        The finished run.

    Raises:
        Mistake: For whatever the user can mend; settings are checked before any data is read.
        Stopped: When asked to stop, after a checkpoint.
    """
    check(verb, job)
    run = Run(folder)
    accelerator = engine.start(device, deterministic=job.training.deterministic)
    display = Display(quiet=quiet or ranks.rank() != 0)
    if ranks.rank() == 0:
        run.start(job)
    accelerator.wait_for_everyone()
    if run.finished:
        display.say(f"{folder} is finished already; nothing to do.")
        return run
    found = found_process(verb, job, folder, device=device, quiet=quiet)
    parts = Parts(verb, job, accelerator, display)
    if ranks.rank() == 0 and not run.read_json("about.json"):
        run.write_json("about.json", {"verb": verb, **parts.about()})
    _train(parts, run, found, profile)
    return run


def check(verb: Verb, job: Job) -> None:
    """Refuse a job that cannot work, with everything that is wrong with it, before data is read.

    Raises:
        Mistake: With all that was found.
    """
    wrong: list[str] = []

    def attempt(look: Callable[[], Any]) -> None:
        try:
            look()
        except Mistake as mistake:
            wrong.append(str(mistake))

    attempt(lambda: check_source(job.data.source))
    attempt(lambda: wiring.own_options(job.method))
    attempt(lambda: _check_teacher_given(verb, job))
    attempt(lambda: _check_cache(verb, job))
    further = [network for several in job.networks.values() for network in several]
    for network in filter(None, (job.student, job.teacher, *further)):
        attempt(partial(check_network, network))
    if job.process.file is not None and verb == "distill":
        attempt(lambda: Recorded.load(_process_file(job.process.file or "")))
    if job.student.classes is not None:
        wrong.append("student.classes was given, and a student has the data's classes; teacher.classes says what a "
                     "teacher calls them. Leave student.classes out.")
    if verb == "search" and job.training.clip_gradients is not None:
        wrong.append("a search looks through the optimiser step, and clipped gradients are not looked through: leave "
                     "training.clip_gradients out.")
    if verb == "search" and (job.training.accumulate > 1 or job.training.checkpoint_activations):
        wrong.append("a search looks through whole optimiser steps: leave training.accumulate and "
                     "training.checkpoint_activations out.")
    if job.training.compile is True and job.training.checkpoint_activations:
        wrong.append("activations are computed again in passes that are not compiled: leave training.compile or "
                     "training.checkpoint_activations out.")
    if wrong:
        raise Mistake("\n".join(dict.fromkeys(wrong)))  # two looks may find the same


def _check_teacher_given(verb: Verb, job: Job) -> None:
    if verb == "distill" and job.method.name == "none" and job.teacher is not None:
        raise Mistake("method none learns from labels alone, and the teacher would not be asked. Give a method, as "
                      "--method kd, reviewkd or distpro, or train the student alone with `limbeck train`.")
    if verb != "train" and wiring.needs_teacher(job.method.name) and job.teacher is None:
        raise Mistake(f"method {job.method.name} needs a teacher; none was given. Train one with `limbeck train` and "
                      f"give its run's folder as --teacher, or a network with weights as --teacher NAME@CHECKPOINT.")


def _check_cache(verb: Verb, job: Job) -> None:
    if job.cache.folder is None:
        return
    if verb == "train":
        raise Mistake("a cache stores outputs of a teacher; `limbeck train` has none. Leave cache.folder out.")
    if job.training.teacher_batch_statistics:
        raise Mistake("a cache stores what a teacher says of one image; with training.teacher_batch_statistics=true "
                      "that depends on the images beside it. Leave one of the two out.")
    if job.data.mixup or job.data.cutmix:
        raise Mistake("a cache stores what a teacher says of single images; with data.mixup or data.cutmix it looks at "
                      "mixtures, and hardly ever at one twice. Leave them, or the cache, out.")


def _process_file(text: str) -> Path:
    path = Path(text)
    return Run(path).process if path.is_dir() else path


def found_process(verb: Verb, job: Job, folder: Path, *, device: str | None = None,
                  quiet: bool = False) -> Recorded | None:
    """The process to replay: from its file, or searched first where the method's paper does so."""
    if verb != "distill" or job.process.use == "equal":
        return None
    if job.process.file is not None:
        return Recorded.load(_process_file(job.process.file))
    if not searches(job.method.name):
        return None
    return Recorded.load(execute("search", job, folder / "search", device=device, quiet=quiet).process)


def _train(parts: Parts, run: Run, found: Recorded | None, profile: bool) -> None:
    job = parts.job
    teacher_score = look_at_teacher(parts)
    watched = Watched(run.folder / "profile", parts.display, parts.accelerator.device)
    trainer = _trainer(parts, run, found, watched if profile and ranks.rank() == 0 else None)
    memory.start_counting(parts.accelerator.device)
    trainer.fit()
    for network in parts.remembering.networks.values() if parts.remembering else ():
        network.cache.close()
    if ranks.rank() == 0:
        if isinstance(trainer.companion, Search):
            trainer.companion.recorded(_how(parts)).save(run.process)
        trained = [record for record in run.records() if record["kind"] == "train"]
        student, seconds = trainer.method.student(), sum(record["seconds"] for record in trained)
        peak = max((record.get("peak_memory") or 0 for record in trained), default=0) or None
        run.save_weights(student)
        run.write_json("network.json", describe(student, parts.data.classes, parts.task))
        run.write_json("result.json", {
            "verb": parts.verb, **_scores(run, parts.task), "seconds": seconds, "peak_memory": peak,
            "steps": trainer.clock.steps, "student_parameters": sum(p.numel() for p in student.module.parameters()),
            "teacher": None if job.teacher is None or parts.teacher is None else
            {"name": job.teacher.name, "sample_accuracy": teacher_score}})
        last = _scores(run, parts.task)["test"]["last"]
        parts.display.say(f"{parts.verb} finished in {duration(seconds)} with at most {memory.told(peak)} of memory: "
                          f"test {parts.task.score} {last[parts.task.score]:.4g}; everything is in {run.folder}")


def _trainer(parts: Parts, run: Run, found: Recorded | None, profile: Profile | None) -> Trainer:
    job, stages, companion = parts.job, staged(parts, found), None
    schedule, settings = job.schedule, job.training
    _ = parts.remembering  # before random states are set
    if parts.verb == "search":
        schedule, companion = job.search.schedule, _search(parts, stages[0].method)
        settings = settings.model_copy(update={"epochs": search_epochs(job)})
    torch.manual_seed((job.seed + 1) * 1000 + ranks.rank())  # dropout differs from rank to rank
    splits: dict[str, Batches] = {
        name: parts.batches(name, train=False) for name in ("test", "select") if name in parts.splits}
    views = [parts.view(kind) for kind in max((stage.method.views for stage in stages), key=len)]
    training = parts.batches("train", train=True, views=views, mixing=parts.mixing)
    return Trainer(stages, parts.task, training, splits, run, settings,
                   optimizer=job.optimizer, optimizers=job.optimizers, schedule=schedule, accelerator=parts.accelerator,
                   companion=companion, display=parts.display, profile=profile)


def staged(parts: Parts, found: Recorded | None) -> list[Stage]:
    """What is trained, one stage after the other: the method's own, or its one stage under a search or a process.

    In the last one a moving average of the student goes along, where that is asked for.

    Args:
        parts: The job's.
        found: The process to replay, if there is one.
    """
    if parts.verb == "search":
        return [parts.stage(under_search(parts.method, parts.job))]
    stages, settings = parts.stages, parts.job.training
    if found is not None or parts.job.process.use == "equal":
        method, note = under_replay(parts.method, parts.job, found)
        stages = [parts.stage(method)]
        if note:
            parts.display.say(note)
    if settings.ema is None:
        return stages
    averaged = with_average(stages[-1].method, settings.ema, warm_up=settings.ema_warm_up, deploy=settings.deploy_ema)
    return [*stages[:-1], replace(stages[-1], method=averaged)]


def search_epochs(job: Job) -> float:
    """Length of a search."""
    return job.search.epochs or max(1.0, round(job.training.epochs * _SEARCH_SHARE))


def _search(parts: Parts, method: Method) -> Search:
    settings, device = parts.job.search, parts.accelerator.device
    assert isinstance(method.process, Learned)
    held_out = parts.batches("held_out", train=True, size=settings.held_out_batch, augment=settings.held_out_augment)
    return Search(method, parts.task, held_out.at, estimator=settings.estimator, order=settings.order,
                  every=settings.every, optimizer=settings.optimizer, lr=settings.lr, betas=settings.betas,
                  mode=settings.held_out_mode, autocast=engine.autocast(parts.job.training.precision, device)[0])


def _how(parts: Parts) -> dict[str, Any]:
    """How a process was found, for its file."""
    job, schedule = parts.job, parts.job.search.schedule
    return {**parts.about(), "settings": job.model_dump(mode="json"),
            "drops": list(schedule.drops) if schedule.kind == "steps" else []}


def look_at_teacher(parts: Parts) -> float | None:
    """The teacher's score on a sample; None where it is not asked for.

    Raises:
        Mistake: If guessing could have it.
    """
    if parts.teacher is None or not parts.job.training.check_teacher:
        return None
    split, at_once = parts.splits["train"], parts.data.at_once
    if not split.labelled or parts.teacher.unmatched is not None:
        return None
    count = min(len(split), 1000 if parts.task.name == "classification" else 100)
    chosen = split.subset(torch.linspace(0, len(split) - 1, count).long())
    batches = Batches(chosen, min(at_once, 250), train=False, device=parts.accelerator.device)
    return check_teacher(parts.teacher, batches, parts.task, len(parts.data.classes), parts.data.fingerprint)


def _scores(run: Run, task: Task) -> dict[str, Any]:
    """Last, best by the selection split, and the test's peak under its own name; all of the last stage."""
    records = run.records()
    records = [record for record in records if record["stage"] == records[-1]["stage"]]

    def scores(kind: str) -> list[Mapping[str, Any]]:
        return [{k: v for k, v in r.items() if k not in ("kind", "stage")} for r in records if r["kind"] == kind]

    def top(some: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        return reduce(lambda best, one: one if beats(one[task.score], best[task.score], task.better) else best, some)

    tests, selected = scores("test"), scores("select")
    result: dict[str, Any] = {"test": {"last": tests[-1], "peak": top(tests)}}
    if selected:
        best = top(selected)
        result["select"] = {"best": best, "test_at_best": next(r for r in tests if r["step"] == best["step"])}
    return result


def evaluate(folder: Path, *, source: str | None = None, device: str | None = None) -> dict[str, float]:
    """Score a finished run's network on its own data's test split, or on other data.

    Raises:
        Mistake: If the run is not finished, or the data does not fit it.
    """
    finished = Finished.reopen(folder, source=source, device=device)
    return score(finished.network, finished.test(), finished.task)


def resume(folder: Path, *, device: str | None = None, quiet: bool = False) -> Run:
    """Go on with a run as if it had never stopped.

    Raises:
        Mistake: If the folder holds no run that was begun.
    """
    run = Run(folder)
    job, verb = run.job(), run.read_json("about.json").get("verb")
    if verb not in ("train", "search", "distill"):
        raise Mistake(f"{folder} was not begun yet: it holds no about.json. Give the first command again.")
    return execute(verb, job, folder, device=device, quiet=quiet)
