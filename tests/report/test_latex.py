"""The LaTeX table: what it says, that nothing in it is a command by accident, and that it compiles."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from report_runs import run
from test_compare import compared
from test_page import hostile

from lthbench.report.board import board
from lthbench.report.latex import escaped, latex


def test_ours_the_verdict_and_the_published_number():
    text = latex(compared([run(x, s, removed=900) for s, x in enumerate((0.9, 0.901, 0.8995))]))
    assert r"a &  & 90.02 $\pm$ 0.08$^{\mathrm{r}}$ [90.00] \\" in text
    assert "r reproduced, d differs, u undecided" in text
    assert text.startswith("% python -m lthbench table=t\n")


def test_special_characters():
    assert escaped(r"50 % & a_b^c #1 {x} ~ $\alpha") == (
        r"50 \% \& a\_b\textasciicircum{}c \#1 \{x\} \textasciitilde{} \$\textbackslash{}alpha"
    )
    assert escaped("a\u200bé猫\n") == "aé??"


def test_it_compiles(tmp_path):
    tex = next(filter(None, map(shutil.which, ("pdflatex", "tectonic"))), None)
    if tex is None:
        pytest.skip("needs a TeX: pdflatex or tectonic")
    tables = [latex(made) for made in (compared([run(0.9, removed=900)]), hostile())]
    head = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(head + "\n".join(tables) + "\\end{document}\n")
    options = ["-halt-on-error", "-interaction=nonstopmode"] if "pdflatex" in tex else []
    done = subprocess.run([tex, *options, "t.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_a_wide_table_fits_the_page(tmp_path):
    if (tex := shutil.which("pdflatex")) is None:
        pytest.skip("needs pdflatex")
    wide = board("w", "W", [(f"a method of a long name {i}", str(i), run(0.9)) for i in range(8)], "")
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(head + latex(wide) + "\\end{document}\n")
    done = subprocess.run([tex, "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
