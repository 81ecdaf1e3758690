"""Nodes, what connects them, and how a bucket is summed over all ranks: a discrete-event model.

All nodes have the same load, so one is simulated for all: its NIC, one rank's bus inside the node, and one rank's thread for messages and sums.
A link sends at full rate in both directions at once. It is a queue: what has the highest priority goes next, behind what has been handed over
already. Everything else is a delay. Costs of a message are those of LogGP (Alexandrov et al. 1995): latency, overhead at each end, and time a byte.

    flat          what runtime/net does (collective.c, direct.c, tree.c): straight between all pairs of ranks, wherever they are
    hierarchical  reduce-scatter within the node, all-reduce of each part across nodes, all-gather within the node
"""
import heapq
import math
from dataclasses import dataclass

# Of runtime/net: direct.c, wire.c, carrier.h, collective.c.
LIVE_CHUNKS, SMALLEST_PART, PARTS_BYTES, SUM_MEMORY = 8, 1 << 15, 1 << 23, 1 << 25
WINDOW, PIECE_BYTES, EAGER_BYTES = 4, 1 << 18, 3968 - 64
DIRECT_RANKS, TREE_SUM_BYTES = 8, 65536
MEASURED_BYTES = 1 << 22  # of a message by which a program measures bandwidth (measure.c)


