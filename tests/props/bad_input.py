"""What is wrong from outside gives a clear message and the documented status, and nothing that was saved is lost:
statuses are 0, 1 (an error), 2 (usage), 130 (interrupted)."""
import os
import shutil
import struct

from common import HERE, Skip, expect, must, points_csv, read, same_checkpoint, sh, tensors, write

POINTS = os.path.join(HERE, 'points.mxl')


def cases(env):
    folder = env.folder('bad_input')

    def points(name='points.csv', change=None):
        path = points_csv(os.path.join(folder, name))
        if change:
            write(path, change(read(path)))
        return path

    def run(*arguments, program=None, **more):
        return sh([program or env.program(POINTS), *arguments], cwd=folder, **more)

    def complains(r, status, *words):
        expect(r.status == status, 'expected status %d, %s', status, r)
        for w in words:
            expect(w in r.err, 'expected `%s` in the message of %s', w, r)
        expect('Sanitizer' not in r.err and len(r.err.strip().splitlines()) <= 25, 'more than a message: %s', r)

    def trained(name, *more):
        """A folder with a good checkpoint."""
        out = os.path.join(folder, name)
        shutil.rmtree(out, ignore_errors=True)
        must([env.program(POINTS), 'train', '--data', points(), '--out', out, '--quiet', '--epochs', '2', *more], cwd=folder)
        return out, os.path.join(out, 'checkpoint.safetensors')

    # ---- data

    def line(n, text):
        return lambda old: '\n'.join(text if i == n else x for i, x in enumerate(old.split('\n'), 1))

    def data(words, change=None, path=None):
        def check():
            out, checkpoint = trained('data')
            before = read(checkpoint, 'rb')
            given = path or points('broken.csv', change)
            complains(run('train', '--data', given, '--out', out, '--quiet'), 1, *words)
            complains(run('train', '--data', given, '--out', out, '--quiet', '--resume', '--epochs', '9'), 1, *words)
            expect(read(checkpoint, 'rb') == before, 'the checkpoint was changed')
        return check

    yield 'no data file', data(['none.csv', 'No such file'], path='none.csv')
    yield 'data is a folder without the file', data(['points.csv'], path=env.folder('bad_input/empty'))
    yield 'an empty file', data(['broken.csv'], lambda old: '')
    yield 'a cell that is no number', data(['broken.csv:7', 'column 3'], line(7, '1,2,x3,4,5,6,7,8,0'))
    yield 'too few cells', data(['broken.csv:9'], line(9, '1,2,3'))
    yield 'too many cells', data(['broken.csv:9'], line(9, '1,2,3,4,5,6,7,8,9,10,11'))
    yield 'an empty cell', data(['broken.csv:5', 'column 2'], line(5, '1,,3,4,5,6,7,8,0'))
    yield 'too few columns', data(['broken.csv'], lambda old: '1,2,0\n' * 50)
    yield 'bytes that are no text', data(['broken.csv'], lambda old: '\0\1\2\n' * 50)
    yield 'a label with a fraction', data(['broken.csv:4', 'y is 1.5'], line(4, '1,2,3,4,5,6,7,8,1.5'))
    yield 'a label that is too large', data(['broken.csv:4', 'y is 3', '3 entries'], line(4, '1,2,3,4,5,6,7,8,3'))
    yield 'a negative label', data(['broken.csv:4', 'y is -1', '3 entries'], line(4, '1,2,3,4,5,6,7,8,-1'))
    yield 'one sample', data(['broken.csv'], lambda old: old.split('\n')[0] + '\nx')

    # ---- a loss that is no number

    def not_a_number():
        out, checkpoint = trained('nan')
        before = tensors(checkpoint)[0]
        r = run('train', '--data', points('nan.csv', line(11, 'nan,2,3,4,5,6,7,8,0')), '--out', out, '--quiet', '--resume', '--epochs', '5')
        complains(r, 1, 'loss', 'nan', 'step', 'checkpoint')
        after = tensors(checkpoint)[0]
        expect(all(b'\x00\x00\xc0\x7f' not in t[2] for n, t in after.items() if 'weight' in n), 'the checkpoint holds nan')
        expect(after == before, 'the checkpoint was changed')

    def diverges():
        """A rate that is far too large: what was saved before stays usable."""
        source = write(os.path.join(folder, 'far.mxl'), read(POINTS).replace('cosine(1e-2, warmup = 4)', '3e38').replace('optim.Adam(net, lr = 1e-2)', 'optim.SGD(net, lr = 1e-2)'))
        out = os.path.join(folder, 'far-run')
        shutil.rmtree(out, ignore_errors=True)
        r = run('train', '--data', points(), '--out', out, '--quiet', '--epochs', '4', program=env.program(source))
        complains(r, 1, 'number' if 'holds' in r.err else 'loss', 'step')
        checkpoint = os.path.join(out, 'checkpoint.safetensors')
        if os.path.exists(checkpoint):
            for name, (dtype, _, raw) in tensors(checkpoint)[0].items():
                if dtype == 'F32':
                    expect(all(x - x == 0 for x in struct.unpack('<%df' % (len(raw) // 4), raw)), 'the checkpoint holds a %s that is no number', name)

    yield 'a loss that is no number', not_a_number
    yield 'training that diverges', diverges

    # ---- disks

    def full_disk():
        out, checkpoint = trained('full')
        before = read(checkpoint, 'rb')
        size = os.path.getsize(checkpoint)
        for blocks in (0, 1, max(1, size // 1024 - 1)):  # the limit on a file's size, in KiB
            r = sh(['sh', '-c', "trap '' XFSZ; ulimit -f %d; exec \"$@\"" % blocks, 'sh', env.program(POINTS), 'train', '--data', points(), '--out', out,
                    '--quiet', '--resume', '--epochs', '4'], cwd=folder)
            expect(r.status == 1 and 'cannot write' in r.err, 'limit %d: %s', blocks, r)
            expect(read(checkpoint, 'rb') == before, 'the checkpoint was lost')
        expect(not os.path.exists(checkpoint + '.part'), 'a partial file was left')
        must([env.program(POINTS), 'train', '--data', points(), '--out', out, '--quiet', '--resume', '--epochs', '4'], cwd=folder)

    def tiny_disk():
        where = os.path.join(folder, 'tiny')
        os.makedirs(where, exist_ok=True)
        if os.geteuid() != 0 or sh(['mount', '-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', where]).status != 0:
            raise Skip('cannot mount a tmpfs')
        try:
            out = os.path.join(where, 'run')
            r = run('train', '--data', points(), '--out', out, '--quiet', '--epochs', '3')
            complains(r, 1, 'cannot write', 'No space left')
        finally:
            must(['umount', where])

    def read_only():
        if os.geteuid() == 0:
            locked = '/proc/nowhere'
        else:
            locked = os.path.join(folder, 'locked')
            os.makedirs(locked, exist_ok=True)
            os.chmod(locked, 0o555)
        complains(run('train', '--data', points(), '--out', locked, '--quiet'), 1, locked)
        blocked = write(os.path.join(folder, 'file'), 'a file')
        complains(run('train', '--data', points(), '--out', blocked, '--quiet'), 1, 'file')

    yield 'a full disk (limit on files)', full_disk
    yield 'a full disk (tmpfs)', tiny_disk
    yield 'a folder that cannot be written', read_only

    # ---- checkpoints

    def truncated():
        out, checkpoint = trained('cut')
        whole = read(checkpoint, 'rb')
        for n in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
            write(checkpoint, whole[:n])
            complains(run('train', '--data', points(), '--out', out, '--quiet', '--resume'), 1, 'checkpoint.safetensors')
            expect(read(checkpoint, 'rb') == whole[:n], 'the damaged file was replaced')
        write(checkpoint, struct.pack('<Q', 1 << 60) + whole[8:])
        complains(run('train', '--data', points(), '--out', out, '--quiet', '--resume'), 1, 'checkpoint.safetensors')

    def other_model():
        out, checkpoint = trained('other')
        for change, words in ((('Net(8, 24, 3)', 'Net(8, 20, 3)'), ['net.first.weight', '24', '20']), (('last = ', 'final = '), ['net.last.weight'])):
            text = read(POINTS).replace(*change).replace('return last(', 'return final(' if change[0].startswith('last') else 'return last(')
            source = write(os.path.join(folder, 'changed%d.mxl' % len(words)), text)
            r = run('train', '--data', points(), '--out', out, '--quiet', '--resume', program=env.program(source))
            complains(r, 1, *words)
            r = run('evaluate', '--data', points(), '--weights', checkpoint, program=env.program(source))
            complains(r, 1, *words)

    def no_checkpoint():
        complains(run('train', '--data', points(), '--out', os.path.join(folder, 'fresh'), '--resume'), 1, 'checkpoint.safetensors')
        complains(run('evaluate', '--data', points(), '--weights', 'none.safetensors'), 1, 'none.safetensors')

    def again():
        """A resumption that has nothing left to do changes nothing and succeeds."""
        out, checkpoint = trained('again')
        copy = shutil.copy(checkpoint, os.path.join(folder, 'copy.safetensors'))
        must([env.program(POINTS), 'train', '--data', points(), '--out', out, '--quiet', '--resume', '--epochs', '2'], cwd=folder)
        expect(same_checkpoint(copy, checkpoint) is None, '%s', same_checkpoint(copy, checkpoint))

    yield 'a truncated checkpoint', truncated
    yield 'a checkpoint of another model', other_model
    yield 'no checkpoint', no_checkpoint
    yield 'nothing left to do', again

    # ---- command lines

    for arguments, words in ((['--epochs', 'x'], ['--epochs']), (['--epochs'], ['--epochs']), (['--nothing'], ['--nothing']), (['--batch', '0'], ['--batch']),
                             (['fly'], ['fly']), (['--threads', '-1'], ['--threads']), (['--seed', '-4'], ['--seed']), (['call', 'fly'], ['fly']),
                             (['--kvstore', 'everywhere'], ['--kvstore', 'dist_sync'])):
        yield 'program ' + ' '.join(arguments), lambda a=arguments, w=words: complains(run(*a), 2, *w)
    yield 'program --batch 1000', lambda: complains(run('train', '--data', points(), '--batch', '1000', '--out', os.path.join(folder, 'b')), 1, '1000', '32')

    def mxcc(arguments, status, words):
        complains(sh([env.mxcc, *arguments], cwd=folder), status, *words)

    write(os.path.join(folder, 'wrong.mxl'), 'export fn f(x: f32[3]) -> f32[4] = x\n')
    for arguments, status, words in ((['none.mxl', '-o', 'a.c'], 1, ['none.mxl']), ([POINTS, '-o', 'a.txt'], 2, ['a.txt']), ([POINTS], 2, ['-o']),
                                     ([POINTS, '--fly', '-o', 'a.c'], 2, ['--fly']), ([POINTS, '-o', '/nowhere/a.c'], 1, ['/nowhere/a.c']),
                                     ([POINTS, '--cpu', 'abacus', '-o', 'a.c'], 2, ['abacus']), ([POINTS, '--bind', 'N=x', '-o', 'a.c'], 2, ['N=x']),
                                     (['wrong.mxl', '-o', 'a.c'], 1, ['E0', 'wrong.mxl:1']), (['check', 'wrong.mxl'], 1, ['wrong.mxl:1']),
                                     (['explain', 'E9999'], 2, ['E9999']), ([folder, '-o', 'a.c'], 1, ['cannot read']), (['build', 'wrong.mxl'], 1, ['wrong.mxl:1']),
                                     ([POINTS, '--memory-limit', '1K', '-o', 'a.c'], 1, ['E0802', 'step'])):
        yield 'mxcc ' + ' '.join(os.path.basename(a) for a in arguments), lambda a=arguments, s=status, w=words: mxcc(a, s, w)
