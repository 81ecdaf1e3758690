/* One rank of an MPI job in the tests of the net (tests/net/run_mpi.py starts them).
 *
 *   mpi_rank exercise SEED ROUNDS LARGEST NODE   random work, with nodes of so many ranks (0: as found); prints `rank R hash H`
 *   mpi_rank group N SEED ROUNDS LARGEST    the same between N threads of this process, without MPI
 *   mpi_rank loss TIMEOUT ELEMENTS NODE     sums without end; prints `rank R pid P` and, when a rank is lost, `rank R lost …` with the
 *                                           seconds since the last sum ended, and that close returns
 *   mpi_rank fast                           sums by MPI itself, asked for in another order by each rank; prints `rank R fast`
 *   mpi_rank measure */
#include <unistd.h>

#include "exercise.h"

struct member {
    struct mxrt_net *net;
    pthread_t thread;
    uint64_t seed;
    int rounds;
    int64_t largest;
};

static void *work(void *context) {
    struct member *m = context;
    uint64_t hash = exercise(m->net, m->seed, m->rounds, m->largest);
    printf("rank %d hash %016llx\n", mxrt_net_rank(m->net), (unsigned long long)hash);
    fflush(stdout);
    mxrt_net_close(m->net);
    return NULL;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Several sums at a time, until one fails. */
static int loss(double timeout, int64_t elements, int node_ranks) {
    struct mxrt_net_options options = {.timeout = timeout, .node_ranks = node_ranks};
    struct mxrt_net *n;
    OK(mxrt_net_open(&n, &options, why));
    enum { LIVE = 4 };
    float *x[LIVE];
    for (int k = 0; k < LIVE; k++)
        x[k] = calloc((size_t)elements, sizeof(float));
    printf("rank %d pid %d\n", mxrt_net_rank(n), (int)getpid());
    fflush(stdout);
    struct counter c;
    double last = now();
    for (long round = 0;; round++) {
        counter_init(&c, LIVE);
        for (int k = 0; k < LIVE; k++)
            mxrt_net_all_reduce(n, (uint64_t)k, k, (struct mxrt_net_range){x[k], elements, MX_F32}, count_done, &c);
        if (counter_wait(&c) > 0)
            break;
        if (round == 3) {
            printf("rank %d sums\n", mxrt_net_rank(n));
            fflush(stdout);
        }
        last = now();
    }
    double noticed = now() - last;
    struct mxrt_why reason = {""};
    int lost = mxrt_net_lost(n, &reason), rank = mxrt_net_rank(n);
    CHECK(c.status == MX_ERROR_PEER && lost >= 0 && strcmp(reason.text, c.message) == 0);
    /* What is asked for afterwards ends the same way. */
    counter_init(&c, 2);
    mxrt_net_send(n, rank, 1, "x", 1, count_done, &c);
    mxrt_net_broadcast(n, 9, 0, 0, (struct mxrt_net_range){x[0], elements, MX_F32}, count_done, &c);
    CHECK(counter_wait(&c) == 2 && c.status == MX_ERROR_PEER);
    FAILS(MX_ERROR_PEER, "rank", mxrt_net_barrier(n, why));
    for (int k = 0; k < LIVE; k++)
        free(x[k]);
    double closing = now();
    mxrt_net_close(n);
    printf("rank %d lost %d after %.2f close %.2f: %s\n", rank, lost, noticed, now() - closing, reason.text);
    fflush(stdout);
    return 0;
}

/* Sums of integers are exact in any order; those of floats are near. */
static int fast(void) {
    struct mxrt_net_options options = {.fast = true};
    struct mxrt_net *n;
    enum { SUMS = 10, LARGEST = 100000 };
    OK(mxrt_net_open(&n, &options, why));
    int rank = mxrt_net_rank(n), ranks = mxrt_net_size(n), order[SUMS];
    struct random own = {(uint64_t)rank + 99};
    char *part = malloc(LARGEST * sizeof(int64_t));
    for (int round = 0; round < 3; round++) {
        char *x[SUMS];
        struct counter c;
        counter_init(&c, SUMS);
        for (int k = 0; k < SUMS; k++) {
            int at = (int)draw(&own, (uint32_t)k + 1);
            order[k] = order[at];
            order[at] = k;
            x[k] = malloc(LARGEST * sizeof(int64_t));
            for (int64_t i = 0; i < LARGEST; i++)
                value(k % 2 ? MX_I64 : MX_F32, x[k], i, (uint64_t)(round * SUMS + k), rank);
        }
        for (int o = 0; o < SUMS; o++) {
            int k = order[o];
            struct mxrt_net_range range = {x[k], LARGEST - 9000 * k, k % 2 ? MX_I64 : MX_F32};
            mxrt_net_all_reduce(n, (uint64_t)k, 0, range, count_done, &c);
        }
        CHECK(counter_wait(&c) == 0);
        for (int k = 0; k < SUMS; k++) {
            for (int64_t i = 0; i < LARGEST - 9000 * k; i++) {
                uint64_t whole = 0;
                double sum = 0, magnitude = 0;
                for (int r = 0; r < ranks; r++) {
                    value(k % 2 ? MX_I64 : MX_F32, part, i, (uint64_t)(round * SUMS + k), r);
                    whole += k % 2 ? integer(MX_I64, part, i) : 0;
                    double f = k % 2 ? 0 : mxrt_get(MX_F32, part, i);
                    sum += f;
                    magnitude += f < 0 ? -f : f;
                }
                if (k % 2)
                    CHECK(integer(MX_I64, x[k], i) == whole);
                else
                    CHECK(mxrt_get(MX_F32, x[k], i) - sum <= 1e-6 * magnitude &&
                          sum - mxrt_get(MX_F32, x[k], i) <= 1e-6 * magnitude);
            }
            free(x[k]);
        }
    }
    free(part);
    mxrt_net_close(n);
    printf("rank %d fast\n", rank);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "loss") == 0 && argc == 5)
        return loss(atof(argv[2]), atoll(argv[3]), atoi(argv[4]));
    if (strcmp(mode, "fast") == 0)
        return fast();
    if (strcmp(mode, "measure") == 0) {
        struct mxrt_net *n;
        double latency, bandwidth;
        OK(mxrt_net_open(&n, NULL, why));
        OK(mxrt_net_measure(n, &latency, &bandwidth, why));
        CHECK(latency > 0 && latency < 10 && bandwidth > 0);
        if (mxrt_net_rank(n) == 0)
            printf("latency %.1f us, bandwidth %.0f MB/s\n", latency * 1e6, bandwidth * 1e-6);
        mxrt_net_close(n);
        return 0;
    }
    if (strcmp(mode, "exercise") == 0 && argc == 6) {
        struct member m = {.seed = strtoull(argv[2], NULL, 10), .rounds = atoi(argv[3]), .largest = atoll(argv[4])};
        OK(mxrt_net_open(&m.net, &(struct mxrt_net_options){.node_ranks = atoi(argv[5])}, why));
        work(&m);
        return 0;
    }
    if (strcmp(mode, "group") == 0 && argc == 6) {
        enum { MOST = 64 };
        int ranks = atoi(argv[2]);
        struct mxrt_net *nets[MOST];
        struct member members[MOST];
        CHECK(ranks <= MOST);
        OK(mxrt_net_group(nets, ranks, NULL, why));
        for (int r = 0; r < ranks; r++) {
            members[r] = (struct member){.net = nets[r],
                                         .seed = strtoull(argv[3], NULL, 10),
                                         .rounds = atoi(argv[4]),
                                         .largest = atoll(argv[5])};
            CHECK(pthread_create(&members[r].thread, NULL, work, &members[r]) == 0);
        }
        for (int r = 0; r < ranks; r++)
            CHECK(pthread_join(members[r].thread, NULL) == 0);
        return 0;
    }
    fprintf(
        stderr,
        "mpi_rank exercise SEED ROUNDS LARGEST NODE | group N SEED ROUNDS LARGEST | loss TIMEOUT ELEMENTS NODE | fast | measure\n");
    return 2;
}
