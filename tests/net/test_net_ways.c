/* Ways of an all-reduce: which is chosen, and that all have the bits that net.h states, whatever the nodes. Links are made up, so that
 * each way is the fastest somewhere; that each was taken is checked. Argument: ranks, at most. */
#include "exercise.h"
#include "net/internal.h"
#include "net/sum.h"

enum { MOST = 16 };

static const struct way_link ether = {3e-5, 1.2e9, 2e-6}, slow = {1e-3, 1.2e8, 1e-5}, bus = {1e-6, 2e10, 1e-6},
                             heavy = {1e-6, 1e10, 1e-3}, far_away = {0.1, 1e12, 1e-7};

/* ---- the choice */

static void sound(const struct way_net *net, const struct way *w, int64_t elements) {
    int product = 1;
    CHECK(way_digest(w) >= 0 && way_digest(w) < 1 << 16);
    if (w->kind == WAY_TREE)
        return;
    CHECK(w->stages >= 1 && w->stages <= MOST_STAGES && w->chunk_elements > 0);
    bool met = !net->node_ranks || w->stages == 1;
    for (int s = 0; s < w->stages; s++) {
        CHECK(w->radix[s] > 1 && (s == w->stages - 1 || (w->radix[s] & (w->radix[s] - 1)) == 0));
        product *= w->radix[s];
        met |= product == net->node_ranks; /* no stage is within nodes and between them */
    }
    CHECK(product == net->ranks && met);
    CHECK(w->kind != WAY_WHOLE || (w->stages == 1 && w->chunk_elements == elements));
}

static void choices(void) {
    static const int sizes[] = {2, 3, 4, 6, 7, 8, 12, 16, 24, 60, 64, 100, 128, 256, 1000, 1024, 4096, 65535};
    const struct way_link *links[] = {&ether, &slow, &bus, &heavy, &far_away};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int node = 0; node <= 16; node = node ? node * 2 : 2)
            for (int l = 0; l < 5; l++)
                for (int64_t elements = 1; elements < 1 << 27; elements = elements * 7 + 1) {
                    struct way_net net = {sizes[i], way_node_ranks_of(node, sizes[i]), bus, *links[l]};
                    struct way w = way_choose(&net, elements, 2, 4);
                    sound(&net, &w, elements);
                }
    struct way_net hosts = {4, 0, bus, ether}, cluster = {1024, 8, bus, {1e-5, 3e9, 1e-6}};
    struct way w = way_choose(&hosts, 1000000, 4, 4);
    CHECK(w.kind == WAY_STAGES && w.stages == 1);
    w = way_choose(&hosts, 1, 8, 8);
    CHECK(w.kind == WAY_WHOLE);
    w = way_choose(&cluster, 1, 8, 8);
    CHECK(w.kind == WAY_TREE || w.stages > 2); /* 1023 messages at one rank would cost more than some latencies */
    w = way_choose(&cluster, 1000000, 4, 4);
    CHECK(w.kind == WAY_STAGES && w.stages > 2);
    cluster.far = (struct way_link){1e-4, 1e8, 1e-7};
    w = way_choose(&cluster, 25000000, 4, 4);
    CHECK(w.kind == WAY_STAGES && w.stages > 1);
}

static void nodes(void) {
    CHECK(way_node_ranks(NULL, 8) == 0);
    CHECK(way_node_ranks((int[]){0, 0, 2, 2}, 4) == 2);
    CHECK(way_node_ranks((int[]){5, 5, 5, 5, 1, 1, 1, 1, 9, 9, 9, 9}, 12) == 4);
    CHECK(way_node_ranks((int[]){0, 0, 0, 0}, 4) == 0);       /* one node */
    CHECK(way_node_ranks((int[]){0, 1, 2, 3}, 4) == 0);       /* of one rank each */
    CHECK(way_node_ranks((int[]){0, 1, 0, 1}, 4) == 0);       /* dealt out */
    CHECK(way_node_ranks((int[]){0, 0, 1, 1, 0, 0}, 6) == 0); /* a node in two parts */
    CHECK(way_node_ranks((int[]){0, 0, 1, 1, 4}, 5) == 0);    /* unequal */
    CHECK(way_node_ranks((int[]){0, 0, 1, 1, 1, 1}, 6) == 0);
    CHECK(way_node_ranks((int[]){0, 0, 0, 1, 1, 1}, 6) == 0); /* no subtree of ((0 1) (2 3)) (4 5) */
}

/* ---- bits */

static const mx_dtype types[] = {MX_F32, MX_BF16, MX_F64, MX_F16, MX_I16};
static const int64_t sizes[] = {1, 2, 13, 500, 2000, 20001, 100007};
enum { TYPES = 5, SIZES = 7 };

/* What ranks add, and the sum: made once for a number of ranks. */
static struct values {
    int ranks;
    char *of[TYPES][SIZES][MOST], *sum[TYPES][SIZES];
} values;

static size_t bytes_of(int type, int size) {
    return (size_t)sizes[size] * mxrt_dtype_size(types[type]);
}