@dataclass(frozen=True)
class Cluster:
    nic: float  # bytes/s of a node in each direction
    latency: float  # s between nodes, one way
    gpus: int = 1  # ranks of a node
    bus: float = math.inf  # bytes/s of a rank to those of its node, in each direction
    bus_latency: float = 0.0
    add: float = math.inf  # bytes of summands a second
    message: float = 0.0  # s of a rank's thread for a message, at each end
    algorithm: str = "flat"
    across: str = "halving"  # hierarchical, between nodes: direct, halving, ring
    piece: int = 1 << 20  # hierarchical: what goes at once

    def nodes(self, ranks):
        return -(-ranks // self.gpus)

    def measured(self, ranks):
        """Latency and bandwidth as a program of so many ranks measures them: those of the slowest pair while all ranks measure."""
        if ranks > self.gpus:
            shared = self.nic / (self.gpus if self.algorithm == "flat" else 1)
            latency = self.latency
        else:
            shared, latency = self.bus, self.bus_latency
        latency += 2 * self.message
        seconds = 3 * latency + MEASURED_BYTES / shared
        return latency, MEASURED_BYTES / seconds if seconds > 0 else math.inf


class Clock:
    def __init__(self):
        self.now, self.count, self.events = 0.0, 0, []

    def at(self, when, run):
        heapq.heappush(self.events, (when, self.count, run))
        self.count += 1

    def after(self, seconds, run):
        self.at(self.now + seconds, run)

    def run(self):
        while self.events:
            self.now, _, run = heapq.heappop(self.events)
            run()


class Queue:
    """Serves one at a time. `window` of them are handed over, in order; the others wait by priority."""

    def __init__(self, clock, window=1):
        self.clock, self.window = clock, window
        self.waiting, self.count, self.handed, self.free, self.busy, self.bytes = [], 0, 0, 0.0, 0.0, 0.0

    def put(self, priority, seconds, run, amount=0.0):
        heapq.heappush(self.waiting, (-priority, self.count, seconds, run))
        self.count += 1
        self.busy += seconds
        self.bytes += amount
        self.hand_over()

    def hand_over(self):
        while self.waiting and self.handed < self.window:
            _, _, seconds, run = heapq.heappop(self.waiting)
            self.free = max(self.free, self.clock.now) + seconds
            self.handed += 1
            self.clock.at(self.free, lambda run=run: self.served(run))

    def served(self, run):
        self.handed -= 1
        run()
        self.hand_over()


class Room:
    """Memory for summands: who does not fit waits by priority. One is let in in any case."""

    def __init__(self, total):
        self.total, self.used, self.waiting, self.count = total, 0, [], 0

    def take(self, priority, amount, run):
        heapq.heappush(self.waiting, (-priority, self.count, amount, run))
        self.count += 1
        self.admit()

    def give(self, amount):
        self.used -= amount
        self.admit()

    def admit(self):
        while self.waiting and (self.used == 0 or self.used + self.waiting[0][2] <= self.total):
            _, _, amount, run = heapq.heappop(self.waiting)
            self.used += amount
            run()


class Network:
    def __init__(self, clock, cluster, ranks):
        self.clock, self.cluster, self.ranks = clock, cluster, ranks
        flat = cluster.algorithm == "flat"
        self.nic = Queue(clock, WINDOW if flat else 1)
        self.bus = Queue(clock, WINDOW if flat else 1)
        self.thread = Queue(clock)
        self.memory = Room(SUM_MEMORY)
        latency, bandwidth = cluster.measured(ranks) if ranks > 1 else (0.0, math.inf)
        # From so many bytes on a bucket is split over the ranks (kvstore/join.c).
        self.large = min(4e6, max(4096, 10 * latency * bandwidth if bandwidth < math.inf else 0))

    # ---- in order: each stage starts the next

    def stages(self, stages, priority, done):
        """Stages: (queue, seconds, bytes), or seconds of delay, or a function of what to call next."""
        def step(i):
            if i == len(stages):
                done()
            elif callable(stages[i]):
                stages[i](lambda: step(i + 1))
            elif isinstance(stages[i], tuple):
                queue, seconds, amount = stages[i]
                queue.put(priority, seconds, lambda: step(i + 1), amount)
            else:
                self.clock.after(stages[i], lambda: step(i + 1))
        step(0)

    def send(self, each, peers):
        """Every rank sends `each` bytes to so many ranks, spread evenly over all others: on its bus, and on its node's NIC."""
        c, others = self.cluster, max(1, self.ranks - 1)
        inside = min(c.gpus, self.ranks) - 1
        on_bus = each * peers * inside / others
        on_nic = each * peers * (others - inside) / others * min(c.gpus, self.ranks)
        return [(self.bus, on_bus / c.bus, on_bus), (self.nic, on_nic / c.nic, on_nic)]

    @property
    def latency(self):
        return self.cluster.latency if self.ranks > self.cluster.gpus else self.cluster.bus_latency

    def handle(self, messages, added=0.0):
        return (self.thread, messages * self.cluster.message + added / self.cluster.add, 0.0)

    # ---- flat

    def direct(self, size, priority, done):
        n = self.ranks
        part = min(PIECE_BYTES, max(SMALLEST_PART, PARTS_BYTES // n))
        sizes = [part * n] * (size // (part * n)) + ([size % (part * n)] if size % (part * n) else [])
        state = {"left": len(sizes), "next": 0}

        def more():
            if state["next"] < len(sizes):
                state["next"] += 1
                chunk(sizes[state["next"] - 1] / n)

        def ended():
            state["left"] -= 1
            if state["left"] == 0:
                done()
            more()

        def chunk(own):
            # Offer, grant, bytes; a small message goes without asking.
            asked, frames = (2 * self.latency, 3) if own > EAGER_BYTES else (0.0, 1)
            room = own * (n - 1) if own > EAGER_BYTES else 0
            handled = self.handle(2 * frames * (n - 1))
            self.stages([handled, asked, lambda next: self.memory.take(priority, room, next), *self.send(own, n - 1), self.latency, self.handle(0, own * n),
                         lambda next: (self.memory.give(room), next()), handled, asked, *self.send(own, n - 1), self.latency], priority, ended)

        for _ in range(LIVE_CHUNKS):
            more()

    def tree(self, size, priority, done):
        """Up and down a binomial tree. A link carries the bytes twice; the levels follow each other."""
        n, levels = self.ranks, math.ceil(math.log2(self.ranks))
        asked, frames = (2 * self.latency, 3) if size > EAGER_BYTES else (0.0, 1)
        level = asked + self.latency + size / self.cluster.nic
        self.stages([self.handle(4 * frames, 2 * size), *self.send(2 * size / n, n - 1), 2 * levels * level], priority, done)

    def items(self, sent, returned, priority, done):
        """One rank, another one for each bucket, adds what all send it."""
        n, c = self.ranks, self.cluster
        rate = c.nic if n > c.gpus else c.bus
        asked, frames = (2 * self.latency, 3) if max(sent, returned) > EAGER_BYTES else (0.0, 1)
        for_owner = (n - 1) * (sent + returned) / rate - sum(seconds for _, seconds, _ in self.send((sent + returned) / n, n - 1))
        self.stages([self.handle(4 * frames, sent), asked + self.latency, *self.send((sent + returned) / n, n - 1), max(0.0, for_owner), asked + self.latency],
                    priority, done)

    # ---- hierarchical

    def hierarchical(self, sent, returned, priority, done):
        c, n, nodes = self.cluster, self.ranks, self.cluster.nodes(self.ranks)
        inside = min(c.gpus, n)
        steps = {"direct": 1, "halving": math.ceil(math.log2(nodes)), "ring": nodes - 1}[c.across] if nodes > 1 else 0
        messages = 2 * (nodes - 1 if c.across == "direct" else steps)
        count = max(1, math.ceil(max(sent, returned) / c.piece))
        state = {"left": count}

        def ended():
            state["left"] -= 1
            if state["left"] == 0:
                done()

        within, beyond = (inside - 1) / inside, (nodes - 1) / nodes
        up, down = sent / count, returned / count
        stages = []
        if inside > 1:
            stages += [(self.bus, up * within / c.bus, up * within), c.bus_latency, self.handle(0, up)]
        if nodes > 1:
            stages += [self.handle(messages), (self.nic, up * beyond / c.nic, up * beyond), steps * c.latency, self.handle(0, up / inside),
                       self.handle(messages), (self.nic, down * beyond / c.nic, down * beyond), steps * c.latency]
        if inside > 1:
            stages += [(self.bus, down * within / c.bus, down * within), c.bus_latency]
        for _ in range(count):
            self.stages(stages, priority, ended)

    # ----

    def all_reduce(self, bucket, done):
        size = bucket.bytes
        if self.ranks == 1 or size == 0:
            self.clock.after(0, done)
        elif self.cluster.algorithm == "hierarchical":
            self.hierarchical(size, bucket.returned, bucket.priority, done)
        elif bucket.is_sparse or size < self.large:
            self.items(size, bucket.returned, bucket.priority, done)
        elif self.ranks > DIRECT_RANKS and size <= TREE_SUM_BYTES:
            self.tree(size, bucket.priority, done)
        else:
            self.direct(size, bucket.priority, done)
