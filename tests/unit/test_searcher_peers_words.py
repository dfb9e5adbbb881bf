"""What another pod says: any bytes, which cost little to refuse (contract.Model.of_peer)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from vectorindex_searcher import contract

CANARY = contract.ShardCanary(
    gate_hash="g", shard=2, k=2, recall=0.5, available=(2, 1), scores=((0.5, -1e-7), (3,)), right=((0,), ())
)
HOSTILE = {
    "lists": b'{"x":[' + b"[]," * 700_000 + b"0]}",
    "objects": b'{"x":[' + b"{}," * 700_000 + b"0]}",
    "numbers": b'{"scores":[[' + b"0.1," * 500_000 + b"0]]}",
    "names": b"{" + b",".join(b'"%x":0' % number for number in range(200_000)) + b"}",
}
MEASURE = """
import resource, sys
from pydantic import ValidationError
from vectorindex_searcher import contract
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    contract.ShardCanary.of_peer(data)
except ValidationError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_what_is_right_is_read_as_it_was_written() -> None:
    assert contract.ShardCanary.of_peer(CANARY.model_dump_json(by_alias=True).encode()) == CANARY
    nearest = contract.NearestRows(scores=((1.5,),), widths=((0,),), hits=((None, 2),))
    assert contract.NearestRows.of_peer(nearest.model_dump_json(by_alias=True).encode()) == nearest


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 10_000, b"null", b"[]", b"1", b'{"shard": "two"}'])
def test_what_is_none_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValidationError):
        contract.ShardCanary.of_peer(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_takes_a_bounded_multiple_of_the_bytes(name: str) -> None:
    """In KiB; what pydantic reads as JSON itself takes 60 to 300 times."""
    data = HOSTILE[name]
    done = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 40 * len(data)
