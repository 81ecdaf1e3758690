"""Training steps over ranks, simulated until they repeat.

A rank computes; where the compiler found a tensor final, its bucket is sent once all its tensors are final on all ranks; where a group of parameters is needed,
the rank waits for the group's buckets of the step before (runtime/program/rank_step.c). So the first layers of a step run while the last
parameters of the step before arrive. The status of a step goes with its last bucket, at its end. A step with results that need averages waits there for
all of its own buckets.

Ranks differ only by `jitter`, the coefficient of variation of a step's computation: a log-normal factor, drawn for each rank and step. Without it one rank
is simulated for all."""
import math
import random
from dataclasses import dataclass

from network import Clock, Cluster, Network
from schedule import BadInput, Schedule

WARM_STEPS = 4
NEED, FINAL, REPORT = range(3)  # events of a step, in this order where they are at the same part of it


@dataclass
class Outcome:
    ranks: int
    step: float  # s
    compute: float  # s, of a step without communication
    communicate: float  # s, of a step without computation
    bucket: int  # bytes; 0: of one rank
    buckets: int
    nic_bytes: float  # that a node sends for a step
    nic_busy: float  # part of the time

    @property
    def efficiency(self):
        """Of linear: against one rank by itself."""
        return self.compute / self.step if self.step > 0 else 1.0

    @property
    def hidden(self):
        """The share of communication, or of computation where that is less, that is not seen in the time of a step."""
        shorter = min(self.compute, self.communicate)
        if shorter <= 0:
            return 1.0
        return max(0.0, min(1.0, (self.compute + self.communicate - self.step) / shorter))


class Run:
    """Some steps. All ranks wait for the same bucket, if any; so one coroutine carries them all, each with a time of its own."""

    def __init__(self, schedule, buckets, cluster, ranks, seconds, jitter, seed, steps):
        self.buckets, self.seconds, self.steps = buckets, seconds, steps
        self.clock = Clock()
        self.network = Network(self.clock, cluster, ranks)
        self.sigma = math.sqrt(math.log(1 + jitter * jitter))
        self.random = random.Random(seed)
        self.count = ranks if jitter else 1
        bucket_of = {t: b for b, bucket in enumerate(buckets) for t in bucket.tensors}
        every = list(range(len(buckets)))
        self.status = bucket_of[len(schedule.tensors) - 1]
        # By the part of a step's computation that is done.
        events = [(schedule.tensors[bucket.tensors[-1]].final, FINAL, [b]) for b, bucket in enumerate(buckets) if b != self.status]
        events += [(g.need, NEED, sorted({bucket_of[t] for t in g.tensors}) if g.tensors else every) for g in schedule.groups if g.need < 1]
        self.events = sorted(events, key=lambda e: e[:2]) + [(1.0, NEED, every), (1.0, FINAL, [self.status])]
        if schedule.has_report:
            self.events.append((1.0, REPORT, every))
        self.arrived = [0] * len(buckets)  # steps
        self.arrival = [0.0] * len(buckets)  # when, the last one
        self.starts = []

    def durations(self):
        if not self.sigma:
            return [self.seconds] * self.count
        return [self.seconds * math.exp(self.random.gauss(0, self.sigma) - self.sigma * self.sigma / 2) for _ in range(self.count)]

    def ranks(self):
        """Yields a bucket and the number of times it must have arrived."""
        times = [0.0] * self.count
        for step in range(self.steps):
            self.starts.append(max(times))
            seconds, at = self.durations(), 0.0
            for part, kind, which in self.events:
                if part > at:
                    times = [t + (part - at) * s for t, s in zip(times, seconds)]
                    at = part
                for b in which:
                    if kind == FINAL:
                        self.clock.at(max(times), lambda b=b: self.network.all_reduce(self.buckets[b], lambda: self.arrive(b)))
                        continue
                    times_sent = step + (kind == REPORT)
                    if self.arrived[b] < times_sent:
                        yield b, times_sent
                    when = self.arrival[b]
                    if when > min(times):
                        times = [max(t, when) for t in times]
        self.starts.append(max(times))

    def arrive(self, bucket):
        self.arrived[bucket] += 1
        self.arrival[bucket] = self.clock.now
        self.go_on()

    def go_on(self):
        while self.waits and self.arrived[self.waits[0]] >= self.waits[1]:
            self.waits = next(self.all, None)

    def run(self):
        """Seconds, and the number of steps that took them."""
        self.all = self.ranks()
        self.waits = next(self.all, None)
        self.clock.run()
        if len(self.starts) != self.steps + 1:
            raise AssertionError("step %d waits for a bucket that nobody sends" % len(self.starts))
        first = min(WARM_STEPS, self.steps - 1)
        return self.starts[-1] - self.starts[first], self.steps - first


def simulate(schedule: Schedule, cluster: Cluster, ranks, seconds, bucket=0, jitter=0.0, seed=1, steps=12):
    """Steps of `seconds` of computation each over so many ranks."""
    if ranks < 1 or (ranks > cluster.gpus and ranks % cluster.gpus):
        raise BadInput("%d workers are not a whole number of nodes with %d each" % (ranks, cluster.gpus))
    if ranks == 1:
        return Outcome(1, seconds, seconds, 0.0, 0, 0, 0.0, 0.0)
    latency, bandwidth = cluster.measured(ranks)
    bucket = bucket or schedule.choose(seconds, ranks, latency, min(bandwidth, 1e30))
    buckets = schedule.cut(bucket, ranks)
    run = Run(schedule, buckets, cluster, ranks, seconds, jitter, seed, steps)
    total, count = run.run()
    nic = run.network.nic
    communicate, silent = Run(schedule, buckets, cluster, ranks, 0.0, 0.0, seed, steps).run()
    step = total / count
    return Outcome(ranks, step, seconds, communicate / silent, bucket, len(buckets), nic.bytes / steps, nic.busy / steps / step if step else 0.0)
