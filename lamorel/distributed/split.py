"""Shares of a batch by work."""

from collections.abc import Sequence


def split_by_work(work: Sequence[int], processes: int) -> list[list[int]]:
    """Divides positions so that the processes' sums of work are about equal.

    Longest first, each to the process with the least so far (Graham 1969): the largest sum is at most 4/3 of the best
    possible one. Deterministic; ties go to the lower process, so the first processes get the shares of a small batch.

    Args:
        work: B amounts, one per position; tokens of a context and its candidates.

    Returns:
        Per process its positions, ascending; every position once.
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for position in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        lightest = min(range(processes), key=lambda p: (loads[p], len(shares[p]), p))
        shares[lightest].append(position)
        loads[lightest] += work[position]
    return [sorted(share) for share in shares]
