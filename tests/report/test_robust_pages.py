"""The section of a page on corrupted images, calibration and the worst class."""

from report_runs import run

from lthbench.report.board import board
from lthbench.report.robustness import section
from lthbench.report.write import markdown

HOW = {"corruptions": ["fog", "snow"], "severities": [1, 5], "images": 1000, "seed": 0, "version": "computed"}


def result(seed, fog, **more):
    made = run(0.9, seed, removed=950, **more)
    made["config"] |= {"corruptions": HOW}
    made["metrics"]["test"] |= {"worst_class": 0.8, "ece": 0.05}
    made["metrics"]["cifar_c"] = {"accuracy": 0.5, "by_corruption": {"fog": fog, "snow": [0.4, 0.2]}}
    return made


def test_the_numbers_are_the_means_over_severities_and_seeds():
    cells = [("IMP", "0.95", result(0, [0.9, 0.5])), ("soup", "0.95", result(0, [0.8, 0.6]))]
    cells += [("soup", "0.95", result(1, [0.9, 0.9])), ("plain", "0.95", run(0.9))]
    lines = section(board("t", "t", cells, "command")).lines()
    assert "| IMP | 90.00 | 80.00 | 5.00 | 50.00 |" in lines
    assert "| soup | 90.00 ± 0.00 | 80.00 ± 0.00 | 5.00 ± 0.00 | 50.00 ± 0.00 |" in lines
    assert "| fog | 70.0 | 80.0 ± 14.1 |" in lines and "| snow | 30.0 | 30.0 ± 0.0 |" in lines
    assert not any("plain" in line for line in lines)
    said = next(line for line in lines if "CIFAR-C" in line)
    assert said.endswith(
        "computed with the published constants: 2 corruptions at severities 1, 5, 1,000 of them, drawn by seed 0."
    )


def test_what_diverged_and_several_sparsities():
    lost = result(0, [0.9, 0.5])
    lost["metrics"]["test"]["ece"] = None
    lines = section(board("t", "t", [("a", "0.9", lost), ("a", "0.95", result(0, [0, 0]))], "command")).lines()
    assert lines[4].startswith("|  | accuracy") and lines[6] == "| a, 95 % | 90.00 | 80.00 |  | 50.00 |"


def test_pages_without_corrupted_images_say_nothing_of_them():
    page = markdown(board("t", "t", [("a", "0.9", run(0.9))], "command"))
    assert "Robustness" not in page
    assert "## Robustness" in markdown(board("t", "t", [("a", "0.9", result(0, [0, 0]))], "command"))
