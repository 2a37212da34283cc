"""A criterion of one's own: what a file may hold, and what of it is in an id."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lthbench.base.errors import UserError
from lthbench.pruning.criteria import CRITERIA
from lthbench.pruning.own import defaults, own, own_settings

HEAD = "from lthbench.pruning.criteria import criterion\n"
MINE = HEAD + "@criterion('mine'{how})\ndef mine(net{arguments}):\n    'Mine.'\n    return {{}}\n"


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str, name: str = "my.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def mine(arguments: str = "", how: str = "") -> str:
    return MINE.format(arguments=arguments, how=how)


def test_the_content_names_it_and_the_place_does_not(file):
    one, two = file(mine()), file(mine(), "elsewhere.py")
    assert own_settings(one, {}, 0).text == own_settings(two, {}, 0).text
    assert own(one)[0] == hashlib.sha256(Path(one).read_bytes()).hexdigest()
    before = own_settings(one, {}, 0).text
    assert own_settings(file(mine() + "# a comment\n"), {}, 0).text != before


def test_nothing_is_written_beside_the_file(file, tmp_path):
    own(file(mine("", "")))
    assert [p.name for p in tmp_path.iterdir()] == ["my.py"]


def test_a_built_in_criterion_is_not_hidden_by_a_file_of_that_name(file):
    before = dict(CRITERIA)
    path = file(HEAD + "@criterion('magnitude')\ndef magnitude(net): return {}\n")
    assert own_settings(path, {}, 0).known is not CRITERIA["magnitude"]
    assert before == CRITERIA
    assert own_settings(path, {}, 0).text != before["magnitude"].name


def test_the_seed_is_in_the_id_of_what_draws(file):
    assert own_settings(file(mine()), {}, 3).seed is None
    assert own_settings(file(mine(how=", random=True")), {}, 3).seed == 3


def test_arguments_are_settings(file):
    path = file(mine(", a=1, *, b: float = 2, c='x', d: 'float' = 3, e=True"))
    assert defaults(path) == {"a": 1, "b": 2, "c": "x", "d": 3, "e": True}
    args = own_settings(path, {}, 0).args
    assert [(v, type(v)) for v in args.values()] == [(1, int), (2, float), ("x", str), (3, float), (True, bool)]
    assert own_settings(path, {"b": 2.0, "a": 1}, 0).text == own_settings(path, {}, 0).text
    assert own_settings(path, {"b": 2.5}, 0).text != own_settings(path, {}, 0).text
    with pytest.raises(UserError, match=r"^pruner\.a: 1\.5 is not a whole number$"):
        own_settings(path, {"a": 1.5}, 0)


WRONG = {
    "": 'my.py\' has no function under @criterion("NAME") of lthbench.pruning.criteria',
    "from lthbench.pruning.criteria.snip import snip\n": "has no function under @criterion",
    mine() + "@criterion('other')\ndef other(net): ...\n": "has 2 functions under @criterion, mine and other: one file",
    mine() + "@criterion('mine')\ndef other(net): ...\n": "has 2 functions under @criterion, mine and mine: one file",
    "import os\n\ndef f(:\n": "my.py', line 3: invalid syntax",
    "\0": "my.py', line ",
    "import os\nos.nothing\n": "my.py', line 2: AttributeError: module 'os' has no attribute 'nothing'",
    "import sys\nsys.exit(3)\n": "my.py', line 2: SystemExit: 3",
    HEAD + "@criterion('mine')\ndef mine(): ...\n": "mine does not take the network, its first argument",
    mine(", x"): "the argument 'x' of mine needs a default that is a number, a text, true or false",
    mine(", x=[1]"): "the argument 'x' of mine needs a default that is a number, a text, true or false",
    mine(", rounds=3"): "call the argument 'rounds' of mine otherwise; pruner.rounds is taken",
}


@pytest.mark.parametrize(("text", "line"), WRONG.items(), ids=range(len(WRONG)))
def test_a_file_that_is_wrong(text, line, file):
    with pytest.raises(UserError) as caught:
        own(file(text))
    assert str(caught.value).startswith("pruner: '")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"^pruner: no file 'nosuch\.py'$"):
        own("nosuch.py")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory$"):
        own(str(tmp_path))
