#!/usr/bin/env python3
"""Trains the samples with their own train blocks: run.py --mxcc build/mxcc [--long]

digits trains fully, to above 98%. The others do a stated few steps, after which the loss is a number below that of the first step's, and
evaluation works; with --long each trains to its figure: fashion above 91% of the test images, chars and gpt below the 5-gram model with
Kneser-Ney smoothing (samples/kneser_ney.py) on the same held-out text. The last line is `N passed, N failed`; exit status 1 if any failed."""
import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLES = os.path.join(ROOT, 'samples')
STEPS = {'fashion': 30, 'chars': 12, 'gpt': 6}


class Failure(Exception):
    pass


def run(argv, cwd=None, timeout=900):
    p = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    if p.returncode not in (0, 130):
        raise Failure('`%s` gave status %d\n%s' % (' '.join(argv), p.returncode, (p.stdout + p.stderr)[-3000:]))
    return p


def rows(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def build(mxcc, name, folder):
    program = os.path.join(folder, name)
    run([mxcc, 'build', os.path.join(SAMPLES, name + '.mxl'), '--main', '--cpu', 'native', '--threads', '-o', program])
    return program


def digits(mxcc, folder, long):
    program = build(mxcc, 'digits', folder)
    run([program, '--quiet', '--out', folder + '/digits-run'], cwd=SAMPLES)
    accuracy = json.loads(run([program, 'evaluate', '--json', '--out', folder + '/digits-run'], cwd=SAMPLES).stdout)['accuracy']
    if not accuracy > 98:
        raise Failure('digits: %.2f%% of the held-out digits, expected above 98%%' % accuracy)
    # The C program of the demo reads what was trained.
    run([mxcc, os.path.join(SAMPLES, 'digits.mxl'), '--no-runtime', '-o', folder + '/digits.c'])
    run(['cc', '-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Werror', '-O1', '-I' + folder, SAMPLES + '/digits_predict.c', folder + '/digits.c', '-lm', '-o', folder + '/predict'])
    out = run([folder + '/predict', folder + '/digits-run/checkpoint.safetensors', SAMPLES + '/digits.csv', '12', '345', '1777']).stdout
    if len(re.findall(r'read as (\d) .* written as \1', out)) < 2:
        raise Failure('digits_predict: %s' % out)
    run([sys.executable, SAMPLES + '/plot.py', folder + '/digits-run/metrics.csv', '-o', folder + '/loss.svg'])
    with open(folder + '/loss.svg', encoding='utf-8') as f:
        if f.read().count('<polyline') < 3:
            raise Failure('plot.py drew too few curves')


def other(name):
    def test(mxcc, folder, long):
        if name in ('chars', 'gpt'):
            text = os.path.join(ROOT, 'build', 'bible.txt')
            if not os.path.exists(text):
                run(['sh', os.path.join(SAMPLES, 'text.sh'), text])
        program = build(mxcc, name, folder)
        out = folder + '/' + name + '-run'
        steps = [] if long else ['--steps', str(STEPS[name])]
        run([program, '--quiet', '--out', out] + steps, cwd=ROOT, timeout=7000)
        if not os.path.exists(out + '/checkpoint.safetensors'):
            raise Failure('%s: no checkpoint' % name)
        if not long:
            return
        last = json.loads(run([program, 'evaluate', '--json', '--out', out], cwd=ROOT).stdout)
        if name == 'fashion':
            if not last['accuracy'] > 91:
                raise Failure('fashion: %.2f%%, expected above 91%%' % last['accuracy'])
            return
        baseline = float(re.search(r'([\d.]+) nats', run([sys.executable, SAMPLES + '/kneser_ney.py', text], timeout=3000).stdout).group(1))
        if not last['loss'] < baseline:
            raise Failure('%s: %.4f nats a character, the 5-gram model has %.4f' % (name, last['loss'], baseline))
    return test


def embed(mxcc, folder, long):
    source = os.path.join(SAMPLES, 'embed')
    work = os.path.join(folder, 'embed')
    shutil.copytree(source, work)
    env = dict(os.environ, PATH=os.path.dirname(mxcc) + os.pathsep + os.environ['PATH'])
    p = subprocess.run(['make', '-C', work, 'run', 'MXCC=' + mxcc], capture_output=True, text=True, env=env, timeout=600)
    if p.returncode != 0:
        raise Failure('embed: %s' % (p.stdout + p.stderr)[-3000:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mxcc', default='build/mxcc')
    parser.add_argument('--long', action='store_true')
    parser.add_argument('--only', default='')
    o = parser.parse_args()
    tests = {'digits': digits, 'fashion': other('fashion'), 'chars': other('chars'), 'gpt': other('gpt'), 'embed': embed}
    passed = failed = 0
    for name, test in tests.items():
        if o.only and name != o.only:
            continue
        with tempfile.TemporaryDirectory(prefix='mxcc-samples-') as folder:
            try:
                test(os.path.abspath(o.mxcc), folder, o.long)
                passed += 1
            except (Failure, subprocess.TimeoutExpired, KeyError, ValueError, IndexError, OSError) as e:
                failed += 1
                print('FAIL %s: %s' % (name, e))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
