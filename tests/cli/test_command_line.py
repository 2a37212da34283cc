"""The command line: overrides and flags in any order, tables, subcommands, help, completion, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conf_files import GROUPS

from lthbench import __version__
from lthbench.cli.main import main, split
from lthbench.cli.subcommands import SUBCOMMANDS

SMOKE = "scale=smoke schedule=oneshot sparsity=0.5 jobs=1"

# ---- overrides and flags


@pytest.mark.parametrize(
    "command",
    [
        "pruner=magnitude -m sparsity=0.9,0.98",
        "-m pruner=magnitude sparsity=0.9,0.98",
        "pruner=magnitude sparsity=0.9,0.98 -m",
        "sparsity=0.9,0.98 --multirun pruner=magnitude",
    ],
)
def test_flags_stand_anywhere(command, run):
    said = run(f"plan {command}")
    assert said.code == 0
    assert said.last.startswith("plan: 2 runs, ")


def test_flags_keep_their_values():
    words = ["a=1", "--cfg", "job", "b=2", "--config-dir=x", "--info", "c=3", "-cd", "y", "-i", "defaults"]
    assert split(words) == (
        ["--cfg", "job", "--config-dir=x", "--info", "all", "-cd", "y", "-i", "defaults"],
        ["a=1", "b=2", "c=3"],
    )


def test_table_with_and_without_plus(run):
    plain = run("plan table=demo")
    assert plain.code == 0
    assert plain.last.startswith("plan: 93 runs, ")
    assert run("plan +table=demo") == plain
    assert run("plan ++table=demo -m") == plain


def test_table_row_wins_over_the_command_line(run):
    """The dense row stays dense whatever sparsity is named: its label says so."""
    said = run("plan table=demo sparsity=0.5 seed=0")
    assert "Lottery tickets on digits: 7 cells" in said.out


def test_only_chooses_rows(run):
    assert "Lottery tickets on digits: 30 cells" in run("plan table=demo 'only=rewind to'").out
    assert "Lottery tickets on digits: 3 cells" in run("plan table=demo only=dense").out


def test_scale_trims_a_table_but_not_what_is_named(run):
    assert "Lottery tickets on digits: 13 cells" in run("plan table=demo scale=smoke").out
    assert "Lottery tickets on digits: 39 cells" in run("plan table=demo scale=smoke seed=0,1,2").out
    assert "Lottery tickets on digits: 62 cells" in run("plan table=demo scale=small").out


def test_settings_that_mean_nothing_collapse(run):
    """A dense network has no rewinding, pruning at initialisation neither."""
    assert run("plan -m sparsity=0 rewind=init,early,lr pruner=magnitude,random").last.startswith("plan: 1 runs, ")
    assert run("plan -m pruner.program=at_init rewind=init,early,lr").last.startswith("plan: 1 runs, ")


def test_plan_counts_runs_stages_and_epochs(run):
    """Two rewindings share the dense network: 20 epochs once, and 20 (19.8 for lr) for each retraining."""
    said = run("plan -m rewind=init,lr schedule=oneshot")
    assert said.last == "plan: 2 runs, 7 distinct stages, 59.8 epochs (79.8 naive)"


def test_values_may_refer_to_others(run):
    assert run("plan retrain.epochs='${train.epochs}'") == run("plan retrain.epochs=20")


def test_a_group_of_values_at_once(run):
    """As in Hydra, a mapping is merged into what is there."""
    assert run("plan 'train.schedule={kind:step,milestones:[10]}'").code == 0
    said = run("plan 'train.schedule={kind:step,milestnes:[10]}'")
    assert said.err == "lthbench: unknown key 'train.schedule.milestnes'; did you mean 'train.schedule.milestones'?\n"


# ---- Hydra's own doings


@pytest.mark.parametrize("table", ["", "table=demo", "+table=demo"])
def test_cfg_job_prints_the_settings(table, run):
    said = run(f"sparsity=0.5 --cfg job {table}")
    assert (said.code, said.err) == (0, "")
    settings = yaml.safe_load(said.out)
    assert settings["sparsity"] == 0.5
    assert "hydra" not in settings
    assert (settings.get("table") or {}).get("title") == ("Lottery tickets on digits" if table else None)


def test_info_defaults(run):
    said = run("--info defaults")
    assert said.code == 0
    assert "pruner/magnitude" in said.out


def test_help_lists_subcommands_and_groups(run):
    said = run("--help")
    assert said.code == 0
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in said.out, name
    for group, options in GROUPS.items():
        if group != "table":
            assert f"{group}: {', '.join(options)}" in said.out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help(name, here, capsys):
    try:
        code = main([name, "--help"])
    except SystemExit as done:  # argparse ends so
        code = done.code or 0
    assert code == 0
    assert capsys.readouterr().out.startswith(f"usage: lthbench {name} ")


def test_version(run):
    assert run("--version").out == f"lthbench {__version__}\n"


def test_main_may_be_called_again(run, monkeypatch):
    """Nothing of one call is left for the next: arguments, Hydra's state, environment."""
    monkeypatch.setattr(sys, "argv", ["pytest", "x"])
    first = run("--cfg job seed=3")
    assert run("plan seed=x").code == 2
    assert run("--help").code == 0
    assert run("--cfg job seed=3") == first
    assert run("--cfg job").out != first.out
    assert sys.argv == ["pytest", "x"]


