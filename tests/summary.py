#!/usr/bin/env python3
"""Adds up what the tests of one or more build folders said: summary.py testlog.json...

A test that counts its cases (`N passed, N failed` on its last line, or Criterion's synthesis) adds those; any other is one
case. A test that failed without a failed case adds one. The last line is `N passed, N failed`; exit status 1 if any failed."""
import json
import re
import sys


def counts(test):
    lines = (test.get('stdout') or '').rstrip().split('\n')
    text = lines[-1] + '\n' + (test.get('stderr') or '')
    m = re.search(r'^(\d+) passed, (\d+) failed$', lines[-1])
    if m:
        return int(m.group(1)), int(m.group(2))
    m = re.search(r'Tested: .*?(\d+).*?Passing: .*?(\d+).*?Failing: .*?(\d+).*?Crashing: .*?(\d+)', re.sub('\x1b\\[[0-9;]*m', '', text))
    if m:
        return int(m.group(2)), int(m.group(3)) + int(m.group(4))
    return (1, 0) if test['result'] in ('OK', 'EXPECTEDFAIL') else (0, 1)


def main():
    passed = failed = 0
    for path in sys.argv[1:]:
        with open(path, encoding='utf-8') as f:
            for line in f:
                test = json.loads(line)
                if test['result'] == 'SKIP':
                    continue
                good, bad = counts(test)
                if test['result'] not in ('OK', 'EXPECTEDFAIL') and bad == 0:
                    bad = 1
                passed += good
                failed += bad
                if bad:
                    print('FAILED %s (%s, %s)' % (test['name'], test['result'], path.split('/meson-logs')[0]))
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
