"""Shadowing, each part by itself: keys, what is drawn and counted, bytes on the wire, what became of answers."""

from __future__ import annotations

import random

import numpy as np
import orjson
import pytest

from vectorindex_searcher import contract
from vectorindex_searcher.contract import Metric, PairEvidence
from vectorindex_searcher.serve.shadow.answers import fates
from vectorindex_searcher.serve.shadow.counts import PairRows
from vectorindex_searcher.serve.shadow.rates import Draw, Rates
from vectorindex_searcher.serve.shadow.sender import receiver_of
from vectorindex_searcher.serve.shadow.wire import MalformedError, Packed, decode, join, query_hash

DIMENSION = 8
SHADOW_KEY = "923d970ca28090be864042ef54df5b692e0ecefc7bb464a94b5a5c12bb7bf720"
SEALED = "000102030405060708090a0b0c0d0e0f11b997042cb930479acf4ddd5ad67f26477a91e59d47a95ddb8e2ed0ef32fa03"

# ---------------------------------------------------------------- keys


def test_keys_are_the_ones_in_the_documentation() -> None:
    """An image of one release checks what another signs, so these never change. Made with openssl."""
    key = contract.shadow_key("k" * 64)
    assert key == SHADOW_KEY
    sealed = contract.seal_shadow_key(key, "s" * 64, bytes(range(16)))
    assert sealed == SEALED
    assert contract.open_shadow_key(sealed, "s" * 64) == key


def test_who_hears_a_lease_does_not_learn_the_key() -> None:
    key = contract.shadow_key("k" * 64)
    sealed = contract.seal_shadow_key(key, "s" * 64, bytes(16))
    assert key not in sealed
    assert contract.open_shadow_key(sealed, "t" * 64) != key


@pytest.mark.parametrize("sealed", ["x", "0" * 95, "0" * 97, "G" * 96, "A" * 96])
def test_what_nobody_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(ValueError, match="not a sealed"):
        contract.open_shadow_key(sealed, "s" * 64)
    with pytest.raises(ValueError, match="nonce"):
        contract.seal_shadow_key("00" * 32, "s" * 64, b"short")


def test_without_a_master_key_nothing_is_sealed() -> None:
    assert (
        contract.shadow_key("") == contract.seal_shadow_key("", "", bytes(16)) == contract.open_shadow_key("", "") == ""
    )


# ---------------------------------------------------------------- what is drawn


def draws(rates: Rates, per_second: dict[str, float], seconds: float, seed: int = 1) -> list[tuple[str, Draw | None]]:
    rng, found = random.Random(seed), []
    arrivals = []
    for segment, rate in per_second.items():
        at = 0.0
        while (at := at + rng.expovariate(rate)) < seconds:
            arrivals.append((at, segment))
    for at, segment in sorted(arrivals):
        found.append((segment, rates.draw(segment, at)))
    return found


def test_below_the_rate_everything_is_sent_and_is_the_uniform_sample() -> None:
    found = draws(Rates(50, ("rare", "other"), 0.0), {"rare": 1, "other": 30}, 60)
    assert {drawn for _, drawn in found} == {Draw.OVERALL}


def test_above_the_rate_no_more_is_sent_half_of_it_uniform_and_each_segment_has_its_part() -> None:
    found = draws(Rates(50, ("rare", "other"), 0.0), {"rare": 10, "other": 990}, 60)
    sent = [(segment, drawn) for segment, drawn in found if drawn is not None]
    assert 0.9 * 50 * 60 <= len(sent) <= 50 * 61
    overall = [segment for segment, drawn in sent if drawn is Draw.OVERALL]
    assert len(overall) == pytest.approx(25 * 60, rel=0.1)
    assert overall.count("rare") / len(overall) == pytest.approx(0.01, abs=0.01)
    # A hundredth of the traffic, and all of it is sent: less than its quarter of the rate.
    assert sum(segment == "rare" for segment, _ in sent) >= 0.95 * sum(segment == "rare" for segment, _ in found)


def test_with_one_segment_all_of_it_is_the_uniform_sample() -> None:
    found = draws(Rates(20, ("other",), 0.0), {"other": 500}, 20)
    assert {drawn for _, drawn in found} == {Draw.OVERALL, None}


def test_a_pod_always_gets_the_same_query_and_few_change_when_one_comes() -> None:
    names = [query_hash(np.float32(n).tobytes(), 10, {}) for n in range(600)]
    three = [receiver_of(name, ("10.0.0.1", "10.0.0.2", "10.0.0.3")) for name in names]
    four = [receiver_of(name, ("10.0.0.4", "10.0.0.3", "10.0.0.1", "10.0.0.2")) for name in names]
    assert min(three.count(address) for address in set(three)) > 150
    moved = [after for before, after in zip(three, four, strict=True) if before != after]
    assert set(moved) == {"10.0.0.4"}
    assert 90 < len(moved) < 220


