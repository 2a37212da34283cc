"""`lthbench jobs`: what has become of what was submitted."""

from __future__ import annotations

from collections.abc import Sequence

from lthbench.base.errors import UserError
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders, say
from lthbench.cli.subcommands import parser
from lthbench.cli.submitting import counted
from lthbench.launch.slurm import Submission, submissions
from lthbench.launch.slurm_state import queue, states

MOST_REASONS = 10


def run(words: Sequence[str]) -> int:
    """Print each submission's elements by state, and why some failed."""
    arguments = parser(
        "jobs",
        "What has become of the job arrays that launcher=slurm submitted: elements that are queued, requeued (they\n"
        "came back, and wait for their turn), running, done, failed, or lost (cancelled, out of time: the same\n"
        "command goes on from there).",
    )
    arguments.add_argument("place", nargs="*", default=[], help="out=DIR")
    arguments.add_argument("--all", action="store_true", help="one line an element, and all submissions")
    parsed = arguments.parse_intermixed_args(words)
    for word in parsed.place:
        if not word.startswith("out="):
            raise UserError(f"jobs: '{word}' has no meaning here; it takes out=DIR")
    with composer(None) as compose:
        out, _ = folders(compose.compose(c for o in parsed.place for c in compose.values(o)))
    found = submissions(out)
    if not found:
        raise UserError(f"nothing was submitted from '{out}'; say out=DIR")
    known = queue([s.job["user"] for s in found])
    if known is None:
        say("Slurm cannot be asked here: only what the elements said themselves")
    failed = 0
    for submission in found:
        failed = _print(submission, known, parsed.all)
    return 1 if failed else 0


def _print(submission: Submission, known: dict[tuple[str, int], tuple[str, str]] | None, each: bool) -> int:
    """A submission on a line, and more of what went wrong; how many elements failed or were lost."""
    found = states(submission, known)
    jobs = " ".join(job for job, _, _ in submission.jobs())
    restarts = sum(state.restarts for state in found)
    print(
        f"{submission.folder.name}: {len(submission.run_ids())} runs in {len(submission.elements())} elements"
        + (f" ({jobs}): {counted(state.state for state in found)}" if found else ", not submitted")
        + (f"; came back {restarts} times" if restarts else "")
    )
    wrong = [state for state in found if state.state in ("failed", "lost")]
    shown = found if each else [s for s in found if s.reason and s.state != "queued"][:MOST_REASONS]
    for state in shown:
        print(f"  {state.number:>4} {state.job:>10} {state.state:8} {state.reason}".rstrip())
    if len(wrong) > len(shown):
        print(f"  ... and {len(wrong) - len(shown)} more; --all shows them")
    return len(wrong)
