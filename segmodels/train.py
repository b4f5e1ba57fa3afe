"""Train a network on shards: a run folder with the best and the last weights, the history and its curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from segdata.errors import FolderError, JobFailed, OptionError, Stopped
from segdata.formats.files import relative_posix, sha256_file
from segdata.formats.folders import (
    OutputFolder,
    adopt,
    check_output_folder,
    is_finished,
    output_folder,
    refuse_busy,
    refuse_difference,
)
from segdata.records import INDEX_JSON, RUN_JSON, seal
from segmodels.checkpoints import load_fitting_weights, load_state
from segmodels.cluster import ALONE, Cluster, make_strategy
from segmodels.config import (
    BEST,
    LAST,
    MEASURED,
    METRICS_JSON,
    OWNED,
    BestMetric,
    MatteScores,
    RunRecord,
    Scores,
    ShardsReference,
    SplitScores,
    TrainConfig,
    read_run,
    write_scores,
)
from segmodels.inputs import has_mattes
from segmodels.loop import Loop, Run, read_progress, write_epoch
from segmodels.losses import Objective, loss
from segmodels.meeting import meet
from segmodels.models import build_model, encoder_layers
from segmodels.quiet import keras
from segmodels.reading import (
    FROM_SCRATCH,
    Reading,
    Start,
    read_options,
    samples_by_step,
    training_batches,
    validation_batches,
)
from segmodels.steps import backend, make_optimizer, make_steps, seed_weights
from segmodels.validation import validate_masks, validate_mattes

NO_VALIDATION = (
    "The shards have no validation split, so best.keras is the epoch with the lowest training loss. "
    "`segdata split --validation 0.1` makes one."
)
NO_MATTES = "plain_background needs mattes, which these shards do not hold, so it does nothing."
NOTHING_TO_RESUME = "there is no run to go on with, so it begins."
IS_OVER = "The run is over; nothing was done. More --epochs, or a larger --early-stopping, would go on."

_ONLY_THE_END = ("epochs", "early_stopping")  # options that decide when a run ends, and nothing before that


@dataclass(frozen=True)
class TrainReport:
    """What a run came to. ``best_name`` is the column of history.csv that best.keras was chosen by."""

    run: Path
    model: str
    parameters: int
    samples: dict[str, int]
    epochs: int
    best_epoch: int
    best_name: str
    best_value: float
    validation: Scores | MatteScores | None
    notes: tuple[str, ...]


def train(
    shards: Path,
    out: Path,
    config: TrainConfig,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    start: Start = FROM_SCRATCH,
    resume: bool = False,
    cluster: Cluster = ALONE,
) -> TrainReport:
    """Train ``config.model`` on the split ``train`` of ``shards`` and fill the run folder ``out``.

    best.keras is the epoch with the highest mean IoU on the split ``validation`` (for mattes the lowest mean absolute
    error), the first of equals; without that split the one with the lowest training loss. The split ``test`` is never
    read. ``progress`` gets a line per epoch; a bar shows on stderr where that is a terminal. The seed sets the random
    state of Python, NumPy and Keras: on one CPU the same call writes the same bytes.

    With ``resume`` a run that was stopped goes on after its last whole epoch, as if it had not been stopped; one that
    is finished goes on where ``config`` lets it have more epochs. In a ``cluster`` the first worker writes ``out``, and
    the others read it to resume.
    OptionError, FolderError, RecordError or SegdataError before anything in ``out`` changes; JobFailed where the loss
    stops being a number: then ``out`` stays unfinished, and holds the epochs before. Stopped where Ctrl-C ends it.
    """
    if resume and overwrite:
        raise OptionError("--resume goes on with a run, --overwrite starts it again. Give one of them.")
    config = msgspec.convert(msgspec.to_builtins(config), TrainConfig)  # 1 where 1.0 is meant is written as 1.0
    data = read_options(shards, config, start, cluster)
    plan = _plan(config, sha256_file(shards / INDEX_JSON), data.started)
    run = _run_so_far(data, out, plan, resume)
    if run.rows and run.is_over and is_finished(out, RUN_JSON):
        if not (out / BEST).is_file():
            raise FolderError(f"{out / BEST}: is missing. Put it back, or train into another --out.")
        return _report(data, out, read_run(out).parameters, run, (IS_OVER,))
    is_new = not (out / LAST).is_file() and not (out / RUN_JSON).is_file()
    overwrite = overwrite or is_new  # of a run that was stopped before its first epoch ended there is nothing to lose
    if cluster.is_chief:
        _check_folder(out, run, shards, plan, overwrite)
    if resume and not run.rows:
        progress(f"note: {out}: {NOTHING_TO_RESUME}")
    trainee = _trainee(data, run, out, plan, progress)
    if not cluster.is_chief:
        _learn(trainee, data, run, None, out, progress)
        return _report(data, out, trainee.model.count_params(), run)
    if run.rows and is_finished(out, RUN_JSON):
        adopt(out, OWNED, plan, RUN_JSON)
    try:
        with output_folder(out, RUN_JSON, OWNED, overwrite, [shards], "train", plan) as folder:
            _begin(trainee.model, out, folder, run)
            _learn(trainee, data, run, folder, out, progress)
            _write_scores(data, out, run)
            folder.finish(seal(_run_record(data, out, trainee.model.count_params(), run)))
    except Stopped as error:
        error.more = ("--resume",)
        raise
    return _report(data, out, trainee.model.count_params(), run)


# ---- what is there already -------------------------------------------------------------------------------------------

Plan = dict[str, str | int | float | bool | None]


def _plan(config: TrainConfig, shards_sha256: str, started: tuple[str | None, str | None]) -> Plan:
    """What decides the weights of a run after each epoch, a key for each option, augmentations' own included."""
    options = {name: value for name, value in msgspec.to_builtins(config).items() if name not in _ONLY_THE_END}
    options["augment"].pop("name")  # of a preset or file; what is in it counts
    plan: Plan = {"shards": shards_sha256, "weights": started[0], "encoder-weights": started[1], "backend": backend()}
    return plan | dict(_flat(options, ""))


