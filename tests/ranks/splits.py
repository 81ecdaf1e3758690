"""Steps that cannot be split over ranks say so, with a place, when ranks are asked for; the generated C of those that can is clean."""
import os
import re

from jobs import Ranks, expect, must, points_csv, read, same, sh, write

STRICT = '-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'.split()

HEAD = '''use nn
use optim
net = nn.Dense(8, 3)
opt = optim.SGD(net)
state seen: f32[3] = 0
fn loss_of(x: f32[N, 8], y: i32[N]) -> f32 = mean(nn.cross_entropy(net(x), y))
'''
TRAIN = '''
train {
    data = csv("points.csv", x = columns(0, 8) / 8.0, y = column(8))
    batch = 16
    step = step
}
'''
STEP = 'export train fn step(x: f32[N <= 32, 8], y: i32[N]) -> (loss: f32) {\n'

# name: (the text behind HEAD, words of the reason, words of the line that is named)
REFUSED = {
    'second gradient': (STEP + '''    let loss = loss_of(x, y)
    opt.update(grad(loss, net))
    opt.update(grad(loss_of(x, y), net))  // the place
    return loss
}''', 'this gradient depends on an update that was made in the same call'),
    'in a loop': (STEP + '''    var total = 0.0
    for i in 0..2 {
        let loss = loss_of(x, y)
        total += loss
        opt.update(grad(loss, net))  // the place
    }
    return total
}''', 'a gradient of parameters is taken inside a loop or branch'),
    'parameter by data': (STEP + '''    let loss = loss_of(x, y)
    opt.update(grad(loss, net))
    net.bias += 0.01 * mean(x)  // the place
    return loss
}''', 'a parameter changes by something that differs between ranks, beside its gradient'),
    'state of both': (STEP + '''    let loss = loss_of(x, y)
    let g = grad(loss, net)
    seen = g[1] * loss  // the place
    opt.update(g)
    return loss
}''', 'a state mixes gradients with something that differs between ranks'),
    'result of both': (STEP + '''    let loss = loss_of(x, y)
    let g = grad(loss, net)
    opt.update(g)
    return loss * sum(g[1])  // the place
}''', 'a result mixes gradients with something that differs between ranks'),
    'no gradient': (STEP + '''    return loss_of(x, y)
}''', 'it takes no gradient of parameters'),
    'C code': ('extern "watch.h" {\n    fn watch(g: f32[3]) -> f32[3] = watch_f32(g, 3, result)\n}\n' + STEP + '''    let loss = loss_of(x, y)
    let g = grad(loss, net)
    opt.update([g[0], watch(g[1])])  // the place
    return loss
}''', 'C code is called with what depends on a gradient'),
    'inout': ('export train fn step(x: f32[N <= 32, 8], y: i32[N], inout z: f32[N]) -> (loss: f32) {\n' + '''    let loss = loss_of(x, y)
    opt.update(grad(loss, net))
    z += 1
    return loss
}''', 'it has an inout argument'),
    'found size': ('''fn positive(y: i32[N]) -> i32[K <= N] {
    var at = zeros(i32[N])
    var k = 0
    for i in 0..N { if y[i] > 0 { at[k] = i32(i); k += 1 } }
    return at[:k]
}
export train fn step(x: f32[N <= 32, 8], y: i32[N]) -> (loss: f32, which: i32[K <= 32]) {
    let loss = loss_of(x, y)
    opt.update(grad(loss, net))
    return loss, positive(y)
}''', 'a result has a dimension that is found at run time'),
}