def test_the_same_query_has_the_same_name_and_no_other_has() -> None:
    vector = np.ones(4, np.float32).tobytes()
    name = query_hash(vector, 10, {"filter": {"a": 1, "b": 2}, "params": {"nprobe": 3}})
    assert name == query_hash(bytes(bytearray(vector)), 10, {"params": {"nprobe": 3}, "filter": {"b": 2, "a": 1}})
    others = [
        (vector[1:] + vector[:1], 10, {}),
        (vector, 11, {}),
        (vector, 10, {}),
        (vector, 10, {"params": {"nprobe": 4}}),
    ]
    assert len({name, *(query_hash(*one) for one in others)}) == 5


# ---------------------------------------------------------------- what is counted


def evidence_of(rows: PairRows) -> PairEvidence:
    document = rows.document({"pod": "p", "revision": "r", "incarnation": "i", "now": 1.0, "judged": "r"})
    assert len(document) <= contract.PAIRS_BYTES
    return PairEvidence.model_validate_json(document)


def test_what_is_of_the_uniform_half_counts_for_its_segment_too() -> None:
    rows = PairRows("s", "stable")
    rows.add(7, "rare", {"pairs": 1, "c_sum": 0.5}, overall=True)
    rows.add(7, "rare", {"pairs": 1, "c_sum": 0.25}, overall=False)
    rows.add(8, "other", {"dropped": 3}, overall=False)
    found = {(row.bucket, row.segment): row for row in evidence_of(rows).rows}
    assert found.keys() == {(7, "rare"), (7, ""), (8, "other")}
    assert (found[7, "rare"].pairs, found[7, "rare"].c_sum) == (2, 0.75)
    assert (found[7, ""].pairs, found[7, ""].c_sum) == (1, 0.5)
    assert found[8, "other"].dropped == 3


def test_an_hour_is_kept_and_what_is_older_is_no_evidence() -> None:
    rows = PairRows("s")
    for bucket in range(1000, 1800):
        rows.add(bucket, "other", {"pairs": 1}, overall=False)
    rows.add(1000, "other", {"pairs": 1}, overall=False)
    assert sorted({row.bucket for row in evidence_of(rows).rows}) == list(range(1080, 1800))


def test_an_answer_is_never_too_long_and_adds_up_to_the_same() -> None:
    rng, rows = random.Random(3), PairRows("s", "stable")
    total = dict.fromkeys(contract.PAIR_COUNTERS, 0.0)
    whole = {name for name, field in contract.PairCounts.model_fields.items() if field.annotation is int}
    for bucket in range(150):
        for segment in range(33):
            counts = {name: rng.randrange(9) if name in whole else rng.random() for name in contract.PAIR_COUNTERS}
            rows.add(bucket, f"segment-{segment}", counts, overall=False)
            for name, value in counts.items():
                total[name] += value
    found = evidence_of(rows).rows
    assert 100 < len(found) < 150 * 33
    for name, value in total.items():
        assert sum(getattr(row, name) for row in found) == pytest.approx(value)


# ---------------------------------------------------------------- bytes


def body(text: bool = False, count: int = 3, **more: object) -> bytes:
    names = ["ä", "bcd"]
    data = "".join(names).encode()
    known = {"segment": "rare", "k": 3, "seconds": 0.001, "overall": True, "hits": 2, "answers": 2, "first": 0.9}
    vectors = np.random.default_rng(1).standard_normal((count, DIMENSION)).astype(np.float32)
    packed = [
        Packed(
            head=orjson.dumps(known | more),
            vector=vector.tobytes(),
            name=bytes([n] * 16),
            scores=np.array([0.9, 0.5]).tobytes(),
            numbers=(np.array([2, 3], np.uint32) if text else np.array([7, 8])).tobytes(),
            text=data if text else b"",
        )
        for n, vector in enumerate(vectors)
    ]
    return join("docs@1", "docs-old", DIMENSION, packed, text=text)


@pytest.mark.parametrize("text", [False, True])
def test_queries_are_the_same_on_the_other_side(text: bool) -> None:
    batch = decode(body(text, fields={"filter": {"a": {"in": [1, 2]}}, "minScore": 0.5}), Metric.COSINE)
    assert (batch.shadow, batch.sender, batch.dimension) == ("docs@1", "docs-old", DIMENSION)
    assert [query.name for query in batch.queries] == [bytes([n] * 16) for n in range(3)]
    for query in batch.queries:
        assert query.asked.fields == {"filter": {"a": {"in": [1, 2]}}, "minScore": 0.5}
        assert list(query.ids) == (["ä", "bcd"] if text else [7, 8])
        assert query.scores.tolist() == [0.9, 0.5]
    vectors = np.random.default_rng(1).standard_normal((3, DIMENSION)).astype(np.float32)
    np.testing.assert_array_equal([query.vector for query in batch.queries], vectors)


def changed_head(data: bytes, **more: object) -> bytes:
    line, _, rest = data.partition(b"\n")
    return orjson.dumps(orjson.loads(line) | more) + b"\n" + rest