def _flat(options: dict[str, Any], before: str) -> Iterator[tuple[str, str | int | float | bool | None]]:
    """``{"augment": {"rotate": {"probability": 0.1}}}`` as ``augment.rotate.probability``; lists as JSON."""
    for name, value in options.items():
        key = f"{before}{name}".replace("_", "-")
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        elif value is None or isinstance(value, (str, int, float, bool)):
            yield key, value
        else:
            yield key, msgspec.json.encode(value).decode()


def _run_so_far(data: Reading, out: Path, plan: Plan, resume: bool) -> Run:
    """The run in ``out`` that is to go on; a new one where there is none, or none is wanted. Changes nothing.

    FolderError where it was begun with other options, OptionError where it has more epochs than it shall have.
    """
    if not resume or not (out / LAST).is_file():
        return Run(data.config, data.best_name)
    if is_finished(out, RUN_JSON):
        record = read_run(out)
        before = _plan(record.config, record.shards.sha256, (record.weights_sha256, record.encoder_weights))
        refuse_difference(out, before | {"backend": record.backend}, plan, "was trained", "to go on")
    else:
        check_output_folder(out, RUN_JSON, OWNED, False, [data.folder], plan)
    run = read_progress(out / LAST, data.config, data.best_name)
    if len(run.rows) > data.config.epochs:
        raise OptionError(
            f"--epochs {data.config.epochs}: {out} has {len(run.rows)} epochs already. Give as many or more."
        )
    return run


def _check_folder(out: Path, run: Run, shards: Path, plan: Plan, overwrite: bool) -> None:
    """FolderError where ``out`` cannot be written to, or holds what would be lost; changes nothing."""
    if run.rows:
        refuse_busy(out)
        return
    if (out / LAST).is_file() and not is_finished(out, RUN_JSON) and not overwrite:
        refuse_busy(out)
        raise FolderError(
            f"{out}: holds a run that was stopped. Pass --resume to go on, or --overwrite to start again."
        )
    check_output_folder(out, RUN_JSON, OWNED, overwrite, [shards], plan)


def _begin(model: Any, out: Path, folder: OutputFolder, run: Run) -> None:
    """Leave in ``out`` what belongs to the run so far, and no more."""
    if not run.rows:
        folder.remove_all_but(())
        return
    (out / RUN_JSON).unlink(missing_ok=True)
    folder.remove_all_but([name for name in _files(out) if not MEASURED.fullmatch(name)])  # of an earlier best.keras
    write_epoch(model, out, run)  # it may have been stopped between these files


def _files(out: Path) -> list[str]:
    return [path.name for path in out.iterdir()]


