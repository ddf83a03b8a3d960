"""How much the table measures: enough to be believed, all that was promised, or just enough to run."""

from __future__ import annotations

from dataclasses import dataclass

from moe_bulk import Rate

FORMATS = (".ndjson", ".csv", ".csv.gz")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: rounds, requests and rows in each, seconds at a pace."""

    rounds: int
    requests: int
    script_requests: int
    peer_requests: int
    in_flight: tuple[int, ...]
    few_and_many: tuple[int, int]
    pairs: int
    latencies: tuple[float, ...]
    warm_up: int
    paced_requests: int
    cap_seconds: float
    peer_cap_seconds: float
    hasty: Rate
    hasty_requests: int
    formats: tuple[str, ...]
    memory_rows: tuple[int, int]
    http_rows: tuple[int, int]
    read_rows: int
    journal_rows: int
    curve: tuple[int, ...]


QUICK = Size(
    rounds=5,
    requests=1_500,
    script_requests=600,
    peer_requests=400,
    in_flight=(64, 128),
    few_and_many=(16, 256),
    pairs=10,
    latencies=(0.0, 50.0),
    warm_up=256,
    paced_requests=400,
    cap_seconds=75.0,
    peer_cap_seconds=10.0,
    hasty=Rate(100_000, 10.0),
    hasty_requests=20_000,
    formats=FORMATS,
    memory_rows=(10_000, 30_000),
    http_rows=(10_000, 30_000),
    read_rows=100_000,
    journal_rows=50_000,
    curve=(10_000, 30_000),
)
FULL = Size(
    rounds=7,
    requests=10_000,
    script_requests=5_000,
    peer_requests=3_000,
    in_flight=(64, 128),
    few_and_many=(16, 256),
    pairs=22,
    latencies=(0.0, 50.0),
    warm_up=256,
    paced_requests=2_000,
    cap_seconds=300.0,
    peer_cap_seconds=120.0,
    hasty=Rate(600_000, 60.0),
    hasty_requests=600_000,
    formats=FORMATS,
    memory_rows=(10_000, 5_000_000),
    http_rows=(10_000, 1_000_000),
    read_rows=1_000_000,
    journal_rows=500_000,
    curve=(10_000, 31_600, 100_000, 316_000, 1_000_000),
)
SMOKE = Size(
    rounds=1,
    requests=10,
    script_requests=10,
    peer_requests=10,
    in_flight=(4,),
    few_and_many=(2, 4),
    pairs=1,
    latencies=(0.0,),
    warm_up=4,
    paced_requests=10,
    cap_seconds=0.3,
    peer_cap_seconds=0.3,
    hasty=Rate(1_000, 0.1),
    hasty_requests=50,
    formats=(".csv.gz",),
    memory_rows=(20, 100),
    http_rows=(20, 50),
    read_rows=200,
    journal_rows=200,
    curve=(20, 60),
)
SIZES = {"quick": QUICK, "full": FULL, "smoke": SMOKE}
