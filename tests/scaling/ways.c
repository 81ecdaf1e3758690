/* What runtime/net/way.c chooses: `ways` reads lines `RANKS NODE_RANKS ELEMENTS`, then latency, bandwidth and message of both links, and prints
 * kind, chunk and radices of each, for sums of f32. */
#include <stdio.h>

#include "net/way.h"

int main(void) {
    static const char *const kinds[] = {"whole", "tree", "stages"};
    struct way_net n;
    long long elements;
    while (scanf("%d %d %lld %lf %lf %lf %lf %lf %lf", &n.ranks, &n.node_ranks, &elements, &n.near.latency,
                 &n.near.bandwidth, &n.near.message, &n.far.latency, &n.far.bandwidth, &n.far.message) == 9) {
        const struct way w = way_choose(&n, elements, 4, 4);
        printf("%s %lld", kinds[w.kind], (long long)w.chunk_elements);
        for (int s = 0; s < w.stages; s++)
            printf(" %d", w.radix[s]);
        printf("\n");
    }
    return 0;
}
