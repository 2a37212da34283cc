"""What a grid shares: the dense run is trained once, in one pass, and common levels are common stages."""

from engine.small_runs import STEPS, K, Log, compute, contents, small, stages

from lthbench.engine.store import At, Store
from lthbench.programs import experiment

REWINDS = ("init", "early", "lr", "finetune")
GRID = [
    small(rewind, sparsity, control=control, schedule="iterative")
    for rewind in REWINDS
    for sparsity in ("0.5", "0.8", "0.9")
    for control in ("none", "reinit")
]


def test_the_exact_number_of_training_runs():
    # At rate 0.2, 50 %, 80 % and 90 % take 4, 8 and 11 rounds. The last one of each has a density of its own, the
    # others are those of the 90 % chain: 10 common rounds, 3 last ones, and 3 last masks on new weights.
    assert [len(GRID[i].rounds) for i in (0, 2, 4)] == [4, 8, 11]
    assert len(stages(*GRID, kind="train")) == 1 + len(REWINDS) * (10 + 3 + 3)
    assert len(stages(*GRID, kind="init")) == 2  # the run's own, and that of the control
    # The first mask is everybody's; later ones belong to their chain, where each round is pruned to its level,
    # and three times to a last one. No chain's last mask is another round's.
    assert len(stages(*GRID, kind="prune")) == 1 + len(REWINDS) * (9 + 3)
    assert len(stages(*GRID, kind="evaluate")) == len(GRID)


def test_a_deeper_target_contains_the_levels_of_a_shallower_one():
    for rewind in REWINDS:
        deep = experiment(small(rewind, "0.9", schedule="iterative")).roles
        for shallow, rounds in (("0.8", 8), ("0.5", 4)):
            roles = experiment(small(rewind, shallow, schedule="iterative")).roles
            for number in range(1, rounds):
                assert roles[f"mask {number}"] is deep[f"mask {number}"]
                assert roles[f"net {number}"] == deep[f"net {number}"]
            assert roles[f"mask {rounds}"] is not deep[f"mask {rounds}"]
            assert set(stages(small(rewind, "level:7", schedule="iterative"))) - set(
                stages(small(rewind, "0.9", schedule="iterative"))
            ) == {experiment(small(rewind, "level:7", schedule="iterative")).result}


def test_the_mask_of_a_controlled_run_is_that_of_the_ticket():
    for rewind in REWINDS:
        ticket, control = (
            experiment(small(rewind, "0.8", control=c, schedule="iterative")) for c in ("none", "reinit")
        )
        assert ticket.roles["mask 8"] is control.roles["mask 8"]
        assert ticket.roles["net 7"] == control.roles["net 7"]
        assert ticket.roles["net 8"] != control.roles["net 8"]


def test_seeds_share_nothing():
    assert not set(stages(small(seed=0))) & set(stages(small(seed=1)))


def test_the_dense_run_is_trained_once_and_saves_all_rewinding_points_on_the_way(tmp_path):
    early = [small("early", "0.5", k=k) for k in (0.1, 0.25, 0.5)]
    grid = [
        *early,
        *(small(rewind, "0.5", control=c) for rewind in ("init", "lr", "finetune") for c in ("none", "reinit")),
    ]
    log = Log()
    outcome = compute(Store(tmp_path), *grid, listeners=[log])
    assert not outcome.failed
    dense = experiment(grid[0]).roles["dense"].stage
    works = [work for work in log.works() if work.stage is dense]
    assert len(works) == 1 and works[0].resume is None
    moments_of = (4, K, 20)
    assert works[0].missing == {At(STEPS), At(STEPS, full=True)} | {
        At(k, full) for k in moments_of for full in (False, True)
    }
    assert log.steps[dense] == STEPS
    # three early points, init, lr, finetune, and one control whatever the rewinding
    assert outcome.computed == set(stages(*grid)) and len(stages(*grid, kind="train")) == 1 + 3 + 3 + 1
    assert len(log.works()) == outcome.asked == len(stages(*grid))


def test_one_by_one_or_all_at_once_is_the_same_store(tmp_path):
    grid = [small(rewind, sparsity, schedule="iterative") for rewind in REWINDS for sparsity in ("0.36", "0.2")]
    compute(Store(tmp_path / "at once"), *grid)
    computed = []
    for run in grid:
        computed += compute(Store(tmp_path / "one by one"), run).computed
    assert len(computed) - len(set(computed)) == 1  # the dense run, asked later for its rewinding point
    assert contents(tmp_path / "at once") == contents(tmp_path / "one by one")
