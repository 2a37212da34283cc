"""What other commands and other result folders need stays when a store is cleaned."""

import os
import time

from lthbench.engine.claims import Claims
from lthbench.engine.keep import SILENT_SECONDS, others, register, registered
from lthbench.engine.store import Store


def plan_of(store, token, host):
    """A plan under a claim whose owner is on another host: only its heart tells whether it lives."""
    folder = store.root / "plans" / token
    Claims(host=host).take(folder)
    (folder / "stages").write_text("a\nb")
    return folder


def test_a_plan_of_another_host_is_spared_while_its_heart_beats_and_swept_when_long_silent(tmp_path):
    store = Store(tmp_path)
    folder = plan_of(store, "t", "elsewhere")
    assert others(store, "") == {"a", "b"} and folder.exists()
    for beats_ago, lives in ((SILENT_SECONDS / 2, True), (SILENT_SECONDS * 1.1, False)):
        then = time.time() - beats_ago
        for claim in folder.glob("claim.*"):
            os.utime(claim, (then, then))
        assert bool(others(store, "")) == folder.exists() == lives


def test_result_folders_of_a_store_are_known_once_each(tmp_path):
    store = Store(tmp_path / "store")
    for out in ("a", "b", "a"):
        register(store, tmp_path / out)
    assert registered(store) == [tmp_path / "a", tmp_path / "b"]
