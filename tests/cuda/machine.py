"""The machine that CUDA units run on, for tests/cuda/gpu.py and bench/gpu.py: a GPU with nvcc, or the emulation; and the report, as JSON.

A check or a row of a report is a function that gives a dict of facts, or raises: Skipped (why it cannot be), Failure, anything else. Each
has a time; what would begin behind the end of all is skipped, so that a run keeps within its limit.
"""
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import nvcc as nvcc_test  # noqa: E402
import run as cuda  # noqa: E402
from checks import Failure  # noqa: E402

NO_GPU = 77  # the exit status of what was skipped, as Meson has it
LIBRARIES = {'--cublas': '-lcublasLt', '--cudnn': '-lcudnn'}


class Skipped(Exception):
    pass


class NoGpu(Exception):
    pass


class Machine:
    """compiler + language + ['-c', unit, '-o', object] compiles a unit; linker + objects + libraries + ['-o', program] links."""

    def __init__(self, folder, emulated):
        self.folder, self.emulated = folder, emulated
        if emulated:
            self.emulation = cuda.build_emulation(folder)
            with open(self.emulation + '.flags', encoding='utf-8') as f:
                self.compiler = f.read().split('\n')
            self.language, self.linker, self.libraries = ['-x', 'c++'], self.compiler[:1], [self.emulation, '-lm']
            self.facts = {'device': 'emulation', 'driver': None, 'cuda': None}
            return
        self.emulation = None
        nvcc, device = nvcc_test.find_nvcc(), find_device()
        if not nvcc:
            raise NoGpu('there is a GPU, %s, but no nvcc: the PATH, /usr/local/cuda/bin and $NVCC were searched' % device['device'])
        self.compiler = [nvcc, '-std=c++17', '-O3', '-fmad=false', '-arch=native', *os.environ.get('NVCCFLAGS', '').split()]
        self.language, self.linker, self.libraries = ['-x', 'cu'], [nvcc], ['-lm']
        self.facts = {**device, 'cuda': subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout.strip().splitlines()[-1]}

    def compile(self, unit, *flags):
        command([*self.compiler, *flags, '-I' + os.path.dirname(unit), *self.language, '-c', unit, '-o', unit + '.o'])
        return unit + '.o'

    def has_cudnn(self):
        return self.emulated or nvcc_test.has_header(self.compiler[0], 'cudnn.h')

    def link(self, to, *objects, flags=()):
        """flags: those that the units were generated with."""
        libraries = [] if self.emulated else [LIBRARIES[f] for f in flags if f in LIBRARIES]
        command([*self.linker, *objects, *self.libraries, *libraries, '-o', to])
        return to


def command(words, env=None, status=0, timeout=None):
    p = subprocess.run([str(w) for w in words], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout)
    if status is not None and p.returncode != status:
        raise Failure('%s gave %d\n%s%s' % (' '.join(map(str, words)), p.returncode, p.stdout[-2000:], p.stderr[-2000:]))
    return p.stdout


def find_device():
    """The first GPU, as its driver tells; raises NoGpu."""
    smi = shutil.which('nvidia-smi')
    if not smi:
        raise NoGpu('no GPU that can be used: there is no nvidia-smi, which comes with the driver')
    p = subprocess.run([smi, '--query-gpu=name,driver_version,memory.total,compute_cap', '--format=csv,noheader,nounits'], capture_output=True, text=True)
    line = p.stdout.strip().splitlines()[0].split(', ') if p.returncode == 0 and p.stdout.strip() else []
    if len(line) < 4:
        raise NoGpu('no GPU that can be used: nvidia-smi says: %s' % (p.stdout + p.stderr).strip()[:300])
    return {'device': line[0], 'driver': line[1], 'memory_mib': int(line[2]), 'compute_capability': line[3]}


class Report:
    def __init__(self, facts, seconds, path):
        self.path, self.end = path, time.monotonic() + seconds
        self.content = {'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'), **facts,
                        'host': platform.processor() or platform.machine(), 'rows': []}

    def left(self):
        return self.end - time.monotonic()

    def row(self, name, run, say=print):
        begin, row = time.monotonic(), {'name': name}
        try:
            if self.left() <= 0:
                raise Skipped('the time is over')
            row.update(run() or {})
            row['status'] = 'ok'
        except Skipped as e:
            row.update(status='skipped', why=str(e))
        except (Failure, subprocess.TimeoutExpired, OSError, ValueError, KeyError) as e:
            row.update(status='failed', why=str(e)[-3000:])
        row['seconds'] = round(time.monotonic() - begin, 2)
        self.content['rows'].append(row)
        say('%-7s %s%s' % (row['status'], name, ': ' + row['why'] if 'why' in row else ''), flush=True)
        self.write()
        return row

    def write(self):
        """After every row: a run that is ended leaves what it has."""
        if not self.path:
            return
        with open(self.path + '.part', 'w', encoding='utf-8') as f:
            json.dump(self.content, f, indent=1)
            f.write('\n')
        os.replace(self.path + '.part', self.path)

    def end_status(self):
        counts = {s: sum(r['status'] == s for r in self.content['rows']) for s in ('ok', 'failed', 'skipped')}
        print('%d passed, %d failed, %d skipped%s' % (counts['ok'], counts['failed'], counts['skipped'], '; ' + self.path if self.path else ''))
        return 1 if counts['failed'] else 0


def positive(text):
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def no_gpu(e):
    print('skipped: %s' % e)
    print('this is to run on a machine with a GPU, its driver and nvcc; without one: ./run test cuda')
    return NO_GPU
