"""The tumbling windows of windows.rs in Bytewax, on the same readings: `windows.py READINGS KEYS EACH`.

Prints microseconds of CPU for a reading, the making of the readings not counted, peak memory in KiB,
and how many results there were.
"""

import json
import resource
import sys
from datetime import datetime, timedelta, timezone

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.testing import TestingSource, run_main

READINGS, KEYS, EACH = (int(word) for word in sys.argv[1:4])
PAGE = 256
WINDOW = timedelta(minutes=1)
BEGAN = datetime(2023, 11, 14, 22, 13, tzinfo=timezone.utc)


def readings():
    step = 60_000_000 // (KEYS * EACH)
    for n in range(READINGS):
        key = f"plant/device-{n * 7919 % KEYS:06}"
        time = BEGAN + timedelta(microseconds=n * step)
        temperature = 15 + n * 31 % 1000 / 100
        payload = f'{{"temperature":{temperature:.2f},"pressure":101.325,"ok":true}}'
        yield key, (time, payload)


def fold(state, reading):
    temperature = json.loads(reading[1])["temperature"]
    count, total, most = state
    return count + 1, total + temperature, max(most, temperature)


def merge(a, b):
    return a[0] + b[0], a[1] + b[1], max(a[2], b[2])


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


results = 0


def count(result):
    global results
    results += 1
    return False


def main():
    flow = Dataflow("windows")
    stream = op.input("readings", flow, TestingSource(readings(), PAGE))
    clock = EventClock(lambda reading: reading[0], timedelta(0))
    windows = fold_window(
        "tumbling", stream, clock, TumblingWindower(WINDOW, BEGAN), lambda: (0, 0.0, float("-inf")), fold, merge
    )
    # The source of a flow must lead to a sink: here nothing reaches it.
    op.inspect("out", op.filter("count", windows.down, count))
    before = cpu()
    for _ in readings():
        pass
    making, before = cpu() - before, cpu()
    run_main(flow)
    busy = cpu() - before - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(busy * 1e6 / READINGS, peak, results)


main()
