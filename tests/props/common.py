"""What the properties share: running commands with a limit, building models, reading safetensors, small data sets."""
import json
import os
import re
import shutil
import struct
import subprocess

STRICT = '-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wvla -Werror'.split()
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def expect(condition, text, *args):
    if not condition:
        raise Failure(text % args if args else text)


class Result:
    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    def __str__(self):
        return '`%s` gave status %s\n%s' % (' '.join(self.argv), self.status, (self.out + self.err)[-1500:].strip())


def sh(argv, cwd=None, env=None, timeout=300, stdin=None, **more):
    argv = [str(a) for a in argv]
    full = dict(os.environ, **env) if env else None
    try:
        p = subprocess.run(argv, cwd=cwd, env=full, input=stdin, capture_output=True, timeout=timeout, **more)
    except subprocess.TimeoutExpired:
        raise Failure('`%s` did not end within %d seconds' % (' '.join(argv), timeout)) from None
    return Result(argv, p.returncode, p.stdout.decode('utf-8', 'replace'), p.stderr.decode('utf-8', 'replace'))


def must(argv, **more):
    r = sh(argv, **more)
    expect(r.status == 0, '%s', r)
    return r


def read(path, mode='r'):
    if 'b' in mode:
        with open(path, 'rb') as f:
            return f.read()
    with open(path, encoding='utf-8') as f:
        return f.read()


def write(path, text):
    if isinstance(text, str):
        text = text.encode()
    with open(path, 'wb') as f:
        f.write(text)
    return path


def stem(path):
    return os.path.splitext(os.path.basename(path))[0]


class Env:
    """One run: the compiler, a scratch folder, the models. Programs built once are shared by the properties."""

    def __init__(self, mxcc, work, samples, programs, others):
        self.mxcc, self.work = mxcc, work
        self.samples, self.programs, self.others = samples, programs, others
        self.library = os.path.join(os.path.dirname(mxcc), 'libmxrt.a')
        self.built = {}
        self.compilers = [c for c in ('gcc', 'clang') if shutil.which(c)]

    def folder(self, name):
        path = os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        return path

    def models(self):
        return self.samples + self.programs

    def compile(self, source, c_file, *flags):
        """mxcc source -o c_file; the C text."""
        must([self.mxcc, source, '-o', c_file, *flags])
        return read(c_file)

    def program(self, source, *flags):
        """A program with --main; -O1 because cc's time is the larger part of these tests."""
        key = (source, flags)
        if key not in self.built:
            path = os.path.join(self.folder('programs'), '%s-%d' % (stem(source), len(self.built)))
            must([self.mxcc, 'build', '--main', '-O', '1', '--name', stem(source), *flags, source, '-o', path])
            self.built[key] = path
        return self.built[key]


def tensors(path):
    """A safetensors file as ({name: (dtype, shape, bytes)}, metadata)."""
    raw = read(path, 'rb')
    n = struct.unpack('<Q', raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    meta = head.pop('__metadata__', {})
    return {k: (v['dtype'], v['shape'], raw[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]]) for k, v in head.items()}, meta


def same_checkpoint(a, b):
    """None, or what differs: tensors, seed, counters, position, to the bit."""
    (ta, ma), (tb, mb) = tensors(a), tensors(b)
    if sorted(ta) != sorted(tb):
        return 'other tensors: %s' % sorted(set(ta) ^ set(tb))
    for name in ta:
        if ta[name] != tb[name]:
            return 'tensor %s differs' % name
    for key in sorted(set(ma) | set(mb)):
        if ma.get(key) != mb.get(key):
            return '%s is %s and %s' % (key, ma.get(key), mb.get(key))
    return None


FORMATS = {'F32': 'f', 'F64': 'd'}


def floats(tensor):
    dtype, _, raw = tensor
    code = FORMATS.get(dtype)
    return struct.unpack('<%d%s' % (len(raw) // struct.calcsize(code), code), raw) if code else None


def points_csv(path, rows=300):
    """Three classes of eight features, from a fixed linear congruential generator; label last."""
    state, lines = 12345, []
    for i in range(rows):
        label, cells = i % 3, []
        for k in range(8):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
            cells.append('%d' % ((state >> 33) % 12 + (4 if k % 3 == label else 0)))
        lines.append(','.join(cells + [str(label)]))
    return write(path, '\n'.join(lines) + '\n')


NUMBER = re.compile(r'\d+')


def without_digits(text):
    return NUMBER.sub('#', text)
