"""How many workers an interface gets by itself."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from wgpy.constants import MAX_WORKERS
from wgpy.errors import ControlError
from wgpy.net import queues
from wgpy.workers import count
from wgpy.workers.count import cores, make_room, number_of_workers, why_one


@pytest.mark.parametrize(
    ("allowed", "peers", "expected"),
    [(1, 100, 1), (2, 0, 1), (2, 1, 1), (2, 2, 2), (4, 3, 3), (8, 100, 8), (64, 100, 8)],
)
def test_there_is_one_worker_per_core_but_no_more_than_peers(
    allowed: int, peers: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(count, "OWN_CGROUPS", Path("/nonexistent"))
    assert number_of_workers("auto", peers) == expected
    assert number_of_workers(3, peers) == 3


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 16),
        ({"": "max 100000", "pods/one": "max 100000"}, 16),
        ({"pods/one": "150000 100000"}, 2),
        ({"pods": "400000 100000", "pods/one": "max 100000"}, 4),
        ({"": "100000 100000", "pods/one": "800000 100000"}, 1),
        ({"pods/one": "1000 100000"}, 1),
        ({"pods/one": "nonsense"}, 16),
    ],
)
def test_a_quota_of_processor_time_limits_the_cores(
    quotas: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(count, "CGROUPS", tmp_path)
    monkeypatch.setattr(count, "OWN_CGROUPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("1:cpu:/elsewhere\n0::/pods/one\n")
    (tmp_path / "pods/one").mkdir(parents=True)
    for group, quota in quotas.items():
        (tmp_path / group / "cpu.max").write_text(f"{quota}\n")
    assert cores() == expected


def test_a_kernel_that_cannot_sort_datagrams_allows_one_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_one(4) == ""
    monkeypatch.setattr(queues, "SO_ATTACH_REUSEPORT_CBPF", 9999)
    assert why_one(4) == "this kernel cannot sort a port's datagrams among workers: Protocol not available"


def test_too_few_files_are_not_blamed_on_the_kernel() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(limits[0]) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[5], limits[1]))
    try:
        assert why_one(4) == "cannot open UDP port 0: Too many open files"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_limit_of_open_files_is_raised_to_what_many_workers_need_or_the_error_names_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    try:
        make_room(2)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        make_room(MAX_WORKERS)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (5568, hard)
        needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
            patch.setattr(resource, "setrlimit", _refuse)
            with pytest.raises(ControlError, match=f"64 workers need {needed} open files, and the limit is 4096"):
                make_room(MAX_WORKERS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _refuse(kind: int, limits: tuple[int, int]) -> None:
    raise ValueError("current limit exceeds maximum limit")
