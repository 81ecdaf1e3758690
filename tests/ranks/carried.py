"""States that each rank has for itself: each goes on from its own, also after --resume; the second file of a checkpoint."""
import os
import shutil

from jobs import Ranks, checkpoint, distance, expect, read, same, sh, tensors, write


def cases(env):
    r = Ranks(env)
    options = {'carried': ('--epochs', '2'), 'carried_any': ('--epochs', '2', '--batch', '7')}

    def states(out):
        """The one second file: {'rank0.h': …}, metadata."""
        meta = tensors(checkpoint(out))[1]
        files = [f for f in os.listdir(out) if f.startswith('checkpoint.ranks.')]
        expect(meta.get('ranks') == '3' and files == ['checkpoint.ranks.%s.safetensors' % meta['step']], 'metadata %s, files %s', meta, files)
        return tensors(os.path.join(out, files[0]))

    def kept(name):
        out = r.train(name, *options[name], virtual=3)
        found, meta = states(out)
        names = {'rank%d.%s' % (i, b) for i in range(3) for b in ('h', 'c')}
        expect(set(found) == names, 'tensors %s', sorted(found))
        expect(meta['ranks'] == '3' and meta['step'] == tensors(checkpoint(out))[1]['step'], 'metadata %s', meta)
        for b in ('h', 'c'):
            expect(len({found['rank%d.%s' % (i, b)][2] for i in range(3)}) == 3, 'ranks have the same %s', b)
        other = r.train(name, *options[name], mpi=3)
        same(out, other, 'processes and virtual ranks')
        expect(states(other) == (found, meta), 'processes have other states')

    def resumed(name, how):
        straight = r.train(name, *options[name], virtual=3)
        out = r.folder(name)
        for steps in ('3', '4', '9'):
            again = ('--resume',) if os.path.exists(checkpoint(out)) else ()
            r.train(name, *options[name], '--steps', steps, *again, out=out, status=(130,), **how)
        r.train(name, *options[name], '--resume', out=out, **how)
        same(straight, out, 'stopped and resumed')
        expect(states(straight)[0] == states(out)[0], 'states differ')

    def anew(name):
        """Another number of ranks, or a second file of another checkpoint: states begin with their initial values, and it is said."""
        out = r.train(name, *options[name], '--steps', '4', virtual=3, status=(130,))
        file = os.path.join(out, 'checkpoint.ranks.4.safetensors')
        good = r.folder(name)
        shutil.copytree(out, good)
        r.train(name, *options[name], '--resume', '--steps', '5', virtual=3, out=good, status=(130,))
        older = r.train(name, *options[name], '--steps', '3', virtual=3, status=(130,))
        shutil.copy(os.path.join(older, 'checkpoint.ranks.3.safetensors'), file)
        results = {}
        for what in ('older', 'none', 'cut'):
            copy = r.folder(name)
            shutil.copytree(out, copy)
            mine = os.path.join(copy, os.path.basename(file))
            if what == 'none':
                os.remove(mine)
            elif what == 'cut':
                write(mine, read(mine, 'rb')[:-9])
            p = sh(r.command(name, copy, *options[name], '--resume', '--steps', '5', '--virtual-ranks', '3'))
            expect(p.status == 130 and 'begin anew' in p.err, '%s: %s', what, p)
            results[what] = copy
        same(results['older'], results['none'], 'a file of another step, and none')
        same(results['older'], results['cut'], 'a file of another step, and half of one')
        expect(distance(results['none'], good)[0] > 1e-6, 'states make no difference: the test looks at nothing')

    def other_numbers():
        """Of symbolic batches: 3 ranks, then 2, then one process; each begins its states anew."""
        name = 'carried_any'
        out = r.train(name, *options[name], '--steps', '4', virtual=3, status=(130,))
        for n, words in ((2, 'is of 3 ranks'), (0, 'is of 2 ranks')):
            p = sh(r.command(name, out, *options[name], '--resume', '--steps', '6' if n else '8', *(('--virtual-ranks', str(n)) if n else ())))
            expect(p.status == 130 and words in p.err, '%s', p)
        meta = tensors(checkpoint(out))[1]
        expect('ranks' not in meta, 'one process: %s', meta)

    def one_process():
        """Alone, states are in the checkpoint itself, as ever."""
        name = 'carried_any'
        straight = r.train(name, *options[name])
        out = r.train(name, *options[name], '--steps', '4', status=(130,))
        r.train(name, *options[name], '--resume', out=out)
        same(straight, out, 'stopped and resumed')
        expect(not [f for f in os.listdir(out) if 'ranks' in f], 'a second file')

    for name in options:
        yield 'kept: ' + name, lambda name=name: kept(name)
        yield 'resumed: ' + name, lambda name=name: resumed(name, {'virtual': 3})
        yield 'begin anew: ' + name, lambda name=name: anew(name)
    yield 'resumed by processes', lambda: resumed('carried', {'mpi': 3})
    yield 'other numbers of ranks', other_numbers
    yield 'one process', one_process
