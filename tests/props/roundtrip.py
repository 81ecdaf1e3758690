"""The IR of every model is read back from its text to the same text, before the passes and after each; every pass keeps
the verifier's rules and the plan is accepted by its validator (--verify)."""
import os

from common import expect, must, stem, write


def cases(env):
    folder = env.folder('roundtrip')
    passes = [line.split()[0] for line in must([env.mxcc, 'passes']).out.splitlines() if line.strip()]

    def text(source, *flags):
        name = stem(source)
        once = must([env.mxcc, source, '--name', name, '--emit', 'ir', *flags]).out
        again = write(os.path.join(folder, name + '.mxir'), once)
        twice = must([env.mxcc, again, '--name', name, '--emit', 'ir']).out
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
        yield 'ir of ' + os.path.relpath(m, env.work)[-40:], lambda m=m: text(m)