# ---- the run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trainee:
    """A network, its optimizer, and where they are."""

    model: Any
    optimizer: Any
    strategy: Any

    @property
    def replicas(self) -> int:
        """On how many devices, here and elsewhere."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1


def _trainee(data: Reading, run: Run, out: Path, plan: Plan, progress: Callable[[str], None]) -> _Trainee:
    """The network as the run has it: with its first weights, or those of last.keras."""
    config = data.config
    if data.cluster.size > 1:
        meet(data.cluster, {**plan, "epochs": config.epochs, "epochs that are done": len(run.rows)}, progress)
    strategy = make_strategy(data.cluster) if backend() == "tensorflow" else None
    seed_weights(config.seed)
    with strategy.scope() if strategy else nullcontext(), _precision(config.mixed_precision):
        model = _network(data, run, progress)
        optimizer = make_optimizer(
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            config.clip_norm / (strategy.num_replicas_in_sync if strategy else 1),  # each applies its share of the sum
            config.mixed_precision == "float16",
        )
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, jit_compile=False)  # so that it is saved with the weights
    if run.rows:
        load_state(model, out / LAST)
    return _Trainee(model, optimizer, strategy)


def _network(data: Reading, run: Run, progress: Callable[[str], None]) -> Any:
    """The network, with the weights that it begins with where no epoch is done."""
    config, start = data.config, data.start
    weights = None if run.rows else start.encoder_weights
    model = build_model(
        config.model, len(data.classes), config.channels, encoder=config.encoder, encoder_weights=weights
    )
    if start.weights is not None and not run.rows:
        found = load_fitting_weights(model, start.weights)
        progress(f"note: {len(found.loaded)} layers begin with the weights of {start.weights}.")
        if found.left:
            progress(f"note: it has none that fit for {', '.join(found.left)}.")
    if config.freeze_encoder:
        for layer in encoder_layers(model):
            layer.trainable = False
    return model


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Layers made in the block compute in that type; their weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _learn(
    trainee: _Trainee,
    data: Reading,
    run: Run,
    folder: OutputFolder | None,
    out: Path,
    progress: Callable[[str], None],
) -> None:
    """All epochs that are left."""
    objective = Objective(data.config.loss, data.class_weights)
    steps = make_steps(trainee.model, trainee.optimizer, objective, trainee.strategy)
    loop = Loop(
        model=trainee.model,
        steps=steps,
        batches=training_batches(data, len(run.rows)),
        samples=samples_by_step(data),
        validate=_validation(data, steps, max(1, data.config.batch_size // trainee.replicas)),
        out=out if folder else None,
        folder=folder,
        progress=progress,
    )
    loop.go(run)


def _validation(data: Reading, steps: Any, batch_size: int) -> Callable[[], tuple[float, Scores | MatteScores]] | None:
    """Every worker validates on all of the split, on one device, so that all decide alike."""
    samples = data.samples.get("validation")
    if not samples:
        return None
    read = validation_batches(data, batch_size)
    score = partial(loss(data.config.loss), class_weights=data.class_weights)

    def validate() -> tuple[float, Scores | MatteScores]:
        found: tuple[float, Scores | MatteScores]
        if data.inputs.target == "matte":
            found = validate_mattes(steps, read(), samples, score)
            counts = found[1].mae is not None
        else:
            found = validate_masks(steps, read(), samples, score, data.classes)
            counts = found[1].mean_iou is not None
        if not counts:
            raise JobFailed(f"{data.folder}: no pixel of split 'validation' counts; all are ignored.")
        return found

    return validate


# ---- what it came to -------------------------------------------------------------------------------------------------


def _report(data: Reading, out: Path, parameters: int, run: Run, notes: tuple[str, ...] = ()) -> TrainReport:
    if "validation" not in data.samples:
        notes = (*notes, NO_VALIDATION)
    if data.config.augment.plain_background and not has_mattes(data.index):
        notes = (*notes, NO_MATTES)
    return TrainReport(
        run=out,
        model=data.config.model,
        parameters=parameters,
        samples=data.samples,
        epochs=len(run.rows),
        best_epoch=run.best.epoch,
        best_name=run.best_name,
        best_value=run.best.value,
        validation=run.best_scores,
        notes=notes,
    )


def _write_scores(data: Reading, out: Path, run: Run) -> None:
    sha256 = sha256_file(data.folder / INDEX_JSON)
    scores = SplitScores(shards_sha256=sha256, network_size=run.best_scores) if run.best_scores else None
    write_scores(out / METRICS_JSON, {"validation": scores} if scores else {})


def _run_record(data: Reading, out: Path, parameters: int, run: Run) -> RunRecord:
    try:
        path = relative_posix(data.folder, out)
    except FolderError:  # on another drive
        path = None
    return RunRecord(
        model=data.config.model,
        target=data.inputs.target,
        label_map=data.index.label_map,
        geometry=data.inputs.geometry,
        input_channels=data.config.channels,
        parameters=parameters,
        config=data.config,
        backend=backend(),
        shards=ShardsReference(path=path, sha256=sha256_file(data.folder / INDEX_JSON)),
        epochs=len(run.rows),
        best_epoch=run.best.epoch,
        best_metric=BestMetric(name=run.best_name, value=run.best.value),
        class_weights=data.class_weights,
        weights_sha256=data.started[0],
        encoder_weights=data.started[1],
    )
