"""The same input gives the same output, byte for byte: again, from another folder, under another locale and time, with
other addresses (the stack moved by a large environment), and with more memory in use before."""
import os
import shutil

from common import expect, must, read, stem


def cases(env):
    forms = [['--no-runtime'], ['--threads'], ['--main'], ['--cpu', 'x86-64-v3']]

    def outputs(source, folder, name, flags, cwd=None, extra=None):
        c_file = os.path.join(folder, name + '.c')
        must([env.mxcc, source, '--name', 'model', '-o', c_file, *flags], cwd=cwd, env=extra)
        return read(c_file, 'b'), read(c_file[:-1] + 'h', 'b')

    def check(source, flags):
        folder = env.folder('same_bytes')
        first = outputs(source, folder, 'one', flags)
        changed = {'LC_ALL': 'de_DE.UTF-8', 'LANG': 'tr_TR.UTF-8', 'TZ': 'Asia/Kolkata', 'PADDING': 'x' * 60000, 'MALLOC_PERTURB_': '90'}
        expect(outputs(source, folder, 'one', flags, extra=changed) == first, 'the output depends on the environment')
        if '--main' in flags:
            return  # a program knows the folder of its model, which its data is relative to
        copy = os.path.join(env.folder('same_bytes/elsewhere'), os.path.basename(source))
        shutil.copy(source, copy)
        there = outputs(os.path.basename(copy), os.path.dirname(copy), 'one', flags, cwd=os.path.dirname(copy))
        mine = [t.replace(source.encode(), os.path.basename(copy).encode()) for t in first]
        expect(list(there) == mine, 'the output depends on the folder')

    for m in env.models():
        for flags in forms:
            yield ' '.join([stem(m)] + flags), lambda m=m, flags=flags: check(m, flags)