def completions(line: str) -> set[str]:
    script = Path(sys.executable).with_name("lthbench")
    if not script.exists():
        pytest.skip("the lthbench script is not installed here")
    done = subprocess.run(
        [script, "-sc", "query=bash"],
        capture_output=True,
        text=True,
        env=os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lthbench scal", {"scale=", "scale."}),
        ("lthbench seed=0 scale=", {"scale=paper", "scale=small", "scale=smoke"}),
        ("lthbench -m train.schedule.ki", {"train.schedule.kind="}),
    ],
)
def test_shell_completion(line, words, here):
    assert completions(line) == words


# ---- a user's own options


@pytest.fixture
def own(here: Path) -> Path:
    for group, name, text in (
        ("pruner", "gentle", "# mine\ncriterion: magnitude\nprogram: at_init\n"),
        ("table", "mine", "# my table\ntitle: Mine\nrows:\n  - {label: a, pruner: gentle, sparsity: '0.5,0.9'}\n"),
        ("table", "demo", "title: in the way\nrows: [{label: a}]\n"),
    ):
        (here / "own" / group).mkdir(parents=True, exist_ok=True)
        (here / "own" / group / f"{name}.yaml").write_text(text)
    return here / "own"


@pytest.mark.parametrize("flag", ["--config-dir own", "--config-dir=own", "-cd own"])
def test_own_options(flag, own, run):
    said = run(f"plan table=mine {flag}")
    assert said.out.startswith("Mine: 2 cells\n")
    assert run(f"plan pruner=gentle {flag}").out == run("plan pruner.program=at_init").out
    assert yaml.safe_load(run(f"--cfg job pruner=gentle {flag}").out)["pruner"]["program"] == "at_init"


def test_own_options_are_listed(own, run):
    assert "gentle" not in run("list pruners").out
    assert "gentle" in run("list pruners --config-dir own").out
    assert "Mine" in run("list tables --config-dir own").out


def test_own_options_do_not_hide_built_in_ones(own, run):
    assert run("plan table=demo --config-dir own").out.startswith("Lottery tickets on digits: 93 cells\n")
    assert "in the way" not in run("list tables --verbose --config-dir own").out


# ---- subcommands


def test_list_shows_every_group(run):
    said = run("list")
    assert said.code == 0
    for group, options in GROUPS.items():
        title = {"model": "models", "dataset": "datasets", "pruner": "pruners", "table": "tables"}.get(group, group)
        assert f"\n{title} " in f"\n{said.out}", group
        if group != "dataset":
            assert all(option in said.out for option in options), group


def test_list_says_where_data_is(run):
    out = " ".join(run("list datasets").out.split())
    assert "here: official" in out  # digits
    assert "not in 'data'; get it: the four *-ubyte.gz files in data/mnist, or dataset.download=true" in out


def test_list_verbose_says_more(run):
    brief, verbose = run("list pruners").out, run("list pruners --verbose").out
    assert "program: after_training" not in brief
    assert "program: after_training" in verbose


def test_store_and_show(here, run):
    done = run(f"{SMOKE} out=o")
    assert (done.code, done.last) == (0, "stages: 5 asked, 5 computed, 0 reused")
    ident = next((here / "o" / "runs").iterdir()).stem

    listed = run("store list out=o")
    assert listed.code == 0
    assert listed.last.startswith("store: 5 stages, ")
    assert run(f"store explain {ident[:8]} out=o").out.startswith(f"{ident}: evaluate, version 2\n")
    assert f"needed by run: {ident}" in run(f"store explain {ident[:8]} out=o").out
    assert run("store verify out=o").last.endswith(" files read, 0 damaged")
    assert run("store prune out=o").last.startswith("prune: 0 stages, 0 B")

    shown = run(f"show {ident[:8]} out=o")
    assert shown.out.startswith(f"{ident}  lenet_300_100 on standin_digits magnitude")
    assert f'"id": "{ident}"' in run(f"show {ident[:8]} --json out=o").out

    (here / "o" / "runs" / f"{ident}.json").unlink()
    assert run("store prune out=o").last.startswith("prune: 5 stages, ")
    assert run("store list out=o").last.startswith("store: 5 stages, ")
    assert run("store prune --yes out=o").code == 0
    assert run("store list out=o").last.startswith("store: 0 stages, ")


