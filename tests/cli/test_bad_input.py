"""Bad input is one line that says what is wrong and what is right; exit code 2; nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conf_files import GROUPS

Refused = Callable[[str], str]

MISSPELT = {  # group: (what is said, what is meant)
    "allocation": ("globl", "global"),
    "control": ("reinti", "reinit"),
    "dataset": ("cifar01", "cifar10"),
    "launcher": ("locl", "local"),
    "model": ("lenet_300_10", "lenet_300_100"),
    "pruner": ("magnitud", "magnitude"),
    "retrain": ("fintune", "finetune"),
    "rewind": ("erly", "early"),
    "robustness": ("cifr_c", "cifar_c"),
    "compress": ("dep", "deep"),
    "scale": ("smok", "smoke"),
    "schedule": ("iteratve", "iterative"),
    "soup": ("nne", "none"),
    "structure": ("filtr", "filter"),
    "table": ("demmo", "demo"),
    "tracking": ("nne", "none"),
    "train": ("renda_cifr", "renda_cifar"),
}


def test_every_group_is_covered():
    assert set(MISSPELT) == set(GROUPS)


@pytest.mark.parametrize("group", MISSPELT)
def test_unknown_option_names_the_nearest(group: str, refused: Refused):
    said, meant = MISSPELT[group]
    assert refused(f"{group}={said}") == f"no option '{said}' in group '{group}'; did you mean '{meant}'?"


@pytest.mark.parametrize("mark", ["", "+", "++"])
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("sparsty", "; did you mean 'sparsity'?"),
        ("train.schedule.knd", "; did you mean 'train.schedule.kind'?"),
        ("rewind.steps", "; choose from k, to, unit"),
        ("dataset.augment.flp", "; did you mean 'dataset.augment.flip'?"),
        ("trian.lr", "; did you mean 'train'?"),
        ("seed.x", ""),
    ],
)
def test_unknown_key(key: str, hint: str, mark: str, refused: Refused):
    assert refused(f"{mark}{key}=1") == f"unknown key '{key}'{hint}"


RANGE = "is not in 0 <= s < 1; it is the share of the prunable weights that goes"
LIST = "is a list where one value belongs; -m runs a grid, one run a value"
EXACT = [
    # deleting, packages, Hydra's own
    ("~sparsity", "'~sparsity': nothing can be deleted from the settings"),
    ("seed=0 ~pruner", "'~pruner': nothing can be deleted from the settings"),
    ("pruner@x=random", "'pruner@x=random': a choice has its place; leave out '@x'"),
    ("hydra.run.dir=x", "'hydra.run.dir' is Hydra's own; here grids and folders are set by -m, out and store"),
    ("+hydra.x=1", "'hydra.x' is Hydra's own; here grids and folders are set by -m, out and store"),
    # sparsity
    ("sparsity=1.2", f"sparsity: 1.2 {RANGE}"),
    ("sparsity=-0.1", f"sparsity: -0.1 {RANGE}"),
    ("sparsity=1", f"sparsity: 1 {RANGE}"),
    ("sparsity=abc", "sparsity: 'abc' is not a number with 0 <= s < 1, nor level:n"),
    ("sparsity=nan", "sparsity: 'nan' is not a number with 0 <= s < 1, nor level:n"),
    ("sparsity=inf", "sparsity: 'inf' is not a number with 0 <= s < 1, nor level:n"),
    ("sparsity=null", "sparsity: 'None' is not a number with 0 <= s < 1, nor level:n"),
    ("sparsity=level:x", "sparsity: 'level:x' is not level:n with n = 0, 1, 2, ..."),
    ("sparsity=level:-1", "sparsity: 'level:-1' is not level:n with n = 0, 1, 2, ..."),
    ("sparsity=level:99999999", "sparsity: level:99999999 takes more than 1000 rounds of schedule.rate=1/5"),
    ("schedule.rate=0.0001", "sparsity: 0.9 takes more than 1000 rounds of schedule.rate=1/10000"),
    # lists where one value belongs
    ("sparsity=0.5,0.9", f"'sparsity=0.5,0.9' {LIST}"),
    ("seed=0,1", f"'seed=0,1' {LIST}"),
    ("'seed=range(3)'", f"'seed=range(3)' {LIST}"),
    ("pruner=magnitude,random", f"'pruner=magnitude,random' {LIST}"),
    ("sparsity=[0.5,0.9]", "sparsity: [0.5, 0.9] is a list where one number belongs; -m runs a list, one run a value"),
    ("seed=[0,1]", "seed: [0, 1] is not a whole number; -m runs a list, one run a value"),
    ("-m 'sparsity=interval(0,1)'", "sparsity: a grid needs discrete values"),
    ("-m 'seed=range(0)'", "'seed=range(0)' holds no value"),
    # types and ranges of single values
    ("seed=-1", "seed: -1 is negative"),
    ("seed=1.5", "seed: 1.5 is not a whole number"),
    ("seed=true", "seed: True is not a whole number"),
    ("threads=0", "threads: 0 is not a whole number of at least 1"),
    ("threads=abc", "threads: 'abc' is not a whole number of at least 1"),
    ("jobs=0", "jobs: 0 is not a whole number of at least 1"),
    ("device=nosuch", "device: 'nosuch' is not cpu, cuda, cuda:0, cuda:1, ... or mps"),
    ("keep=al", "keep: unknown 'al'; did you mean 'all'?"),
    ("prunable=wieghts", "prunable: unknown preset 'wieghts'; did you mean 'weights'?"),
    ("out=null", "out: name a folder"),
    ("out=", "out: name a folder"),
    # training
    ("train.lr=abc", "train.lr: 'abc' is not a number"),
    ("train.lr=null", "train.lr: None is not a number"),
    ("train.lr=-1", "train.lr: -1.0 is negative"),
    ("train.batch=0", "train.batch: 0 is less than 1"),
    ("train.batch=1.5", "train.batch: 1.5 is not a whole number"),
    ("train.batch=2000 train.drop_last=true", "train.batch: 2000 is larger than the 1437 training samples"),
    ("train.precision=bf61", "train.precision: unknown choice 'bf61'; did you mean 'bf16'?"),
    ("train.optimizer=sgdd", "train.optimizer: unknown choice 'sgdd'; did you mean 'sgd'?"),
    ("train.schedule.kind=stp", "train.schedule.kind: unknown choice 'stp'; did you mean 'step'?"),
    ("train.schedule=step", "'train.schedule' is a group of settings; say train.schedule.kind=..."),
    ("train.schedule.milestones=3", "train.schedule.milestones: 3 is not a list"),
    ("train.schedule.milestones=[a]", "train.schedule.milestones[0]: 'a' is not a number"),
    ("train.schedule.warmup=-1", "train.schedule.warmup: -24 is negative"),
    ("train.schedule.unit=day", "train.schedule.warmup: unit 'day' is not ratio, epoch or iteration"),
    ("train.evaluate.every=0", "train.evaluate.every: 0.0 is not positive"),
    ("train.nesterov=true", "train.nesterov needs train.momentum > 0"),
    ("train.nesterov=maybe", "train.nesterov: 'maybe' is not true or false"),
    ("train.iterations=5", "train.epochs=20, train.iterations=5: the length is one of them, the other one null"),
    ("train.epochs=null", "train.epochs=None, train.iterations=None: the length is one of them, the other one null"),
    ("train.epochs=-1", "train.epochs: the length is negative"),
    # rewinding, retraining, schedules
    ("rewind=early rewind.k=2", "rewind.k: 2.0 ratio is step 960; training ends at 480"),
    ("rewind=early rewind.k=21 rewind.unit=epoch", "rewind.k: 21.0 epoch is step 504; training ends at 480"),
    ("rewind=early rewind.k=-0.1", "rewind.k: -0.1 ratio is step -48; training ends at 480"),
    ("rewind=lr rewind.k=481 rewind.unit=iteration", "rewind.k: 481.0 iteration is step 481; training ends at 480"),
    ("rewind=early rewind.unit=epocs", "rewind.unit: unknown choice 'epocs'; did you mean 'epoch'?"),
    ("retrain.epochs=21", "retrain=replay cannot run longer than the dense training it replays"),
    ("retrain.epochs=-1", "retrain.epochs: -1.0 is negative"),
    ("rewind=finetune retrain.lr=-1", "retrain.lr: -1.0 is negative"),
    ("rewind=none retrain.moments=restore", "retrain.moments=restore needs rewind=init or early"),
    ("retrain.moments=zro", "retrain.moments: unknown choice 'zro'; did you mean 'zero'?"),
    ("schedule.rate=1", "schedule.rate: '1' is not a number in 0 < r < 1"),
    ("schedule.rate=abc", "schedule.rate: 'abc' is not a number"),
    ("schedule.rounds=0", "schedule.rounds: 0 is less than 1"),
    (
        "schedule=geometric sparsity=level:3",
        "sparsity=level:n needs schedule=iterative or oneshot; geometric counts its own rounds",
    ),
    ("allocation=by_kind", "allocation=by_kind removes rates a round: say sparsity=level:n, not a sparsity"),
    (
        "allocation=by_kind schedule=geometric sparsity=level:2",
        "allocation=by_kind needs schedule=iterative or oneshot: its rates count the rounds",
    ),
    ("allocation.rates.linear=0.1", "allocation.rates mean nothing for allocation=global"),
    ("allocation=threshold", "allocation=threshold sets a threshold a round: say sparsity=level:n, not a sparsity"),
    ("allocation=smart_ratio", "allocation=smart_ratio needs convolutions: it fixes the density of linear layers"),
    ("allocation=given", "allocation.layers has no number for 'fc1.weight', nor for 'linear' layers"),
    (
        "allocation=given 'allocation.layers={fc1.wieght:0.1,linear:0.1}'",
        "allocation.layers: this network has no 'fc1.wieght'; did you mean 'fc1.weight'?",
    ),
    ("schedule=oneshot sparsity=0.999995", "sparsity: of 50200 prunable weights less than one would stay"),
    ("pruner=snip pruner.batch=1500", "pruner.batch: 1500 images are asked for, 1437 are there"),
    ("pruner=grasp pruner.per_class=150", "pruner.per_class: 1500 images are asked for, 1437 are there"),
    (
        "pruner=synflow pruner.mode=train",
        "pruner.mode: synflow needs eval; BatchNorm over one image of ones leaves no flow",
    ),
    ("pruner=prospr pruner.steps=-3", "pruner.steps: -3 is negative"),
    ("pruner=prospr pruner.batches=2", "pruner.batches: 2 for 3 steps; 1 for all, or 4, one each and one after"),
    ("pruner=obd pruner.labels=foo", "pruner.labels: unknown choice 'foo'; choose from all, given"),
    ("pruner=obs pruner.mode=train", "pruner.mode: gradients of single images need eval"),
    ("pruner=snip pruner.mode=evl", "pruner.mode: unknown choice 'evl'; choose from eval, train"),
    ("control=freeze_zero rewind=lr", "control=freeze_zero needs training before pruning, and rewind=init or early"),
    (
        "control=freeze train.weight_decay=0.1",
        "control=freeze needs train.weight_decay=0: the optimiser would shrink what is frozen",
    ),
    ("select=best", "select: unknown choice 'best'; did you mean 'best_test'?"),
    ("select=best_val_loss train.evaluate.every=1", "select=best_val_loss needs dataset.validation > 0"),
    ("select=best_test", "select=best_test needs train.evaluate.every"),
    # models and data
    ("model.width=0", "model.width: 0.0 is not positive"),
    ("model.weights=nosuch.pt", "model.weights: no file 'nosuch.pt'"),
    ("model.init=glorot", "model.init: unknown 'glorot'; did you mean 'glorot_normal'?"),
    ("model=file", "model.name: name the network, model=timm model.name=NAME or model=FILE.py"),
    (
        "model=lenet_5_caffe",
        "model lenet_5_caffe cannot take inputs of 1x8x8: its two 5x5 convolutions and poolings need at least 16x16",
    ),
    ("pruner=file", "pruner.criterion: name the file, pruner=FILE.py"),
    ("pruner=nosuch.py", "pruner: no file 'nosuch.py'"),
    ("table=demo pruner=nosuch.py", "pruner: no file 'nosuch.py'"),
    ("prunable=conv", "prunable=conv: this network has no such weights"),
    ("dataset=cifar10 dataset.version=rebuild", "dataset.version: cifar10 has no 'rebuild'; did you mean 'rebuilt'?"),
    ("dataset=npz", "dataset.name: name the file, dataset=npz dataset.name=FILE.npz"),
    ("dataset=npz dataset.name=nosuch.npz", "dataset: no file 'nosuch.npz'"),
    ("dataset.validation=1437", "dataset.validation: 1437 is not between 0 and the 1437 training images"),
    ("scale=smoke dataset.validation=abc", "dataset.validation: 'abc' is not a whole number"),
    ("dataset.normalise.std=[0]", "dataset.normalise.std: [0.0] are not all positive"),
    ("dataset.augment.pad=-1", "dataset.augment.pad: -1 is negative"),
    (
        "dataset=mnist",
        "data set mnist is not in 'data'; it needs the four *-ubyte.gz files in data/mnist, or dataset.download=true",
    ),
    (
        "dataset=cifar10 data=nosuch",
        "data set cifar10 is not in 'nosuch'; it needs cifar-10-batches-py/ or cifar10.npz in nosuch, "
        "or dataset.download=true",
    ),
    # scales
    ("scale.length=abc", "scale.length: 'abc' is not a number"),
    ("scale.steps=0", "scale.steps: 0 is not positive"),
    ("scale.name=../x", "scale.name: '../x' is no plain word"),
    # tables
    ("only=dense", "only=dense chooses rows of a table; name one with table=NAME"),
    ("table=demo only=dens_", "only=dens_: no such row in table demo; did you mean 'dense'?"),
    ("table=demo,lth_lenet", "'table=demo,lth_lenet': one table a command"),
    ("table=[demo]", "'table=[demo]': table is chosen by name; did you mean 'demo'?"),
    ("table=demo sparsity=2", f"sparsity: 2 {RANGE}"),
    ("table=demo rewind=erly", "no option 'erly' in group 'rewind'; did you mean 'early'?"),
    # words and flags
    ("lst", "unknown subcommand 'lst'; did you mean 'list'?; settings are key=value"),
    ("seed=0 list", "'list' is no setting; settings are key=value; 'list' comes first: lthbench list ..."),
    ("=3", "'=3' is no setting; settings are key=value"),
    ("--foo", "unknown flag '--foo'; see --help"),
    ("--config-dir", "--config-dir needs a value"),
    ("--config-dir nosuch", "--config-dir: no folder 'nosuch'"),
    ("--cfg jbo", "--cfg: unknown 'jbo'; did you mean 'job'?"),
    ("--cfg job +sparsty=0.5", "unknown key 'sparsty'; did you mean 'sparsity'?"),
    ("--cfg job seed=0,1", "Ambiguous value for argument 'seed=0,1'"),
    ("--resolve", "The --resolve flag can only be used in conjunction with --cfg or --help"),
    # subcommands
    ("plan sparsity=2", f"sparsity: 2 {RANGE}"),
    ("plan threads=0", "threads: 0 is not a whole number of at least 1"),
    ("plan --cfg job", "'--cfg' has no meaning here"),
    ("report", "no results in 'results/out'; run something first, or say out=DIR"),
    ("show", "show: the following arguments are required: id; see lthbench show --help"),
    ("show abc", "no result begins with 'abc' in 'results/out/runs'"),
    ("show abc seed=3", "show: 'seed=3' has no meaning here; it takes an id, or two, and out=DIR"),
    ("store", "store: the following arguments are required: action; see lthbench store --help"),
    ("store list", "no store at 'results/out/store'; say out=DIR or store=DIR"),
    ("store list abc", "store list: 'abc' has no meaning here; the places are out=DIR and store=DIR"),
    ("list model foo", "list: unrecognized arguments: foo; see lthbench list --help"),
]


@pytest.mark.parametrize(("command", "line"), EXACT, ids=[command for command, _ in EXACT])
def test_one_line(command: str, line: str, refused: Refused):
    assert refused(command) == line


@pytest.mark.parametrize("command", ["'sparsity=[1'", "sparsity==0.5", "'seed =0'"])
def test_unreadable(command: str, refused: Refused):
    assert refused(command).startswith(f"cannot read '{command.strip(chr(39))}': ")


def test_special_characters_need_quotes(refused: Refused):
    assert refused("out=é").endswith("""; quote it: key='"..."'""")


def test_device_that_is_not_here(refused: Refused):
    assert refused("device=cuda:99").startswith("device=cuda:99 is not here: ")


def test_list_of_unknown_things(refused: Refused):
    assert refused("list pruner_s") == "list: nothing is called 'pruner_s'; did you mean 'pruners'?"


@pytest.mark.parametrize("word", ["out", "store"])
@pytest.mark.parametrize(
    ("folder", "place", "why"),
    [
        ("file", "file", "Not a directory"),
        ("file/x/y", "file", "Not a directory"),
        ("dangling", "dangling", "No such file or directory"),
    ],
)
def test_folder_that_cannot_be_written(word: str, folder: str, place: str, why: str, here: Path, refused: Refused):
    (here / "file").touch()
    (here / "dangling").symlink_to(here / "nowhere" / "at all")
    assert refused(f"{word}={folder} seed=1") == f"{word}: '{folder}' cannot be written ('{place}': {why})"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_folder_where_even_root_cannot_write(refused: Refused):
    assert refused("out=/proc/x") == "out: '/proc/x' cannot be written ('/proc': No such file or directory)"


def test_data_of_another_version(here: Path, refused: Refused):
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, np.uint8)
    np.savez(here / "cifar10.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    line = refused("dataset=cifar10 data=.")
    assert line.startswith("data set cifar10 in '.' is version 'unknown (sha256 ")
    assert line.endswith(")', not 'official' as declared")


def test_by_kind_needs_a_rate_for_every_kind(here: Path, refused: Refused):
    (here / "own" / "allocation").mkdir(parents=True)
    (here / "own" / "allocation" / "lazy.yaml").write_text("name: by_kind\nrates: {output: '0.1'}\n")
    line = refused("--config-dir own allocation=lazy sparsity=level:1")
    assert line == "allocation.rates has no rate for 'linear' layers"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "table mine has no rows"),
        ("rows: 3", "table mine has no rows"),
        ("rows: [3]", "table mine: row 1 has no label"),
        ("rows: [{seed: 0}]", "table mine: row 1 has no label"),
        ("rwos: [{label: a}]", "table mine: unknown key 'rwos'; did you mean 'rows'?"),
        ("settings: 3\nrows: [{label: a}]", "table mine: settings are no 'key: value' pairs"),
        ("rows: [{label: a, prunr: random}]", "unknown key 'prunr'; did you mean 'pruner'?"),
        ("rows: [{label: a, pruner: randm}]", "no option 'randm' in group 'pruner'; did you mean 'random'?"),
    ],
)
def test_own_table_that_is_wrong(text: str, line: str, here: Path, refused: Refused):
    (here / "own" / "table").mkdir(parents=True)
    (here / "own" / "table" / "mine.yaml").write_text(text)
    assert refused("--config-dir own table=mine") == line


def test_own_file_that_is_no_yaml(here: Path, refused: Refused):
    (here / "own" / "pruner").mkdir(parents=True)
    (here / "own" / "pruner" / "broken.yaml").write_text("{")
    assert "broken.yaml" in refused("--config-dir own pruner=broken")


def test_grid_with_one_wrong_point_runs_nothing(refused: Refused):
    assert refused("scale=smoke -m sparsity=0.5,1.5") == f"sparsity: 1.5 {RANGE}"


def test_hydras_own_multirun_is_checked_first(refused: Refused):
    assert refused("-m hydra/launcher=basic seed=0,1 +foo=1").startswith("unknown key 'foo'")
    assert refused("-m hydra/launcher=basic sparsity=0.5,2") == f"sparsity: 2 {RANGE}"
    assert refused("hydra/launcher=nosuch").startswith("no option 'nosuch' in group 'hydra/launcher'")
