"""Best and greedy, against a naive search, for accuracies that a test makes up."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soups.test_average import network

from lthbench.soups.average import mean
from lthbench.soups.choose import best, greedy

NETS = [network(seed) for seed in range(5)]


def made_up(levels, salt):
    """An accuracy that depends on the network alone, with ties."""

    def accuracy(net):
        return int(hashlib.sha256(f"{salt}{net.digest()}".encode()).hexdigest(), 16) % levels / levels

    return accuracy


def same(net):
    return net


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6), st.sampled_from(["ge", "gt"]))
def test_greedy_is_the_published_procedure(m, levels, salt, accept):
    accuracy = made_up(levels, salt)
    order = sorted(range(m), key=lambda i: (-accuracy(NETS[i]), i))
    chosen, reached = [order[0]], accuracy(NETS[order[0]])
    for i in order[1:]:
        found = accuracy(mean([NETS[j] for j in sorted([*chosen, i])]))
        if found > reached or (accept == "ge" and found == reached):
            chosen, reached = [*chosen, i], found
    made, told = greedy(NETS[:m], same, accuracy, accept)
    assert (told["order"], told["chosen"]) == (order, sorted(chosen))
    assert made.digest() == mean([NETS[i] for i in sorted(chosen)]).digest()
    assert accuracy(made) >= max(told["accuracies"])
    assert [t["taken"] for t in told["trials"]] == [t["added"] in chosen for t in told["trials"]]
    picked, seen = best(NETS[:m], same, accuracy)
    assert seen["chosen"] == order[:1] and picked is NETS[order[0]]


@given(st.integers(2, 5))
def test_equal_networks_are_all_taken_or_none(m):
    nets = [NETS[0]] * m
    for accept, count in (("ge", m), ("gt", 1)):
        made, told = greedy(nets, same, lambda net: 0.5, accept)
        assert len(told["chosen"]) == count and made.digest() == NETS[0].digest()


@given(st.integers(0, 10**6))
def test_the_strict_rule_takes_no_more_on_the_first_decision(salt):
    accuracy = made_up(3, salt)
    first = {a: greedy(NETS, same, accuracy, a)[1]["trials"][0]["taken"] for a in ("ge", "gt")}
    assert first["ge"] or not first["gt"]


def test_every_trial_is_made_ready_before_it_is_judged():
    for choose in (best, greedy):
        seen, judged = [], []
        ready = lambda net, seen=seen: seen.append(net.digest()) or net  # noqa: E731
        choose(NETS[:3], ready, lambda net, judged=judged: judged.append(net.digest()) or 0.5)
        assert judged and set(judged) <= set(seen)


@pytest.mark.parametrize("accept", ["ge", "gt"])
def test_one_member_is_itself(accept):
    made, told = greedy(NETS[:1], same, lambda net: 0.1, accept)
    assert made is NETS[0] and told["trials"] == []