def test_pruning_a_shared_store_spares_what_other_results_need(here, run):
    for out in ("a", "b"):
        assert run(f"{SMOKE} out={out} store=s seed={out == 'b':d}").code == 0
    assert run("store prune out=a store=s").last.startswith("prune: 0 stages, ")
    for path in (here / "b" / "runs").iterdir():
        path.unlink()
    assert run("store prune out=a store=s").last.startswith("prune: 5 stages, ")


def test_store_verify_finds_damage(here, run):
    assert run(f"{SMOKE} out=o").code == 0
    state = next((here / "o" / "store").rglob("s0*.safetensors"))
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    said = run("store verify out=o")
    assert said.code == 1
    assert said.last.endswith(" files read, 1 damaged")


# ---- what a run leaves, and exit codes


def test_a_run_writes_below_out_and_nowhere_else(here, run):
    (here / "work").mkdir()
    os.chdir(here / "work")
    said = run(f"{SMOKE} out=../o")
    assert said.code == 0
    assert list((here / "work").iterdir()) == []
    assert sorted(p.name for p in (here / "o").iterdir()) == ["leaderboards", "runs", "store"]
    assert said.err == "Grid: 1 run, 1 seed, results in ../o\n"
    again = run(f"{SMOKE} out=../o store=../s")
    assert again.last == "stages: 5 asked, 5 computed, 0 reused"
    assert (here / "s").is_dir()


def test_hydras_own_multirun(here, run):
    """Who names a launcher of Hydra's gets it; results and what Hydra writes stay below out."""
    said = run(f"-m hydra/launcher=basic {SMOKE} out=o seed=0,1")
    assert said.code == 0
    assert said.last == "stages: 5 asked, 5 computed, 0 reused"
    assert [p.name for p in here.iterdir()] == ["o"]
    assert len(list((here / "o" / "runs").iterdir())) == 2


def test_altered_result_is_made_again_from_the_store(here, run):
    assert run(f"{SMOKE} out=o").code == 0
    path = next((here / "o" / "runs").iterdir())
    whole = path.read_text()
    path.write_text(whole[:100])
    said = run(f"{SMOKE} out=o")
    assert (said.code, said.last) == (0, "stages: 5 asked, 0 computed, 5 reused")
    assert path.read_text() == whole


def test_failure_is_exit_code_1_and_is_told_at_the_end(here, run, monkeypatch):
    from lthbench.stages import KINDS

    def broken(job):
        raise RuntimeError("boom")

    monkeypatch.setitem(KINDS, "evaluate", broken)
    said = run(f"{SMOKE} out=o")
    assert said.code == 1
    assert said.last == "stages: 5 asked, 4 computed, 0 reused"
    assert said.err.splitlines()[-2].startswith("failed: evaluate ")
    assert said.err.splitlines()[-2].endswith(": RuntimeError: boom")
    assert "not run" in said.out
    assert list((here / "o").glob("runs/*.json")) == []

    monkeypatch.undo()
    monkeypatch.chdir(here)
    again = run(f"{SMOKE} out=o")
    assert (again.code, again.last) == (0, "stages: 5 asked, 1 computed, 4 reused")


def test_what_cannot_be_written_afterwards_is_one_line(here, run):
    (here / "o").mkdir()
    (here / "o" / "leaderboards").touch()
    said = run(f"{SMOKE} out=o")
    assert said.code == 1
    assert said.err.splitlines()[1:] == ["lthbench: 'o/leaderboards': File exists"]


# ---- the real thing


def test_exit_codes_of_the_real_command(shell, here):
    assert shell("plan").code == 0
    wrong = shell("sparsity=1.2")
    assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1)
    assert wrong.err.startswith("lthbench: sparsity: 1.2 is not in ")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["--help", "list", "plan -m seed=0,1"])
def test_broken_pipe(command, here):
    line = f"'{sys.executable}' -m lthbench {command} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c(jobs, here):
    """Interrupted while it trains: one line, exit code 130; the next command goes on."""
    command = ["train.epochs=100000", f"jobs={jobs}", "out=o"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lthbench", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs us behind it
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "Grid: 1 run, 1 seed, results in o\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out, err) == ("", "lthbench: interrupted; the same command goes on from here\n")
    assert not list((here / "o").glob("runs/*"))
