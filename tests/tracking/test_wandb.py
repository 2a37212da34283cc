"""W&B offline, read back from its files: config, history, tables and exit codes, also of runs that were stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from engine.small_runs import Interrupt, graph, small
from tracking.offline_files import kept, table

from lthbench.base.errors import UserError
from lthbench.engine.runner import Outcome, Runner, Teller
from lthbench.engine.store import Store
from lthbench.launch import local
from lthbench.stages import KINDS
from lthbench.stages import train as training
from lthbench.tracking import trackers

SECTION = {"name": "wandb", "project": "p", "entity": None, "mode": None, "group": None, "tags": ["mine"]}
RUN = small("early", "0.5", every=5)


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def mirror(out, *runs, **section):
    (listener,) = trackers(SECTION | section, [graph(run) for run in runs], Store(out / "store"), out, "table")
    return listener


def compute(out, *runs, listeners=(), **how):
    """Compute in this process, and write the runs' JSONs."""
    return local.run([graph(run) for run in runs], Store(out / "store"), out, listeners, **how)


def curve(out, run):
    """The curve of a run's last trajectory as rows."""
    points = Store(out / "store").curve(graph(run).trajectory.id)
    steps = sorted({step for values in points.values() for step in values})
    values = [
        {f"{split}/{key}": v for split, found in points.items() for key, v in found.get(step, {}).items()}
        for step in steps
    ]
    return [{"step": step, "epoch": step / 20, **row} for step, row in zip(steps, values)]


def test_all_of_a_run_is_there(tmp_path):
    assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
    e = graph(RUN)
    (part,) = kept(tmp_path, e.id)
    assert (part.run.run_id, part.run.run_group, part.run.job_type) == (e.id, "table", "after_training")
    assert list(part.run.tags) == ["lenet_300_100", "digits", "magnitude", "mine"]
    assert part.config["rounds"] == ["1/2"]
    assert part.config["train"]["lr"] == 0.1
    assert part.rows == curve(tmp_path, RUN)
    assert [row["step"] for row in part.rows] == [15, 20, 25, 30, 35, 40]
    found = Store(tmp_path / "store").output(e.result)
    assert part.summary["test/accuracy"] == found["metrics"]["test"]["accuracy"]
    assert part.summary["sparsity/prunable"] == pytest.approx(0.5, abs=1e-3)
    assert part.summary["final_weights_sha256"] == found["final_weights_sha256"]
    columns, rows = table(tmp_path, part, "layers")
    assert columns == ["layer", "kept", "total"]
    assert {name: kept for name, kept, _ in rows} == {name: layer["kept"] for name, layer in found["layers"].items()}
    assert (part.exit_code, part.preempting) == (0, False)


def test_a_run_that_was_stopped_twice_is_one_run_with_its_history_once(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TICK_STEPS", 5)
    e = graph(RUN)
    for last in (20, 30):  # asked to stop at these steps of the retraining
        seen = []

        def listen(event, seen=seen, **facts):
            if event == "step" and facts["stage"] is e.trajectory:
                seen.append(facts["step"])

        listeners = [mirror(tmp_path, RUN), listen]
        outcome = Runner(
            Store(tmp_path / "store"), KINDS, listeners, stop=lambda seen=seen, last=last: seen[-1:] >= [last]
        ).run(e.goals)
        assert outcome.stopped
        assert seen[-1] == last
        time.sleep(1.1)  # W&B names folders by the second
    assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
    parts = kept(tmp_path, e.id)
    assert [(p.exit_code, p.preempting) for p in parts] == [(85, True), (85, True), (0, False)]
    assert {p.run.run_id for p in parts} == {e.id}
    assert [row for p in parts for row in p.rows] == curve(tmp_path, RUN)
    assert all(p.config["rounds"] == ["1/2"] for p in parts)


def test_what_was_computed_before_or_torn_off_is_mirrored_at_the_end(tmp_path):
    e = graph(RUN)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, RUN, listeners=[Interrupt(e.trajectory, 20)])
    assert not compute(tmp_path, RUN).failed
    assert kept(tmp_path, e.id) == []
    assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).computed
    (part,) = kept(tmp_path, e.id)
    assert part.rows == curve(tmp_path, RUN)
    compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)])
    assert len(kept(tmp_path, e.id)) == 1, "once is enough"


def test_workers_side_by_side_are_mirrored_by_their_parent(tmp_path):
    runs = [small("init", "0.5", seed=seed, every=20) for seed in (0, 1, 2)]
    assert not compute(tmp_path, *runs, listeners=[mirror(tmp_path, *runs)], jobs=2).failed
    for run in runs:
        (part,) = kept(tmp_path, graph(run).id)
        assert part.rows == curve(tmp_path, run)
        assert part.exit_code == 0


def test_a_run_that_failed_ends_so(tmp_path, monkeypatch):
    e = graph(RUN)

    def fail(job):
        if job.stage is e.trajectory:
            raise RuntimeError("no luck")
        training.compute(job)

    monkeypatch.setitem(KINDS, "train", fail)
    assert compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
    assert [part.exit_code for part in kept(tmp_path, e.id)] == [1]