def changed_query(data: bytes, **more: object) -> bytes:
    line, _, rest = data.partition(b"\n")
    head = orjson.loads(line)
    head["queries"][1] |= more
    return orjson.dumps(head) + b"\n" + rest


NOT_A_NUMBER = np.float32("nan").tobytes()
HOSTILE = {
    "nothing": b"",
    "no end of the head": b"{" * 1000,
    "no JSON": b"nonsense\n",
    "JSON without an end": b"[" * 100_000 + b"\n",
    "no object": b"[]\n",
    "no queries": changed_head(body(), queries=[]),
    "too many queries": changed_head(body(), queries=[orjson.loads(body().partition(b"\n")[0])["queries"][0]] * 65),
    "another dimension": changed_head(body(), dimension=DIMENSION + 1),
    "a dimension beyond all memory": changed_head(body(), dimension=2**40),
    "the largest dimension": changed_head(body(), dimension=65536),
    "no id of a shadow": changed_head(body(), shadow="\n"),
    "more answers than came": changed_query(body(), answers=100),
    "more answers than there may be": changed_query(body(), answers=2**31),
    "fewer than none": changed_query(body(), answers=-1),
    "k beyond what anybody asks": changed_query(body(), k=10**9),
    "a first score that is no number": body().replace(b'"first":0.9', b'"first":1e999'),
    "cut off": body()[:-1],
    "with more behind it": body() + b"\0",
    "text cut off": body(text=True)[:-1],
    "text with more behind it": body(text=True) + b"x",
    "ids of four gigabytes": body(text=True).replace(np.array([2, 3], "<u4").tobytes(), b"\xff" * 8),
    "no UTF-8": body(text=True).replace("ä".encode(), b"\xff\xff"),
    "too long": body() + b"\0" * contract.SHADOW_BYTES,
    "a vector that is no number": body().replace(
        np.random.default_rng(1).standard_normal((3, DIMENSION)).astype(np.float32)[1, :1].tobytes(), NOT_A_NUMBER
    ),
    "a score that is no number": body().replace(np.float64(0.5).tobytes(), np.float64("inf").tobytes()),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_searcher_sent_is_refused(what: str) -> None:
    with pytest.raises(MalformedError):
        decode(HOSTILE[what], Metric.COSINE)


def test_whatever_comes_is_read_or_refused() -> None:
    rng = random.Random(7)
    for _ in range(400):
        data = bytearray(body(text=rng.random() < 0.5))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        try:
            batch = decode(bytes(data), Metric.COSINE)
        except MalformedError:
            continue
        assert 1 <= len(batch.queries) <= contract.SHADOW_QUERIES
        assert all(len(one.vector) == batch.dimension for one in batch.queries)


# ---------------------------------------------------------------- what became of answers


def kinds(before: list[float], now: list[float | None], answered: list[bool], last: float) -> tuple[int, ...]:
    exact = np.array([-np.inf if one is None else one for one in now])
    found = fates(np.array(before), exact, np.array(answered), last)
    return found.kept, found.gone, found.changed, found.displaced, found.missed


def test_each_answer_is_of_one_kind() -> None:
    before = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert kinds(before, [0.9, None, 0.3, 0.6, 0.5], [True, False, False, False, False], 0.55) == (1, 1, 1, 1, 1)


def test_a_tie_with_the_last_one_is_kept() -> None:
    assert kinds([0.9, 0.5], [0.9, 0.5], [True, False], 0.5 - 1e-9) == (2, 0, 0, 0, 0)
    assert kinds([0.9, 0.5], [0.9, 0.5], [True, False], 0.499) == (1, 0, 0, 0, 1)
    assert kinds([0.9, 0.5], [0.9, 0.5], [True, False], 0.501) == (1, 0, 0, 1, 0)


def test_where_fewer_than_k_were_found_whatever_is_there_is_missed() -> None:
    assert kinds([0.9, 0.1], [0.9, 0.1], [True, False], -np.inf) == (1, 0, 0, 0, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_answer_changes_by_two_percent_of_its_score_whatever_its_sign(sign: int) -> None:
    """Minus a squared distance is a score, too."""
    assert kinds([sign * 100.0], [sign * 101.9], [True], -1000) == (1, 0, 0, 0, 0)
    assert kinds([sign * 100.0], [sign * 102.2], [True], -1000) == (0, 0, 1, 0, 0)
    assert kinds([sign * 100.0], [sign * 97.8], [True], -1000) == (0, 0, 1, 0, 0)


def test_a_row_that_is_the_query_does_not_change_by_rounding() -> None:
    assert kinds([-1e-13, -4.0], [-9e-13, -4.0], [True, True], -4.0) == (2, 0, 0, 0, 0)


def test_shares_are_of_the_query() -> None:
    found = fates(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.9, 0.8, 0.1, 0.6]), np.array([True, False, False, True]), 0.1
    )
    counts = found.counts()
    assert (counts["missed_sum"], counts["changed_sum"], counts["missed_squares"]) == (0.25, 0.25, 0.0625)
    assert counts["answers_judged"] == 1
