"""From a composed configuration to the typed settings of a run: epochs become steps, names become versions.

This is where the scale acts: it multiplies lengths and widths that the command line did not name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, build, coerce
from lthbench.data.known import FOLDERS, SETS, standin
from lthbench.data.sets import Augment, DataSettings, describe_file
from lthbench.evaluation.settings import CORRUPTIONS, Corruptions, published
from lthbench.models import FILES, PRETRAINED, ModelSettings, digest
from lthbench.programs.candidates import Recalibration, Soup
from lthbench.programs.compressing import Compression
from lthbench.programs.retraining import Retrain, Rewind
from lthbench.programs.run import Found, Run
from lthbench.programs.schedules import Schedule
from lthbench.programs.teaching import DENSE, Teacher
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CRITERIA, CriterionSettings
from lthbench.pruning.density import parse_sparsity
from lthbench.pruning.dynamics import PLACES, method_of
from lthbench.pruning.own import own_settings
from lthbench.pruning.prunable import ROLES, known
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Structure
from lthbench.stages.prune import Pruner
from lthbench.training.recipe import Distill, Recipe

Config = Mapping[str, Any]
_RECIPE = (
    "optimizer", "lr", "batch", "momentum", "nesterov", "betas", "eps", "weight_decay", "decay", "label_smoothing",
    "clip", "drop_last", "precision", "compile", "l1", "l1_scales",
)  # fmt: skip
_SCORING = ("rounds", "spacing", "regrow", "batches", "batch", "per_class", "mode", "dtype")


def resolve(config: Config, explicit: set[str], told: Collection[str] | None = None, hold_out: bool = False) -> Run:
    """The run that a configuration describes. Raises UserError for whatever the configuration alone shows wrong.

    `explicit` keys are not touched by the scale; `told` are those that are no defaults (None: not known). `hold_out`:
    a tenth of the training images, as Zimmer et al. do, where no validation images are.
    """
    scale = _cached(_scale, config["scale"])
    data = _cached(_data, config["dataset"], data_root(config), scale.standin)
    if hold_out and not data.validation:
        data = replace(data, validation=data.samples // 10)
    model, initialiser, weights, weights_as, weights_output, path = _cached(
        _model, config["model"], 1.0 if "model.width" in explicit else scale.width, data
    )
    lengths = {"train.epochs", "train.iterations"} & explicit
    slim = {"l1_scales": config["pruner"].get("l1", 0.0)} if config["train"]["l1_scales"] is None else {}
    recipe, steps, every, shrunk = _cached(_train, {**config["train"], **slim}, scale, bool(lengths), data)
    rewind = _shrink(
        config["rewind"], "k", 1.0 if config["rewind"]["unit"] == "ratio" else shrunk, "rewind.k" in explicit
    )
    retrain = _shrink(config["retrain"], "epochs", shrunk, "retrain.epochs" in explicit)
    retrain = _shrink(retrain, "total", shrunk, "retrain.total" in explicit)
    compress = _shrink(config["compress"], "epochs", shrunk, "compress.epochs" in explicit)
    seed = coerce(config["seed"], int, "seed")
    sparsity = config["sparsity"]
    parse_sparsity(sparsity)
    run = Run(
        model=model,
        initialiser=initialiser,
        data=data,
        recipe=recipe,
        steps=steps,
        pruner=_pruner(_shortened(config["pruner"], shrunk, explicit), seed, data, config["structure"], recipe, steps),
        allocation=_cached(_allocation, config["allocation"]),
        prunable=_preset(config["prunable"]),
        schedule=_cached(_schedule, config["schedule"]),
        sparsity=str(sparsity),
        rewind=_cached(_rewind, rewind),
        retraining=_cached(_retrain, retrain),
        control=config["control"]["name"],
        soup=_cached(_soup, config["soup"]),
        recalibration=_cached(_recalibration, config["recalibrate"]),
        corruptions=_cached(_corruptions, config["robustness"], data),
        compression=_cached(_compression, compress),
        ticket=_ticket(config),
        select=coerce(config["select"], str, "select"),
        seed=seed,
        every=every,
        weights=weights,
        weights_as=weights_as,
        weights_output=weights_output,
        teacher=_cached(_teacher, config["train"]["distill"]),
        weights_path=path,
    )
    if told is not None and run.given_dense and run.rounds and run.pruner.program == "after_training":
        _known_training(run.retraining.name, told)
    return run


@dataclass(frozen=True)
class Scale(Settings):
    """How much smaller than published: see conf/scale/paper.yaml."""

    name: str
    length: float
    steps: int | None
    width: float
    seeds: int | None
    sparsities: int | None
    standin: bool

    def __post_init__(self) -> None:
        if not self.name.replace("-", "_").isidentifier():
            raise UserError(f"scale.name: '{self.name}' is no plain word")  # it is part of a file's name
        for name in ("length", "steps", "width", "seeds", "sparsities"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"scale.{name}: {value} is not positive")


def _scale(section: dict[str, Any]) -> Scale:
    return build(Scale, section, "scale")


def data_root(config: Config) -> str:
    """Where data sets are looked for."""
    return str(config["data"] or os.environ.get("LTHBENCH_DATA") or "data")


def _cached(function: Callable[..., Any], section: Config, *rest: Any) -> Any:
    """Call `function(section, ...)` once for each distinct section: a grid repeats most of them."""
    return _memo(function, json.dumps(section, sort_keys=True, default=str), *[_Frozen(r) for r in rest])


class _Frozen:
    """An argument compared by its text."""

    def __init__(self, value: Any) -> None:
        self.value, self.text = value, repr(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@lru_cache(maxsize=4096)
def _memo(function: Callable[..., Any], section: str, *rest: _Frozen) -> Any:
    return function(json.loads(section), *[r.value for r in rest])


def look_again() -> None:
    """Forget what was read from files: they may have changed since the last grid."""
    _memo.cache_clear()


def _data(section: dict[str, Any], root: str, use_standin: bool) -> DataSettings:
    name = coerce(section["name"], str, "dataset.name")
    if name == "???":
        what = ("folder, dataset=imagefolder", "DIR") if "size" in section else ("file, dataset=npz", "FILE.npz")
        raise UserError(f"dataset.name: name the {what[0]} dataset.name={what[1]}")
    if use_standin and (name in SETS or name in FOLDERS):
        section = {k: v for k, v in section.items() if k not in ("size", "resize", "workers")}
        if name in FOLDERS:  # random parts are cut out of image files only
            section["augment"] = {"pad": 4, "flip": section["augment"]["flip"]}
        name = standin(name)
        section |= {
            "name": name,
            "version": "official",
            "validation": min(coerce(section["validation"], int, "dataset.validation"), 64),
            "train_images": None,
        }
    if name.endswith(".npz"):
        found = describe_file(name)
        section |= {**found, "version": section["version"] or found["version"]}
    elif "size" in section:
        from lthbench.data.folders import describe_folder

        if (size := coerce(section["size"], int, "dataset.size")) < 1:
            raise UserError(f"dataset.size: {size} is not positive")
        resize = coerce(section["resize"], int | None, "dataset.resize")
        found = describe_folder(name, root, size)
        section |= {**found, "version": section["version"] or found["version"]}
        section["resize"] = round(size * 256 / 224) if resize is None else resize
    return build(DataSettings, section | {"root": root}, "dataset")


def _model(section: dict[str, Any], width: float, data: DataSettings) -> tuple[Any, ...]:
    own = ("library", "name", "init", "weights", "weights_as", "weights_output", "pretrained")
    args = {k: v for k, v in section.items() if k not in own}
    name = coerce(section["name"], str, "model.name")
    if library := section.get("library"):
        name, args = _from_library(library, name, args)
    if "width" in args:
        args["width"] = coerce(args["width"], float, "model.width") * width
        if args["width"] <= 0:
            raise UserError(f"model.width: {args['width']} is not positive")
    model = ModelSettings.of(name, args, data.shape, data.classes)
    path = coerce(section["weights"], str | None, "model.weights")
    if path and re.fullmatch("[0-9a-f]{64}", path):  # says which file, not where: enough unless it is computed with
        sha, path = path, None
    else:
        sha = digest(path) if path else None
    if coerce(section.get("pretrained", False), bool, "model.pretrained"):
        if sha:
            raise UserError("model.weights, model.pretrained: one of them")
        sha = PRETRAINED
    initialiser = coerce(section["init"], str, "model.init")
    said = (coerce(section[key], str, f"model.{key}") for key in ("weights_as", "weights_output"))
    return model, initialiser, sha, *said, path


def _from_library(library: str, name: str, args: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a network that is not ours: its version, or its file's content, names it."""
    if name == "???":
        raise UserError("model.name: name the network, model=timm model.name=NAME or model=FILE.py")
    if library == "timm":
        return "timm", args | {"name": name, "version": version("timm")}
    sha = digest(name, "model")
    FILES[sha] = name
    return "file", args["args"] | {"sha256": sha}