static void free_values(void) {
    for (int t = 0; t < TYPES; t++)
        for (int k = 0; k < SIZES; k++) {
            for (int q = 0; q < values.ranks; q++)
                free(values.of[t][k][q]);
            free(values.sum[t][k]);
        }
}

static void make_values(int ranks) {
    values.ranks = ranks;
    for (int t = 0; t < TYPES; t++)
        for (int k = 0; k < SIZES; k++) {
            for (int q = 0; q < ranks; q++) {
                values.of[t][k][q] = malloc(bytes_of(t, k));
                for (int64_t i = 0; i < sizes[k]; i++)
                    value(types[t], values.of[t][k][q], i, (uint64_t)k, q);
            }
            values.sum[t][k] = malloc(bytes_of(t, k));
            expected_sum(types[t], values.of[t][k], ranks, sizes[k], values.sum[t][k]);
        }
}

struct rank {
    struct mxrt_net *net;
    pthread_t thread;
    bool measures;
};

static void *sums(void *context) {
    const struct rank *r = context;
    int rank = mxrt_net_rank(r->net);
    double latency, bandwidth;
    char *data[TYPES][SIZES];
    struct counter c;
    if (r->measures)
        OK(mxrt_net_measure(r->net, &latency, &bandwidth, why));
    counter_init(&c, TYPES * SIZES);
    for (int t = 0; t < TYPES; t++)
        for (int k = 0; k < SIZES; k++) {
            data[t][k] = malloc(bytes_of(t, k));
            memcpy(data[t][k], values.of[t][k][rank], bytes_of(t, k));
            mxrt_net_all_reduce(r->net, (uint64_t)(t * SIZES + k), k % 3,
                                (struct mxrt_net_range){data[t][k], sizes[k], types[t]}, count_done, &c);
        }
    CHECK(counter_wait(&c) == 0);
    for (int t = 0; t < TYPES; t++)
        for (int k = 0; k < SIZES; k++) {
            if (memcmp(data[t][k], values.sum[t][k], bytes_of(t, k)) != 0) {
                fprintf(stderr, "rank %d of %d: %lld %s: other bits\n", rank, values.ranks, (long long)sizes[k],
                        mxrt_dtype_name(types[t]));
                exit(1);
            }
            free(data[t][k]);
        }
    mxrt_net_close(r->net);
    return NULL;
}

static int taken[3], staged; /* ways, of each kind; and of more than one stage */

static void on_nodes(int ranks, int node_ranks, const struct way_link *near, const struct way_link *far) {
    struct mxrt_net *nets[MOST];
    struct rank all[MOST];
    OK(mxrt_net_group(nets, ranks, &(struct mxrt_net_options){.node_ranks = node_ranks}, why));
    for (int q = 0; q < ranks; q++) {
        CHECK(nets[q]->way.node_ranks == way_node_ranks_of(node_ranks, ranks));
        if (far) {
            nets[q]->way.near = *near;
            nets[q]->way.far = *far;
        }
        all[q] = (struct rank){.net = nets[q], .measures = !far};
    }
    for (int k = 0; k < SIZES && far; k++) {
        struct way w = way_choose(&nets[0]->way, sizes[k], 4, 4);
        taken[w.kind]++;
        staged += w.kind == WAY_STAGES && w.stages > 1;
    }
    for (int q = 0; q < ranks; q++)
        CHECK(pthread_create(&all[q].thread, NULL, sums, &all[q]) == 0);
    for (int q = 0; q < ranks; q++)
        CHECK(pthread_join(all[q].thread, NULL) == 0);
}

int main(int argc, char **argv) {
    static const int counts[] = {2, 3, 4, 5, 6, 7, 8, 12, 16};
    int most = argc > 1 ? atoi(argv[1]) : MOST;
    choices();
    nodes();
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] <= most; i++) {
        make_values(counts[i]);
        for (int node = 1; node < counts[i]; node++) {
            if (node > 1 && !way_node_ranks_of(node, counts[i]) && node != 3)
                continue;
            on_nodes(counts[i], node, NULL, NULL);
            on_nodes(counts[i], node, &bus, &ether);
            on_nodes(counts[i], node, &bus, &heavy);
            on_nodes(counts[i], node, &bus, &far_away);
            on_nodes(counts[i], node, &heavy, &heavy);
        }
        free_values();
    }
    CHECK(taken[WAY_WHOLE] > 0 && taken[WAY_TREE] > 0 && staged > 0 && taken[WAY_STAGES] > staged);
    struct mxrt_net *n;
    FAILS(MX_ERROR_ARGUMENT, "node_ranks is a number of ranks",
          mxrt_net_group(&n, 1, &(struct mxrt_net_options){.node_ranks = -1}, why));
    printf("net ways: passed (whole %d, tree %d, direct %d, in stages %d)\n", taken[WAY_WHOLE], taken[WAY_TREE],
           taken[WAY_STAGES] - staged, staged);
    return 0;
}