def kill_wandbs_own_process():
    children = Path("/proc/self/task").glob("*/children")
    pids = {int(pid) for path in children for pid in path.read_text().split()}
    cores = [pid for pid in pids if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert cores
    for pid in cores:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)


@pytest.mark.parametrize("stopped", [False, True])
def test_slurms_signal_ends_wandbs_own_process_too_and_another_closes_the_run(tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(training, "TICK_STEPS", 5)
    e, struck = graph(RUN), []

    def signal_all(event, **facts):
        if event == "step" and facts["stage"] is e.trajectory and facts["step"] == 25 and not struck:
            kill_wandbs_own_process()
            struck.append(True)

    listeners = [mirror(tmp_path, RUN), signal_all]
    stop = (lambda: bool(struck)) if stopped else (lambda: False)
    outcome = Runner(Store(tmp_path / "store"), KINDS, listeners, stop=stop).run(e.goals)
    assert outcome.stopped == stopped
    parts = kept(tmp_path, e.id)
    assert [(part.exit_code, part.preempting) for part in parts] == ([(85, True)] if stopped else [(0, False)])
    if stopped:
        time.sleep(1.1)
        assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
        parts = kept(tmp_path, e.id)
        assert [part.exit_code for part in parts] == [85, 0]
    assert [row for part in parts for row in part.rows] == curve(tmp_path, RUN)


def test_what_a_killed_process_left_torn_is_sent_again_and_once(tmp_path):
    import wandb

    e = graph(RUN)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN), Interrupt(e.trajectory, 20)])
    kill_wandbs_own_process()
    with suppress(Exception):  # there is nobody to say goodbye to
        wandb.teardown()
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{e.id}"))) == 1
    assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
    (part,) = kept(tmp_path, e.id)
    assert part.exit_code == 0
    assert part.rows == curve(tmp_path, RUN)


def test_the_leaderboard_is_a_table_and_sent_when_it_changed(tmp_path):
    listener = mirror(tmp_path, RUN)
    board = {"name": "demo", "title": "Demo", "head": ["method", "50 %"], "rows": [["init", "97.00"]]}
    Teller([listener])("leaderboard", **board)
    Teller([mirror(tmp_path, RUN)])("leaderboard", **board)
    folders = list(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 1
    (part,) = kept(tmp_path, folders[0].name.rpartition("-")[2])
    assert (part.run.job_type, part.run.run_group, part.exit_code) == ("leaderboard", "table", 0)
    assert table(tmp_path, part, "leaderboard") == (board["head"], board["rows"])


def test_a_failure_of_wandb_fails_no_run(tmp_path, monkeypatch):
    listener = mirror(tmp_path, RUN)
    monkeypatch.setattr(listener, "start", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="a listener was switched off: ZeroDivisionError"):
        outcome = compute(tmp_path, RUN, listeners=[listener])
    assert not outcome.failed
    assert (tmp_path / "runs" / f"{graph(RUN).id}.json").exists()


def test_nothing_is_asked_and_nobody_waited_for(tmp_path, monkeypatch, capsys):
    assert mirror(tmp_path).mode == "offline"  # no key: nothing is said, unless it was to be online
    assert capsys.readouterr().err == ""
    assert mirror(tmp_path, mode="online").mode == "offline"
    assert capsys.readouterr().err == "wandb: no API key for api.wandb.ai: offline (wandb login)\n"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nobody listens here
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert mirror(tmp_path).mode == "offline"
    assert capsys.readouterr().err == "wandb: 127.0.0.1 does not answer: offline (python -m lthbench sync, later)\n"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert mirror(tmp_path).mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    listener = mirror(tmp_path, RUN)
    listener("finished", outcome=Outcome())
    assert not (tmp_path / "wandb").exists()


def test_a_server_that_takes_calls_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lthbench.tracking.wandb.REACH_SECONDS", 0.2)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert mirror(tmp_path).mode == "offline"
    assert "127.0.0.1 does not answer: offline" in capsys.readouterr().err


def test_a_name_whose_address_nobody_tells(tmp_path, monkeypatch, capsys):
    over = threading.Event()

    def look_up(*_, **__):
        over.wait()
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("lthbench.tracking.wandb.REACH_SECONDS", 0.2)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert mirror(tmp_path).mode == "offline"
    assert "api.wandb.ai does not answer: offline" in capsys.readouterr().err
    over.set()


class Refuses(BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.mark.slow  # W&B asks more than once
def test_a_server_that_will_not_have_us(tmp_path, monkeypatch, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        assert not compute(tmp_path, RUN, listeners=[mirror(tmp_path, RUN)]).failed
        server.shutdown()
    assert "offline from here" in capsys.readouterr().err
    (part,) = kept(tmp_path, graph(RUN).id)
    assert part.exit_code == 0
    assert part.rows == curve(tmp_path, RUN)


def test_unknown_words():
    with pytest.raises(UserError, match=r"tracking.mode: unknown 'onlin'; did you mean 'online'\?"):
        trackers(SECTION | {"mode": "onlin"}, [], Store("x"), None, "")
    with pytest.raises(UserError, match=r"tracking: unknown 'wnb'; did you mean 'wandb'\?"):
        trackers({"name": "wnb"}, [], Store("x"), None, "")