def _train(
    section: dict[str, Any], scale: Scale, explicit: bool, data: DataSettings
) -> tuple[Recipe, int, int | None, float]:
    """The recipe, its length in steps, the distance of measured points in steps, and how much the scale shortened."""
    schedule = section["schedule"]
    fake = build(Recipe, {k: section[k] for k in _RECIPE} | {"schedule": {"kind": "constant"}}, "train")
    per_epoch = fake.steps_per_epoch(data.train_samples)
    epochs = coerce(section["epochs"], float | None, "train.epochs")
    iterations = coerce(section["iterations"], int | None, "train.iterations")
    if (epochs is None) == (iterations is None):
        both = f"train.epochs={section['epochs']}, train.iterations={section['iterations']}"
        raise UserError(f"{both}: the length is one of them, the other one null")
    steps = iterations if iterations is not None else round((epochs or 0) * per_epoch)
    if steps < 0:
        raise UserError(f"train.{'epochs' if iterations is None else 'iterations'}: the length is negative")
    factor = 1.0 if explicit else scale.length
    limit = None if explicit else scale.steps
    scaled = min(max(1, round(steps * factor)), limit or steps) if steps else 0

    def in_steps(value: Any, unit: Any, where: str) -> int:
        number = coerce(value, float, where)
        if unit not in ("ratio", "epoch", "iteration"):
            raise UserError(f"{where}: unit '{unit}' is not ratio, epoch or iteration")
        of_all = {"ratio": steps, "epoch": per_epoch, "iteration": 1}[unit]
        return round(number * of_all * (scaled / steps if steps else 1))

    milestones = coerce(schedule["milestones"], tuple[float, ...], "train.schedule.milestones")
    made = {
        "kind": schedule["kind"],
        "gamma": schedule["gamma"],
        "milestones": [in_steps(m, schedule["unit"], "train.schedule.milestones") for m in milestones],
        "warmup": in_steps(schedule["warmup"], schedule["unit"], "train.schedule.warmup"),
        "total": scaled if schedule["kind"] in ("cosine", "linear") else 0,
    }
    for key in schedule:
        if key not in (*made, "unit"):
            raise UserError(f"unknown key 'train.schedule.{key}'")
    recipe = build(Recipe, {k: section[k] for k in _RECIPE} | {"schedule": made}, "train")
    every = None
    if section["evaluate"]["every"] is not None:
        if (distance := coerce(section["evaluate"]["every"], float, "train.evaluate.every")) <= 0:
            raise UserError(f"train.evaluate.every: {distance} is not positive")
        every = max(1, in_steps(distance, section["evaluate"]["unit"], "train.evaluate.every"))
    return recipe, scaled, every, scaled / steps if steps else 1.0


