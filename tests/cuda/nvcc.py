#!/usr/bin/env python3
"""CUDA units through nvcc, without a GPU: they compile without a warning for old and new ones, and no kernel spills registers.

    nvcc.py --mxcc build/mxcc [--arch sm_75]... [--report FILE.csv] MODEL.mxl...

For each model and architecture: `nvcc -Werror all-warnings`, and what ptxas says of every kernel: registers, bytes of spills, of stack
frame and of shared memory, and how many blocks of its threads a multiprocessor can hold, of which there is at least one. --report
writes that as CSV. Where nvcc is not installed the test is skipped (exit status 77).
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

REGISTERS, WARPS, SHARED = 65536, 32, {'sm_75': 65536, 'sm_80': 167936, 'sm_90a': 233472}


def find_nvcc():
    own = os.environ.get('NVCC')
    for path in [own] if own else ['nvcc', '/usr/local/cuda/bin/nvcc']:
        found = shutil.which(path)
        if found:
            return found
    return None


def run(*command):
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def threads_of(unit):
    """Threads of each kernel's blocks, by name."""
    with open(unit, encoding='utf-8') as f:
        return {m[2]: int(m[1]) for m in re.finditer(r'__launch_bounds__\((\d+), \d\) (\w+)\(', f.read())}


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
            blocks = min(REGISTERS // (((registers + 7) // 8 * 8) * ((count + 31) // 32 * 32)), WARPS * 32 // count if arch == 'sm_75' else 2048 // count,
                         SHARED[arch] // (shared + 1024), 16 if arch == 'sm_75' else 32)
            rows.append((name, count, registers, *spills, shared, blocks))
            name = spills = None
    return rows


def check(o, nvcc, model, folder):
    name = os.path.splitext(os.path.basename(model))[0]
    unit = os.path.join(folder, name + '.cu')
    failures, rows = [], []
    status, text = run(o.mxcc, model, '-o', unit)
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
        for kernel, threads, registers, frame, stores, loads, shared, blocks in found:
            rows.append((name, arch, kernel, threads, registers, frame, stores, loads, shared, blocks))
            if stores or loads:
                failures.append('%s for %s: %s spills %d bytes and loads %d' % (model, arch, kernel, stores, loads))
            if blocks < 1:
                failures.append('%s for %s: no block of %s fits a multiprocessor: %d registers, %d bytes of shared memory' % (model, arch, kernel, registers, shared))
    return failures, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default=os.environ.get('MXCC', 'build/mxcc'))
    parser.add_argument('--arch', action='append')
    parser.add_argument('--report')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1)
    parser.add_argument('models', nargs='+')
    o = parser.parse_args()
    o.arch = o.arch or ['sm_75', 'sm_80', 'sm_90a']
    nvcc = find_nvcc()
    if not nvcc:
        print('skipped: nvcc is not installed (the PATH, /usr/local/cuda/bin and $NVCC were searched)')
        return 77
    failures, rows = [], []
    with tempfile.TemporaryDirectory(prefix='mxcc-nvcc-') as folder, concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for wrong, found in pool.map(lambda m: check(o, nvcc, m, folder), o.models):
            failures += wrong
            rows += found
    header = ('model', 'arch', 'kernel', 'threads', 'registers', 'stack', 'spill_stores', 'spill_loads', 'shared', 'blocks')
    if o.report:
        with open(o.report, 'w', encoding='utf-8') as f:
            f.write(''.join(','.join(map(str, r)) + '\n' for r in [header] + rows))
    for arch in o.arch:
        mine = [r for r in rows if r[1] == arch]
        if mine:
            print('%s: %d kernels, at most %d registers, %d bytes of shared memory' % (arch, len(mine), max(r[4] for r in mine), max(r[8] for r in mine)))
    for f in failures:
        print('FAIL ' + f)
    print('%d passed, %d failed' % (len(o.models) * len(o.arch) - len(failures), len(failures)))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
