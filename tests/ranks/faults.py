"""A rank that is killed or stopped at a random moment: the others end in time with a message that names it and status 1, and what they
leave goes on, with as many ranks, to the same bytes as a run without a fault."""
import os
import random
import signal
import time

from jobs import Job, Ranks, checkpoint, environ, expect, need_mpi, same, sh

TIMEOUT = 3.0  # --rank-timeout
SLACK = 2.0
# What a run does after a loss: without --shard, --servers and states of ranks a survivor saves the last step that was complete.
RUNS = {
    'plain': ('plain', ('--epochs', '100', '--batch', '26'), True), 'lines': ('lines', ('--epochs', '20'), True), 'carried': ('carried', ('--epochs', '12'), False),
    'shard': ('plain', ('--epochs', '100', '--batch', '26', '--shard'), False), 'servers': ('plain', ('--epochs', '100', '--batch', '26', '--servers', '1'), False),
}


def cases(env):
    r = Ranks(env)
    straight = {}

    def reference(kind, n):
        if (kind, n) not in straight:
            name, options, _ = RUNS[kind]
            straight[kind, n] = r.train(name, *options, virtual=n)
        return straight[kind, n]

    def alive(pid):
        return environ(pid) != {}

    def one(kind, n, how, chance, title):
        """True if the fault came while the run was under way."""
        name, options, saves = RUNS[kind]
        out, victim = r.folder('fault'), chance.randrange(n)
        job = Job(r.command(name, out, *options, '--kvstore', 'dist_sync', '--rank-timeout', str(TIMEOUT), '--threads', '1'), n)
        try:
            if not job.wait_for(' to train, ', 1, 90):
                expect(False, '%s: it did not begin\n%s', title, job.output())
            pids = job.ranks()
            epoch = chance.randrange(int(options[1]) // 2)
            if epoch:
                job.wait_for('^epoch +%d/' % epoch, 1, 90)
            time.sleep(chance.random() * 0.05)
            if len(job.ranks()) < n or job.exits():
                job.succeed()
                return False
            at = time.monotonic()
            os.kill(pids[victim], signal.SIGKILL if how == 'kill' else signal.SIGSTOP)
            others = set(range(n)) - {victim}
            while time.monotonic() < at + 60 and not others <= set(job.exits()):
                time.sleep(0.02)
            exits = job.exits()
            expect(others <= set(exits), '%s: rank %d: still there: %s\n%s', title, victim, sorted(others - set(exits)), job.output())
            statuses = {rank: exits[rank][0] for rank in others}
            if set(statuses.values()) == {0}:
                return False  # it came as they ended
            expect(set(statuses.values()) == {1}, '%s: rank %d: exit statuses %s\n%s', title, victim, statuses, job.output())
            # A busy machine adds to this: the last of them is what counts.
            slowest = max(exits[rank][1] for rank in others) - at
            expect(slowest <= TIMEOUT + SLACK, '%s: rank %d: the last one ended after %.2f s\n%s', title, victim, slowest, job.output())
            told = [x for x in job.lines if 'error:' in x]
            expect(len(told) == n - 1 and all('rank %d (' % victim in x and 'pid %d' % pids[victim] in x for x in told),
                   '%s: not all name rank %d, pid %d:\n%s', title, victim, pids[victim], '\n'.join(told))
            kept = os.path.exists(checkpoint(out))
            expect(kept or not saves, '%s: nothing was saved\n%s', title, job.output())
        finally:
            job.end()
        resume = ('--resume',) if kept else ()
        p = sh(r.command(name, out, *options, *resume, '--virtual-ranks', str(n)))
        expect(p.status == 0 and 'begin anew' not in p.err, '%s: rank %d: %s', title, victim, p)
        same(reference(kind, n), out, '%s: rank %d of %d' % (title, victim, n))
        return True

    def fault(kind, n, how, seed):
        need_mpi()
        for k in range(5):  # until one is hit
            title = 'seed %d: %s %s' % (seed + k, how, kind)
            if one(kind, n, how, random.Random(seed + k), title):
                return
        expect(False, 'seed %d: every run had ended before', seed)

    def soak(times):
        """A seed repeats it; runs alternate between the kinds."""
        need_mpi()
        hits = k = 0
        while hits < times and k < 3 * times:
            chance = random.Random(env.seed * 1000 + k)
            kind, n, how = chance.choice(sorted(RUNS)), chance.randint(2, 5), chance.choice(['kill', 'stop'])
            hits += one(kind, n, how, chance, 'seed %d, run %d: %s %s' % (env.seed, k, how, kind))
            k += 1
        expect(hits == times, 'seed %d: only %d of %d runs were hit', env.seed, hits, k)
        print('     %d of %d runs were hit while they trained' % (hits, k))

    if env.long:
        yield 'soak', lambda: soak(env.times)
        return
    for k, (kind, n, how) in enumerate((('plain', 3, 'kill'), ('lines', 2, 'stop'), ('carried', 3, 'kill'), ('servers', 3, 'kill'), ('shard', 2, 'stop'))):
        yield '%s: %s' % (how, kind), lambda kind=kind, n=n, how=how, k=k: fault(kind, n, how, env.seed + 100 * k)