def _teacher(section: dict[str, Any]) -> Teacher | None:
    """Who teaches pruned networks: the dense one, or a file."""
    who = coerce(section["teacher"], str | None, "train.distill.teacher")
    how = build(Distill, {k: v for k, v in section.items() if k != "teacher"}, "train.distill")
    if who is None or who == DENSE:
        return None if who is None else Teacher(DENSE, how)
    return Teacher(digest(who, "train.distill.teacher"), how, who)


def _known_training(retrain: str, told: Collection[str]) -> None:
    """Refuse to guess how given weights were trained, where a way of retraining depends on it."""
    if retrain in ("lrw", "replay") and "train" not in told and "train.schedule.kind" not in told:
        raise UserError(f"retrain={retrain} replays the training that made model.weights: say which, train=NAME")
    if retrain == "allr" and not {"train", "train.epochs", "train.iterations"} & set(told):
        raise UserError("retrain=allr needs the length of the training that made model.weights: say train.epochs=N")


def _shrink(section: Config, key: str, factor: float, explicit: bool) -> Config:
    """A section whose length the scale shortens with the training, unless the command line names it."""
    if factor == 1.0 or explicit or type(section[key]) not in (int, float):
        return section
    return {**section, key: section[key] * factor}


def _shortened(section: Config, factor: float, explicit: set[str]) -> Config:
    """A pruner's places in training, shortened with it."""
    for key, unit in PLACES.items():
        if key in section and section.get(unit) != "ratio":
            section = _shrink(section, key, factor, f"pruner.{key}" in explicit)
    return section


