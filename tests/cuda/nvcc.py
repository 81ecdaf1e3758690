#!/usr/bin/env python3
"""CUDA units through nvcc, without a GPU: they compile without a warning for old and new ones, no kernel spills registers, and enough of each
fits a multiprocessor.

    nvcc.py --mxcc build/mxcc [--arch sm_75]... [--precision f16]... [--report FILE.csv] [--zoo NAME]... MODEL.mxl...

For each model, precision (f32 if none is named) and architecture: `nvcc -Werror all-warnings`, and what ptxas says of every kernel: registers, bytes of spills, of stack
frame and of shared memory. The rule: no spills, and an occupancy of at least 12.5%: of the warps that a multiprocessor can hold, so many are there
when it holds as many blocks as its registers, shared memory and warps allow (CUDA programming guide, compute capabilities). Below that
there are too few warps to wait for memory in turn. --zoo takes the small variant of a model of samples/zoo (tests/zoo/run.py). --report writes
it all as CSV. Where nvcc is not installed the test is skipped (exit status 77).
"""
import argparse
import concurrent.futures
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile

LEAST_OCCUPANCY = 0.125
# Of a multiprocessor: warps, blocks, bytes of shared memory, and those that each block takes beside its own.
LIMITS = {'sm_75': (32, 16, 65536, 0), 'sm_80': (64, 32, 167936, 1024), 'sm_90a': (64, 32, 233472, 1024)}
REGISTERS = 65536  # of 32 bits; a warp takes them by 256, warps come by fours


def find_nvcc():
    own = os.environ.get('NVCC')
    for path in [own] if own else ['nvcc', '/usr/local/cuda/bin/nvcc']:
        found = shutil.which(path)
        if found:
            return found
    return None


def has_header(nvcc, header):
    """Whether the toolkit, or a path that it searches, has it."""
    return subprocess.run([nvcc, '-E', '-x', 'cu', '-', '-include', header], input='', capture_output=True, text=True).returncode == 0


def run(*command):
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def threads_of(unit):
    """Threads of each kernel's blocks, by name."""
    with open(unit, encoding='utf-8') as f:
        return {m[2]: int(m[1]) for m in re.finditer(r'__launch_bounds__\((\d+)(?:, \d+)?\) (\w+)\(', f.read())}


def kernels(text, unit, arch):
    """Rows of the report: what ptxas says of each kernel."""
    rows, name, spills = [], None, None
    threads = threads_of(unit)
    for line in text.splitlines():
        m = re.search(r"Compiling entry function '(\w+)'", line)
        if m:
            name = max((k for k in threads if k in m[1]), key=len, default=m[1])
        m = re.search(r'(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads', line)
        if m:
            spills = [int(x) for x in m.groups()]
        m = re.search(r'Used (\d+) registers', line)
        if m and name:
            registers = int(m[1])
            m = re.search(r'(\d+) bytes smem', line)
            shared, count = int(m[1]) if m else 0, threads.get(name, 1024)
            rows.append((name, count, registers, *spills, shared, occupancy(arch, count, registers, shared)))
            name = spills = None
    return rows


def occupancy(arch, threads, registers, shared):
    """The part of its warps that a multiprocessor holds at once."""
    most, blocks, memory, own = LIMITS[arch]
    warps = (threads + 31) // 32
    by_registers = REGISTERS // ((registers + 7) // 8 * 256) // 4 * 4 // warps
    return min(blocks, most // warps, by_registers, memory // (shared + own) if shared + own else blocks) * warps / most


def check(o, nvcc, model, precision, folder):
    """Failures and rows of one model."""
    name = os.path.splitext(os.path.basename(model))[0] + ('' if precision == 'f32' else '_' + precision)
    unit = os.path.join(folder, name + '.cu')
    failures, rows = [], []
    with open(model, encoding='utf-8') as f: # as tests/run/run.py builds it
        flags = [w for line in f if line.startswith('//: build ') for w in line.split()[2:]]
    status, text = run(o.mxcc, model, *([] if precision == 'f32' else ['--precision', precision]), '-o', unit, *flags)
    if status:
        return ['%s: mxcc gave %d: %s' % (model, status, text[-1500:])], rows
    for arch in o.arch:
        status, text = run(nvcc, '-O2', '-fmad=false', '-Werror', 'all-warnings', '-arch=' + arch, '-Xptxas', '-v', '-I' + os.path.dirname(os.path.abspath(model)),
                           '-c', unit, '-o', os.path.join(folder, '%s.%s.o' % (name, arch)))
        if status:
            failures.append('%s for %s: nvcc gave %d: %s' % (model, arch, status, text[-3000:]))
            continue
        found = kernels(text, unit, arch)
        if not found:
            failures.append('%s for %s: ptxas says nothing of its kernels: %s' % (model, arch, text[-1000:]))
        for kernel, threads, registers, frame, stores, loads, shared, part in found:
            rows.append((name, arch, kernel, threads, registers, frame, stores, loads, shared, '%.3f' % part))
            if stores or loads:
                failures.append('%s for %s: %s spills %d bytes and loads %d' % (model, arch, kernel, stores, loads))
            if part < LEAST_OCCUPANCY:
                failures.append('%s for %s: %s has an occupancy of %.0f%%: %d threads of %d registers, %d bytes of shared memory a block' %
                                (model, arch, kernel, 100 * part, threads, registers, shared))
    return failures, rows


def zoo():
    """tests/zoo/run.py as a module."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'zoo')
    sys.path.insert(0, path)
    spec = importlib.util.spec_from_file_location('zoo', os.path.join(path, 'run.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--arch', action='append')
    parser.add_argument('--precision', action='append')
    parser.add_argument('--report')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--zoo', action='append', default=[])
    parser.add_argument('models', nargs='*')
    o = parser.parse_args()
    o.arch = o.arch or ['sm_75', 'sm_80', 'sm_90a']
    nvcc = find_nvcc()
    if not o.models and not o.zoo:
        parser.error('no model')
    if not nvcc:
        print('skipped: nvcc is not installed (the PATH, /usr/local/cuda/bin and $NVCC were searched)')
        return 77
    failures, rows = [], []
    with tempfile.TemporaryDirectory(prefix='mxcc-nvcc-') as folder, concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for name in o.zoo:
            own = os.path.join(folder, name)
            os.mkdir(own)
            o.models.append(zoo().small(name, own, zoo().MODELS[name][1]))
        jobs = [(m, p) for m in o.models for p in o.precision or ['f32']]
        for wrong, found in pool.map(lambda job: check(o, nvcc, *job, folder), jobs):
            for f in wrong:
                print('FAIL ' + f, flush=True)
            failures += wrong
            rows += found
    header = ('model', 'arch', 'kernel', 'threads', 'registers', 'stack', 'spill_stores', 'spill_loads', 'shared', 'occupancy')
    if o.report:
        with open(o.report, 'w', encoding='utf-8') as f:
            f.write(''.join(','.join(map(str, r)) + '\n' for r in [header] + rows))
    for arch in o.arch:
        mine = [r for r in rows if r[1] == arch]
        if mine:
            print('%s: %d kernels, at most %d registers, %d bytes of shared memory, at least %.0f%% occupancy' %
                  (arch, len(mine), max(r[4] for r in mine), max(r[8] for r in mine), 100 * min(float(r[9]) for r in mine)))
    print('%d passed, %d failed' % (len(jobs) * len(o.arch) - len(failures), len(failures)))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
