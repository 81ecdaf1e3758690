/* One rank of an MPI job in the tests of the net (tests/net/run_mpi.py starts them).
 *
 *   mpi_rank exercise SEED ROUNDS LARGEST   random work; prints `rank R hash H`
 *   mpi_rank group N SEED ROUNDS LARGEST    the same between N threads of this process, without MPI
 *   mpi_rank loss TIMEOUT ELEMENTS          sums without end; prints `rank R pid P` and, when a rank is lost, `rank R lost …` with the
 *                                           seconds since the last sum ended, and that close returns
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
static int loss(double timeout, int64_t elements) {
    struct mxrt_net_options options = {.timeout = timeout};
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

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "loss") == 0 && argc == 4)
        return loss(atof(argv[2]), atoll(argv[3]));
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
    if (strcmp(mode, "exercise") == 0 && argc == 5) {
        struct member m = {.seed = strtoull(argv[2], NULL, 10), .rounds = atoi(argv[3]), .largest = atoll(argv[4])};
        OK(mxrt_net_open(&m.net, NULL, why));
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
    fprintf(stderr,
            "mpi_rank exercise SEED ROUNDS LARGEST | group N SEED ROUNDS LARGEST | loss TIMEOUT ELEMENTS | measure\n");
    return 2;
}