def _pruner(section: Config, seed: int, data: DataSettings, structure: Config, recipe: Recipe, steps: int) -> Pruner:
    for key in ("criterion", "program"):
        if key not in section:
            raise UserError(
                f"pruner.{key} is missing; its YAML names a criterion and a program (after_training, at_init, ...)"
            )
    name = coerce(section["criterion"], str, "pruner.criterion")
    program = coerce(section["program"], str, "pruner.program")
    together = _cached(_structure, structure)
    if method := method_of(name, program):
        how = {k: section[k] for k in _SCORING if k in section and method.data}
        said = {k: v for k, v in section.items() if k not in ("criterion", "program", "l1", *how)}
        found = method.settings(said, steps, recipe.steps_per_epoch(data.train_samples))
        how |= {"data": replace(data, augment=Augment()), "seed": seed} if method.data else {}
        return Pruner(found, program, build(Scoring, how, "pruner") if method.data else None, together)
    how = {k: section[k] for k in _SCORING if k in section}
    args = {k: v for k, v in section.items() if k not in ("criterion", "program", *how)}
    if name == "???":
        raise UserError("pruner.criterion: name the file, pruner=FILE.py")
    if name.endswith(".py"):
        criterion = own_settings(name, args, seed)
        how = _meant(how, criterion.known.data)
    else:
        if name in CRITERIA:
            hints = {k: v for k, v in CRITERIA[name].score.__annotations__.items() if v in (bool, int, float, str)}
            args = {k: coerce(v, hints[k], f"pruner.{k}") if k in hints else v for k, v in args.items()}
        criterion = CriterionSettings.of(name, args, seed)
    if criterion.known.data:
        how |= {"data": replace(data, augment=Augment()), "seed": seed}
    scoring = build(Scoring, how, "pruner")
    criterion.known.check(criterion.args, scoring)
    return Pruner(criterion, program, None if scoring == Scoring() else scoring, together)


def _structure(section: dict[str, Any]) -> Structure | None:
    made = build(Structure, section, "structure")
    return None if made.name == "weight" else made


def _meant(how: Config, data: bool) -> dict[str, Any]:
    """Of how a user's own criterion is scored, what has an effect: its YAML names all there is."""
    idle = set() if data else {"batches", "batch", "per_class"}
    if how.get("rounds") == 1:
        idle |= {"spacing", "regrow"}
    return {key: value for key, value in how.items() if key not in idle}


def _exact(value: Any, where: str) -> str:
    """A rate as exact text, one spelling a value."""
    try:
        return str(Fraction(str(value)))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{where}: {value!r} is not a number") from None


def _allocation(section: dict[str, Any]) -> Allocation:
    made = {"rates": {}, **section}
    for key in ("rates", "roles", "layers"):
        if isinstance(values := made.get(key), Mapping):
            made[key] = {name: _exact(value, f"allocation.{key}.{name}") for name, value in values.items()}
    if wrong := next((name for name in made.get("roles", ()) if name not in ROLES), None):
        raise UserError(f"allocation.roles: unknown '{wrong}'{near(wrong, ROLES)}")
    made["rates"] |= made.pop("roles", {})
    made |= {key: _exact(made[key], f"allocation.{key}") for key in ("quality", "linear") if key in made}
    return build(Allocation, made, "allocation")


def _schedule(section: dict[str, Any]) -> Schedule:
    return build(Schedule, section | {"rate": _exact(section["rate"], "schedule.rate")}, "schedule")


def _rewind(section: dict[str, Any]) -> Rewind:
    return build(Rewind, section, "rewind")


def _retrain(section: dict[str, Any]) -> Retrain:
    return build(Retrain, section, "retrain")


def _soup(section: dict[str, Any]) -> Soup:
    return build(Soup, section, "soup")


def _recalibration(section: dict[str, Any]) -> Recalibration:
    return build(Recalibration, section, "recalibrate")


def _compression(section: dict[str, Any]) -> Compression | None:
    made = build(Compression, section, "compress")
    return None if made.name == "none" else made


def _corruptions(section: dict[str, Any], data: DataSettings) -> Corruptions | None:
    if section["name"] == "none":
        return None
    here = "official" if published(data.name, data.root) else "computed"
    defaults = {"version": here, "corruptions": list(CORRUPTIONS)}
    return build(
        Corruptions, section | {k: section[k] or v for k, v in defaults.items()} | {"root": data.root}, "robustness"
    )


def _ticket(config: Config) -> Found | None:
    """A ticket by a result's id (or its first letters), or by a state's file."""
    name = coerce(config["ticket"], str | None, "ticket")
    if name is None:
        return None
    from lthbench.cli.tickets import by_file, by_result

    output = coerce(config["ticket_output"], str, "ticket_output")
    return by_file(name, output) if name.endswith(".safetensors") else by_result(name, output, config)


def _preset(value: Any) -> str:
    return known(coerce(value, str, "prunable"))
