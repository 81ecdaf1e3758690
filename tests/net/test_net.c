/* The net between threads of one process: results, errors, losses. Argument: rounds of random work. */
#include "exercise.h"

enum { MOST = 8 };

struct rank {
    struct mxrt_net *net;
    pthread_t thread;
    int rounds;
    uint64_t seed, sum;
    int64_t largest;
};

/* f on a thread of its own for each rank. */
static void on_ranks(int size, const struct mxrt_net_options *options, void *(*f)(void *), int rounds, uint64_t seed,
                     int64_t largest) {
    struct mxrt_net *nets[MOST * 2];
    struct rank ranks[MOST * 2];
    OK(mxrt_net_group(nets, size, options, why));
    for (int r = 0; r < size; r++) {
        ranks[r] = (struct rank){.net = nets[r], .rounds = rounds, .seed = seed, .largest = largest};
        CHECK(mxrt_net_rank(nets[r]) == r && mxrt_net_size(nets[r]) == size);
        CHECK(pthread_create(&ranks[r].thread, NULL, f, &ranks[r]) == 0);
    }
    for (int r = 0; r < size; r++)
        CHECK(pthread_join(ranks[r].thread, NULL) == 0);
}

static void *random_work(void *context) {
    struct rank *r = context;
    r->sum = exercise(r->net, r->seed, r->rounds, r->largest);
    mxrt_net_close(r->net);
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 6;
    for (int size = 1; size <= MOST; size++)
        on_ranks(size, NULL, random_work, rounds, 100 + (uint64_t)size, 150001);
    for (int size = 9; size <= 13; size += 2)
        on_ranks(size, NULL, random_work, rounds / 2, 200 + (uint64_t)size, 4099);
    printf("net: passed\n");
    return 0;
}
