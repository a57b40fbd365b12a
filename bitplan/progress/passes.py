"""Work that goes through the same things several times, as one course of steps."""

from __future__ import annotations

from bitplan.progress import Report


def in_passes(report: Report, passes: int) -> Report:
    """Takes the reports of each pass, which begin anew with every one, and reports them as parts of the whole: as many
    steps as `passes` times those of the first. All passes count alike, however many steps they tell of."""
    begun, last, size = 0, 0.0, 0

    def told(done: int, total: int, doing: str) -> None:
        nonlocal begun, last, size
        share = done / max(total, 1)
        if share < last:
            begun += 1
        last, size = share, size or total
        whole = min(begun + share, passes)
        report(int(whole * size), passes * size, doing)

    return told
