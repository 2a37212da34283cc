"""A ticket that was found on one task, trained on another, by the command line."""

import json
from pathlib import Path

import numpy as np
import torch

from lthbench.base.settings import build
from lthbench.cli.compose import composer
from lthbench.cli.grid import expand
from lthbench.engine.store import Store
from lthbench.programs import Run, experiment
from lthbench.training.checkpoint import Checkpoint

FOUND = "rewind=early rewind.k=5 rewind.unit=iteration sparsity=level:2 train.epochs=1 model.width=0.1 jobs=1"
TRAINED = "model.width=0.1 train.epochs=1 jobs=1"


def result(said):
    return json.loads(Path(said.out.splitlines()[-2]).read_text())


def state(ref):
    ident, _, step = ref.partition("@")
    name = f"s{int(step):09d}.safetensors" if step else "out.safetensors"
    return Checkpoint.unpack(Store("results/out/store").read(ident, name))


def test_a_ticket_goes_to_another_optimiser_and_another_data_set(run, refused, here):
    found = result(run(FOUND))
    dense = found["stages"]["dense"].partition("@")[0]
    mask = Store("results/out/store").read(found["stages"]["mask 2"], "out.safetensors")[0]

    said = run(f"ticket={found['id'][:10]} train.optimizer=sgd {TRAINED} seed=1")
    assert said.code == 0, said.err
    moved = result(said)
    ticket = state(moved["stages"]["ticket"])
    start = state(f"{dense}@5")
    for name in ("fc1.weight", "fc2.weight"):
        assert torch.equal(ticket.mask[name], mask[name])
        assert torch.equal(ticket.weights[name], start.weights[name] * mask[name])
    assert "fc3.weight" not in ticket.mask and not torch.equal(
        ticket.weights["fc3.weight"], start.weights["fc3.weight"]
    )
    final = state(moved["stages"]["final"])
    assert (
        not any(final.weights[n][~kept].any() for n, kept in final.mask.items())
        and final.mask.keys() == ticket.mask.keys()
    )
    assert moved["config"]["ticket"]["start"] == f"{dense}@5" and moved["config"]["train"]["optimizer"] == "sgd"
    assert "pruner" not in moved["config"]

    kept = result(run(f"ticket={found['id']} ticket_output=kept {TRAINED} seed=1"))
    assert state(kept["stages"]["ticket"]).mask.keys() == mask.keys()

    images, labels = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8), np.arange(60, dtype=np.uint8) % 7
    np.savez("mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    other = f"dataset=npz dataset.name=mine.npz {TRAINED} train.batch=20"
    said = run(f"ticket={found['id']} {other}")
    assert said.code == 0, said.err
    assert result(said)["metrics"]["test"]["accuracy"] >= 0
    assert run(f"plan ticket={found['id']} {other}").code == 0
    final_file = Store("results/out/store").folder(found["stages"]["final"].partition("@")[0])
    path = next(final_file.glob("s*.safetensors"))
    assert result(run(f"ticket={path} {other}"))["config"]["ticket"]["file"]

    (here / "other.safetensors").write_bytes(b"no")
    dropped = "ticket: 'fc3.bias' is (10,) in the ticket, (7,) in lenet_300_100; "
    dropped += "ticket_output=fresh draws the output layer anew"
    for words, message in (
        (f"ticket={found['id']} ticket_output=kept {other}", dropped),
        ("ticket=zzz", "no result begins with 'zzz' in 'results/out/runs'"),
        (f"ticket={moved['id']}", f"ticket: result {moved['id'][:8]} has no ticket: it needs a mask, and weights that "
         "went back to init or an early step"),
        (f"ticket={found['id']} ticket_output=frsh", "ticket_output: unknown choice 'frsh'; did you mean 'fresh'?"),
        ("ticket=none.safetensors", "ticket: no file 'none.safetensors'"),
    ):  # fmt: skip
        assert refused(words) == message
    assert refused(f"ticket=other.safetensors {other}").startswith(
        "ticket: 'other.safetensors' is no safetensors file:"
    )


TABLE = """
settings: {model.width: 0.1, train.epochs: 1, rewind: early, rewind.k: 5, rewind.unit: iteration, seed: 0,
           prunable: no_output, sparsity: 'level:1,level:2'}
rows:
  - {label: found}
  - {label: 'with SGD, found with Adam', train.optimizer: sgd, ticket: {train.optimizer: adam}}
"""


def test_a_row_of_a_table_says_which_run_finds_its_ticket(run, refused, here):
    (here / "mine" / "table").mkdir(parents=True)
    path = here / "mine" / "table" / "moved.yaml"
    path.write_text(TABLE)
    table = "table=moved --config-dir mine jobs=1"
    with composer("mine") as compose:
        made = expand(compose, ["table=moved"], multirun=False).experiments
    for each in made:  # as a cluster's task reads it
        assert experiment(build(Run, json.loads(json.dumps(each.run.whole())), "run")).id == each.id
    said = run(f"plan {table} --no-timing")
    # each ticket is found where the first row finds its own, and trained once more
    assert said.last == "plan: 4 runs, 14 distinct stages, 4.6 epochs (9.2 naive)"
    said = run(table)
    assert said.code == 0 and said.last == "stages: 14 asked, 14 computed, 0 reused", said.err
    results = [json.loads(p.read_text()) for p in Path("results/out/runs").glob("*.json")]
    moved = {r["id"]: r for r in results if "ticket" in r["config"]}
    assert len(moved) == 2 and len(results) == 4
    page = Path("results/out/leaderboards/moved.md").read_text()
    assert "level:1" not in page and "ticket |" not in page  # columns are sparsities, those at which it was found

    last = next(r for r in results if len(r["config"].get("rounds", [])) == 2)
    again = run(f"ticket={last['id']} train.optimizer=sgd prunable=no_output {TRAINED}")
    assert " 0 computed" in again.last  # the same run, its ticket found by another command
    there = moved[result(again)["id"]]
    assert result(again) == there | {k: result(again)[k] for k in ("cost", "environment", "versions")}

    for row, message in (
        ("ticket: {seed: '0,1'}", "odd: ticket: seed has several values; one run finds a ticket"),
        (
            "ticket: {rewind: none}",
            "ticket: the run that finds it has no ticket: it needs a mask, and weights that went back to init or an "
            "early step",
        ),
        ("ticket: {datset: mnist}", "unknown key 'datset'; did you mean 'dataset'?"),
        ("ticket: {model.width: 0.2}", "ticket: 'fc1.bias' is (60,) in the ticket, (30,) in lenet_300_100"),
    ):
        path.write_text(TABLE + "  - {label: odd, " + row + "}\n")
        assert refused("table=moved --config-dir mine only=odd out=new") == message