def cases(env):
    r = Ranks(env)
    folder = env.folder('splits')
    points_csv(os.path.join(folder, 'points.csv'), 60)

    def reason(path):
        """What the generated program says, and the place."""
        c = path[:-4] + '.c'
        must([env.mxcc, path, '--main', '-o', c])
        m = re.search(r'static const struct mxrt_split mx_split = \{"((?:[^"\\]|\\.)*)"', read(c))
        return m and m.group(1)

    def refused(name):
        text, words = REFUSED[name]
        train = TRAIN.replace('y = column(8)', 'y = column(8), z = column(0)') if 'inout z' in text else TRAIN
        path = write(os.path.join(folder, name.replace(' ', '_') + '.mxl'), HEAD + text + train)
        why = reason(path)
        expect(why, 'it was split')
        expect(words in why, 'expected "%s", got "%s"', words, why)
        m = re.search(r'([^: ]+\.mxl):(\d+):(\d+): ', why)
        expect(m and os.path.basename(m.group(1)) == os.path.basename(path), 'no place in "%s"', why)
        line = read(path).splitlines()[int(m.group(2)) - 1]
        expect('// the place' in line if '// the place' in text else 'fn step' in line, 'the place is "%s"', line)

    def told():
        """At the command line, before anything is trained; and in one process such a program trains."""
        path = write(os.path.join(folder, 'told.mxl'), HEAD + REFUSED['parameter by data'][0] + TRAIN)
        program = env.program(path)
        p = sh([program, '--virtual-ranks', '2', '--out', os.path.join(folder, 'told')], cwd=folder)
        expect(p.status == 1 and re.search(r'`step` cannot be split over ranks: \S*told\.mxl:\d+:\d+: a parameter changes by', p.err), '%s', p)
        must([program, '--out', os.path.join(folder, 'told'), '--quiet'], cwd=folder)

    def no_ranks():
        program = r.program('two', '--no-ranks')
        p = sh(r.command('two', r.folder('two'), '--virtual-ranks', '2', flags=('--no-ranks',)))
        expect(p.status == 1 and 'made with --no-ranks' in p.err, '%s', p)
        same(r.train('two', flags=('--no-ranks',)), r.train('two'), 'with and without --no-ranks')
        expect(os.path.getsize(program) < os.path.getsize(r.program('two')), 'it is no smaller')

    def bad_options():
        for options, words in (
                (('--servers', '9'), 'servers are ranks'), (('--servers', '1', '--shard'), 'choose one'), (('--shard', '--compression', 'bf16'), 'leave --compression or --shard out'),
                (('--kvstore', 'dist_async'), 'needs servers'), (('--batch', '1'), 'without a sample')):
            r.fails('two', *options, words=[words])
        r.fails('lines', '--servers', '1', words=['--servers', 'common norm'])
        for options in (('--compression', '3bit'), ('--rank-timeout', '0'), ('--bucket', 'x'), ('--virtual-ranks', '0'), ('--kvstore', 'here')):
            p = sh([r.program('two'), *options])
            expect(p.status == 2 and 'expected' in p.err, '%s', p)

    def clean(name):
        """Without a warning, by every compiler here, in one file and in pieces."""
        c = os.path.join(folder, name + '.c')
        must([env.mxcc, r.source(name), '--main', '-o', c])
        must([env.mxcc, r.source(name), '--main', '--split', '3', '-o', os.path.join(folder, name + '-split.c')])
        flags = must([env.mxcc, '--cflags']).out.split()
        for compiler in env.compilers:  # some warnings need the flow of data, which takes long
            how = ['-O1', '-c', '-o', os.devnull] if name == 'carried_any' and compiler == 'gcc' else ['-fsyntax-only']
            p = sh([compiler, *STRICT, *flags, *how, c], timeout=300)
            expect(p.status == 0 and not p.err, '%s', p)

    def in_pieces():
        same(r.train('lines', '--steps', '10', virtual=3, status=(130,)),
             r.train('lines', '--steps', '10', virtual=3, status=(130,), flags=('--split', '3')), '--split 3')

    for name in REFUSED:
        yield 'refused: ' + name, lambda name=name: refused(name)
    yield 'told', told
    yield 'no ranks', no_ranks
    yield 'bad options', bad_options
    for name in ('plain', 'lines', 'tied', 'two', 'carried', 'carried_any'):
        yield 'clean C: ' + name, lambda name=name: clean(name)
    yield 'in pieces', in_pieces
