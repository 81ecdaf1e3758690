#!/usr/bin/env python3
"""The baseline that samples/chars.mxl and samples/gpt.mxl must beat: a character n-gram model with interpolated modified Kneser-Ney
smoothing (Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998, section 4.1.7).

    python3 samples/kneser_ney.py build/bible.txt [--order 5] [--split 0.9]

The text is split by place, as the training program splits it: the model is counted on the first part, and the mean of -ln p over the
characters of the rest, each given the characters before it, is printed. --check sums the distributions after some contexts: 1.
"""
import argparse
import math
from collections import Counter, defaultdict


class KneserNey:
    def __init__(self, text, order, alphabet):
        self.order = order
        self.size = len(alphabet)
        # Of each length n: how often an n-gram occurs for the longest, in how many different left contexts for the others.
        self.counts = [None] * (order + 1)
        self.counts[order] = Counter(text[i:i + order] for i in range(len(text) - order + 1))
        longer = self.counts[order]
        for n in range(order - 1, 0, -1):
            types = longer if n == order - 1 else set(text[i:i + n + 1] for i in range(len(text) - n))
            self.counts[n] = Counter(gram[1:] for gram in types)
        self.discounts = [None] + [self.find_discounts(self.counts[n]) for n in range(1, order + 1)]
        # Of each context: the sum of its counts, and the mass that discounting took from them.
        self.totals = [None] * (order + 1)
        self.taken = [None] * (order + 1)
        for n in range(1, order + 1):
            total, taken = defaultdict(int), defaultdict(float)
            for gram, c in self.counts[n].items():
                total[gram[:-1]] += c
                taken[gram[:-1]] += self.discounts[n][min(c, 3)]
            self.totals[n], self.taken[n] = total, taken

    @staticmethod
    def find_discounts(counts):
        """D1, D2 and D3+ from the numbers of n-grams that occur once to four times."""
        of = Counter(c for c in counts.values() if c <= 4)
        n1, n2, n3, n4 = of[1], of[2], of[3], of[4]
        if not (n1 and n2 and n3 and n4):
            return [0, 0.5, 0.75, 0.75]  # too few kinds to estimate: happens for single characters, where it hardly matters
        y = n1 / (n1 + 2 * n2)
        return [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]

    def probability(self, context, char):
        p = 1 / self.size
        for n in range(1, self.order + 1):
            if n - 1 > len(context):
                break
            h = context[len(context) - n + 1:]
            total = self.totals[n].get(h)
            if not total:
                break  # never seen: neither is any longer context
            c = self.counts[n].get(h + char, 0)
            p = (c - self.discounts[n][min(c, 3)] + self.taken[n][h] * p) / total
        return p


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("text")
    options.add_argument("--order", type=int, default=5)
    options.add_argument("--split", type=float, default=0.9, help="the part that is counted")
    options.add_argument("--check", action="store_true", help="check that distributions sum to 1")
    o = options.parse_args()
    text = open(o.text, encoding="utf-8", newline="").read()
    alphabet = sorted(set(text))
    begin = int(len(text) * o.split + 0.5)
    model = KneserNey(text[:begin], o.order, alphabet)
    if o.check:
        for i in range(begin, len(text), (len(text) - begin) // 100 + 1):
            total = sum(model.probability(text[i - o.order + 1:i], c) for c in alphabet)
            assert abs(total - 1) < 1e-9, (text[i - o.order + 1:i], total)
    known, loss = {}, 0.0
    for i in range(begin, len(text)):
        gram = text[i - o.order + 1:i + 1]
        if gram not in known:
            known[gram] = -math.log(model.probability(gram[:-1], gram[-1]))
        loss += known[gram]
    loss /= len(text) - begin
    print(f"{o.order}-gram, modified Kneser-Ney: {loss:.4f} nats ({loss / math.log(2):.4f} bits) a character, "
          f"{len(text) - begin} held-out characters, {begin} counted, {len(alphabet)} kinds")


if __name__ == "__main__":
    main()
