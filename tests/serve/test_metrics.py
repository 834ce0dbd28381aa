"""The counters' text, by hand."""

from __future__ import annotations

from dvsn.serve.metrics import Metrics


def test_the_text() -> None:
    metrics = Metrics()
    metrics.requests["street", 200] += 2
    metrics.requests["street", 413] += 1
    metrics.requests["", 404] += 1
    metrics.batches.add("street", 1)
    metrics.batches.add("street", 3)
    metrics.batches.add("street", 99)
    metrics.gauges = {"dvsn_a": ("A.", lambda: {"": 2.0}), "dvsn_b": ("B.", lambda: {"street": 0.5})}
    lines = metrics.text().splitlines()
    assert 'dvsn_requests_total{model="street",status="200"} 2' in lines
    assert 'dvsn_requests_total{model="street",status="413"} 1' in lines
    buckets = [line.rpartition(" ")[2] for line in lines if line.startswith("dvsn_batch_pictures_bucket")]
    assert buckets == ["1", "1", "2", "2", "2", "2", "3"]  # up to 1, 2, 4, 8, 16, 32, any
    assert 'dvsn_batch_pictures_sum{model="street"} 103.000000' in lines
    assert 'dvsn_batch_pictures_count{model="street"} 3' in lines
    assert lines[-1] == 'dvsn_b{model="street"} 0.5'
    assert "dvsn_a 2" in lines
    assert metrics.text().endswith("\n")
    assert metrics.summary() == "2 answered, 2 refused"
