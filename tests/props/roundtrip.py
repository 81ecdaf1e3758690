"""The IR of every model is read back from its text to the same text, before the passes and after each; every pass keeps
the verifier's rules and the plan is accepted by its validator (--verify)."""
import os

from common import HERE, Skip, expect, must, sh, stem, write


def cases(env):
    folder = env.folder('roundtrip')
    passes = [line.split()[0] for line in must([env.mxcc, 'passes']).out.splitlines() if line.strip()]

    def text(source, *flags):
        r = sh([env.mxcc, source, '--name', 'model', '--emit', 'ir', *flags])
        if r.status == 1 and source in env.others:
            raise Skip('not for compilation alone')
        expect(r.status == 0, '%s', r)
        once, again = r.out, write(os.path.join(folder, stem(source) + '.mxir'), r.out)
        twice = must([env.mxcc, again, '--name', 'model', '--emit', 'ir']).out
        expect(len(once) > 0, 'no IR')
        for number, (a, b) in enumerate(zip(once.splitlines(), twice.splitlines()), 1):
            expect(a == b, 'line %d is `%s`, read back it is `%s`', number, a, b)
        expect(once == twice, 'read back it is %d bytes, not %d', len(twice), len(once))

    def every_stage(source):
        text(source)
        for p in passes:
            text(source, '--stop-after', p)

    def verified(source):
        must([env.mxcc, source, '--verify', '-o', os.path.join(folder, stem(source) + '.c')])

    for m in env.models():
        yield 'ir of ' + stem(m), lambda m=m: every_stage(m)
        yield 'verify ' + stem(m), lambda m=m: verified(m)
    for m in env.others:
        yield 'ir of ' + os.path.relpath(m, os.path.dirname(HERE)), lambda m=m: text(m)
