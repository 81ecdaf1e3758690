"""Several hosts for real: network namespaces, joined by a bridge over links of 1 Gbit/s (with 0.5 ms of delay each way where the kernel has
netem), each with a name of its own; mpirun reaches them through a script in ssh's place. The same bits; a host that is cut off is noticed."""
import contextlib
import os
import re
import shutil
import sys
import time

from jobs import ROOT, Job, Ranks, Skip, expect, must, need_mpi, same, sh, write

NET = '10.%d.%d' % (64 + os.getpid() // 250 % 64, os.getpid() % 250)


class Hosts:
    def __init__(self, folder, count):
        self.name = 'mxr%d' % (os.getpid() % 100000)
        self.count, self.delayed = count, True
        self.agent = write(os.path.join(folder, 'agent.sh'), '''#!/bin/sh
# agent HOST COMMAND…, as ssh: in that host's namespace, under its name.
while :; do case $1 in -*) shift ;; *) break ;; esac; done
n=${1##*.}
shift
exec ip netns exec %s-$n unshare --uts sh -c "hostname %s-$n; $*"
''' % (self.name, self.name))
        os.chmod(self.agent, 0o755)

    def up(self):
        ip = ['ip']
        must([*ip, 'netns', 'add', self.name])
        must([*ip, '-n', self.name, 'link', 'add', 'bridge', 'type', 'bridge'])
        must([*ip, '-n', self.name, 'link', 'set', 'bridge', 'up'])
        for i in range(1, self.count + 1):
            host = '%s-%d' % (self.name, i)
            must([*ip, 'netns', 'add', host])
            must([*ip, 'link', 'add', 'net0', 'netns', host, 'type', 'veth', 'peer', 'name', 'port%d' % i, 'netns', self.name])
            must([*ip, '-n', host, 'addr', 'add', '%s.%d/24' % (NET, i), 'dev', 'net0'])
            for link in ('net0', 'lo'):
                must([*ip, '-n', host, 'link', 'set', link, 'up'])
            must([*ip, '-n', self.name, 'link', 'set', 'port%d' % i, 'master', 'bridge', 'up'])
            must(['tc', '-n', host, 'qdisc', 'add', 'dev', 'net0', 'root', 'handle', '1:', 'tbf', 'rate', '1gbit', 'burst', '256kb', 'latency', '50ms'])
            self.delayed &= sh(['tc', '-n', host, 'qdisc', 'add', 'dev', 'net0', 'parent', '1:', 'netem', 'delay', '500us']).status == 0

    def down(self):
        for i in range(self.count + 1):
            sh(['ip', 'netns', 'del', '%s-%d' % (self.name, i) if i else self.name])

    def file(self, places, folder):
        """A host file: places[i] ranks on host i."""
        return write(os.path.join(folder, 'hosts-%s' % '-'.join(map(str, places))),
                     ''.join('%s.%d slots=%d\n' % (NET, i + 1, n) for i, n in enumerate(places)))

    def on_first(self):
        """Begins a command that runs on the first host, whose mpirun finds the others."""
        settings = {'plm_rsh_agent': self.agent, 'oob_tcp_if_include': NET + '.0/24', 'btl_tcp_if_include': NET + '.0/24',
                    'btl': 'tcp,self,vader', 'btl_vader_single_copy_mechanism': 'none', 'rmaps_base_mapping_policy': 'slot'}
        return ['ip', 'netns', 'exec', self.name + '-1', 'env', *('OMPI_MCA_%s=%s' % x for x in settings.items()),
                'unshare', '--uts', 'sh', '-c', 'hostname %s-1; exec "$@"' % self.name, 'sh']

    def mpirun(self, places, folder):
        return [*self.on_first(), 'mpirun', '--allow-run-as-root', '--oversubscribe', '--enable-recovery', '--hostfile', self.file(places, folder)]

    def bytes_sent(self, i):
        text = must(['ip', '-s', '-n', '%s-%d' % (self.name, i), 'link', 'show', 'net0']).out
        return int(re.search(r'TX:.*\n\s*(\d+)', text).group(1))


def available():
    need_mpi()
    for tool in ('ip', 'tc', 'unshare'):
        if not shutil.which(tool):
            raise Skip('there is no %s (Debian: iproute2, util-linux)' % tool)
    if os.geteuid() != 0:
        raise Skip('network namespaces need root')
    name = 'mxr-try-%d' % os.getpid()
    tried = sh(['ip', 'netns', 'add', name])
    if tried.status == 0:
        tried = sh(['ip', '-n', name, 'link', 'add', 'net0', 'type', 'veth', 'peer', 'name', 'net1'])
        if tried.status == 0:
            tried = sh(['tc', '-n', name, 'qdisc', 'add', 'dev', 'net0', 'root', 'tbf', 'rate', '1gbit', 'burst', '256kb', 'latency', '50ms'])
        sh(['ip', 'netns', 'del', name])
    if tried.status != 0:
        raise Skip('this machine makes no network namespaces: %s' % tried.err.strip())


@contextlib.contextmanager
def hosts(folder, count):
    available()
    h = Hosts(folder, count)
    try:
        h.up()
        yield h
    finally:
        h.down()


def cases(env):
    r = Ranks(env)
    folder = env.folder('hosts')
    options = ('--epochs', '2', '--batch', '26')

    def job(h, places, name, out, *more):
        words = r.command(name, out, *more, '--kvstore', 'dist_sync', '--threads', '1')
        return Job(words, sum(places), prefix=h.mpirun(places, folder))

    def bits():
        with hosts(folder, 4) as h:
            for places, name, more in (((2, 1, 1), 'plain', ()), ((1, 1), 'plain', ('--shard',)), ((1, 2), 'plain', ('--servers', '2')), ((1, 1, 1, 1), 'tied', ()), ((2, 2), 'tied', ())):
                out = r.folder('hosts')
                before = [h.bytes_sent(i + 1) for i in range(len(places))]
                job(h, places, name, out, *options, *more, '--rank-timeout', '30').succeed()
                same(r.train(name, *options, *more, virtual=sum(places)), out, '%s on hosts of %s ranks' % (' '.join((name,) + more), places))
                for i in range(len(places)):
                    sent = h.bytes_sent(i + 1) - before[i]
                    expect(sent > 20000, 'host %d sent %d bytes: it was no host', i + 1, sent)
            if not h.delayed:
                print('     without delay: the kernel has no netem')

    def rows():
        """A table's gradients and what comes back of it go as rows: nothing like its size leaves a host in a step."""
        options, steps, table = ('--epochs', '1', '--batch', '32', '--steps', '30', '--bucket', '65536'), 30, 4000 * 16 * 4
        with hosts(folder, 2) as h:
            for servers in ('1', '2'):
                out = r.folder('rows')
                before = sum(h.bytes_sent(i) for i in (1, 2))
                job(h, (1, 1), 'rows', out, *options, '--servers', servers, '--rank-timeout', '30').succeed((130,))
                sent = sum(h.bytes_sent(i) for i in (1, 2)) - before
                same(r.train('rows', *options, virtual=2, status=(130,)), out, 'rows on two hosts')
                # Begins and ends with whole tables: first values, the first that come back, moments for the checkpoint. --bucket: nothing is measured.
                expect(sent < steps * table / 2, '%s servers: %d bytes were sent in %d steps of a table of %d', servers, sent, steps, table)

    def cut():
        """Its link goes down: the others notice within the time-out, and go on without it."""
        with hosts(folder, 3) as h:
            out, long = r.folder('cut'), ('--epochs', '100', '--batch', '26')
            j = job(h, (1, 1, 2), 'plain', out, *long, '--rank-timeout', '3')
            try:
                expect(j.wait_for(' to train, ', 1, 90), 'it did not begin\n%s', j.output())
                time.sleep(0.5)
                at = time.monotonic()
                must(['ip', '-n', h.name, 'link', 'set', 'port3', 'down'])
                while time.monotonic() < at + 60 and not {0, 1} <= set(j.exits()):
                    time.sleep(0.02)
                exits = j.exits()
                expect({0, 1} <= set(exits) and exits[0][0] == exits[1][0] == 1, 'exit statuses %s\n%s', exits, j.output())
                slowest = max(exits[k][1] for k in (0, 1)) - at
                expect(slowest < 5, 'noticed after %.1f s\n%s', slowest, j.output())
                told = [x for x in j.lines if ': error: ' in x]
                expect(told and all(re.search(r'rank [23] \(%s-3, ' % h.name, x) for x in told), 'none names a rank of host 3:\n%s', j.output())
                end = time.monotonic() + 15  # the cut host's, too, which cannot tell
                while time.monotonic() < end and j.ranks():
                    time.sleep(0.05)
                expect(not j.ranks(), 'ranks %s live on', sorted(j.ranks()))
            finally:
                j.end()
            r.train('plain', *long, '--resume', virtual=4, out=out)
            same(r.train('plain', *long, virtual=4), out, 'resumed without the host')

    def launched():
        """./run cluster --hosts."""
        with hosts(folder, 2) as h:
            out = r.folder('launched')
            words = r.command('two', out, *options, '--quiet', '--rank-timeout', '30')
            before = h.bytes_sent(2)
            p = sh([*h.on_first(), sys.executable, os.path.join(ROOT, 'tools', 'cluster.py'), '--hosts', h.file((1, 2), folder), '3', *words])
            expect(p.status == 0, '%s', p)
            expect(h.bytes_sent(2) - before > 20000, 'the second host had no rank')
            same(r.train('two', *options, virtual=3), out, 'on two hosts')

    yield 'the same bits', bits
    yield 'rows', rows
    yield 'the launcher', launched
    yield 'a host is cut off', cut
