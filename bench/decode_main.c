/* Writing with one compiled decoder of samples/zoo: the first tokens at once, then one after the other. Built with
 *
 *     -include MODEL.h -DMODEL=…        the generated header and its prefix
 *     -DWORDS=…                         the size of the vocabulary
 *     -DPREFILL=… -DDECODE=…            tokens at once; tokens behind them
 *
 * and run as `program SEED`. Writes one line of JSON: milliseconds of each of three prefills and of each token, the token of the largest score after
 * each, and the sum of the last scores. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b)  JOIN_(a, b)
#define CALL(name)  JOIN(MODEL, name)

static double now_ms(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static float scores[WORDS];

static int32_t best(void) {
    int32_t at = 0;
    for (int32_t i = 1; i < WORDS; i++)
        at = scores[i] > scores[at] ? i : at;
    return at;
}

static int32_t ids[PREFILL], written[DECODE + 1];

int main(int argc, char **argv) {
    JOIN(MODEL, options) options = {.seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1};
    MODEL *m = NULL;
    double ms[3 + DECODE], sum = 0;
    uint32_t s = 1;
    if (CALL(init)(&m, NULL, 0, &options) != MX_OK) {
        fprintf(stderr, "init failed\n");
        return 1;
    }
    for (int i = 0; i < PREFILL; i++) {
        s = s * 1664525u + 1013904223u;
        ids[i] = (int32_t)((s >> 8) % WORDS);
    }
    for (int i = 0; i < 3 + DECODE; i++) {
        double t = now_ms();
        mx_status status =
            i < 3 ? CALL(prefill)(m, PREFILL, ids, scores) : CALL(decode)(m, written[i - 3], PREFILL + i - 3, scores);
        ms[i] = now_ms() - t;
        if (status != MX_OK) {
            fprintf(stderr, "%s failed: %s\n", i < 3 ? "prefill" : "decode", CALL(error)(m));
            return 1;
        }
        if (i >= 2)
            written[i - 2] = best();
    }
    for (int i = 0; i < WORDS; i++)
        sum += (double)scores[i];
    printf("{\"prefill_ms\": [");
    for (int i = 0; i < 3; i++)
        printf("%s%.3f", i ? ", " : "", ms[i]);
    printf("], \"decode_ms\": [");
    for (int i = 0; i < DECODE; i++)
        printf("%s%.3f", i ? ", " : "", ms[3 + i]);
    printf("], \"tokens\": [");
    for (int i = 0; i <= DECODE; i++)
        printf("%s%d", i ? ", " : "", (int)written[i]);
    printf("], \"sum\": %.6g}\n", sum);
    CALL(free)(m);
    return 0;
}
