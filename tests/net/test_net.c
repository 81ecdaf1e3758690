/* The net between threads of one process: results, errors, losses. Argument: rounds of random work. */
#include <stdatomic.h>

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

/* ---- messages: order, lengths, large ones, to itself */

static void *messages(void *context) {
    struct rank *r = context;
    struct mxrt_net *n = r->net;
    int rank = mxrt_net_rank(n), size = mxrt_net_size(n), next = (rank + 1) % size, before = (rank + size - 1) % size;
    enum { MANY = 300, LARGE = 3000001 };
    struct counter c;
    /* Equal tags arrive in order, small and large ones mixed, received after they came. */
    static const size_t bytes[] = {0, 1, 4, 3904, 3905, 100000, 300000, 1};
    char *sent[8], *got[8];
    counter_init(&c, 16);
    for (int k = 0; k < 8; k++) {
        sent[k] = malloc(bytes[k] + 1);
        got[k] = malloc(bytes[k] + 1);
        memset(sent[k], 'a' + k + rank, bytes[k] + 1);
        mxrt_net_send(n, next, 7, sent[k], bytes[k], count_done, &c);
    }
    sleep_us(20000);
    for (int k = 0; k < 8; k++)
        mxrt_net_receive(n, before, 7, got[k], bytes[k], count_done, &c);
    CHECK(counter_wait(&c) == 0);
    for (int k = 0; k < 8; k++) {
        memset(sent[k], 'a' + k + before, bytes[k] + 1);
        CHECK(memcmp(sent[k], got[k], bytes[k]) == 0);
        free(sent[k]);
        free(got[k]);
    }
    /* To itself, many under one tag. */
    int numbers[MANY], back[MANY];
    counter_init(&c, 2 * MANY);
    for (int k = 0; k < MANY; k++) {
        numbers[k] = k;
        mxrt_net_send(n, rank, 1, &numbers[k], sizeof numbers[k], count_done, &c);
    }
    for (int k = 0; k < MANY; k++)
        mxrt_net_receive(n, rank, 1, &back[k], sizeof back[k], count_done, &c);
    CHECK(counter_wait(&c) == 0 && memcmp(numbers, back, sizeof numbers) == 0);
    /* Another length than is expected: an error of the receive, and of a large send; nothing else is touched. */
    char *large = calloc(1, LARGE), small[10];
    counter_init(&c, 2);
    mxrt_net_send(n, next, 2, large, LARGE, count_done, &c);
    mxrt_net_receive(n, before, 2, small, sizeof small, count_done, &c);
    CHECK(counter_wait(&c) == 2 && c.status == MX_ERROR_PEER && strstr(c.message, "sent 3000001 bytes") &&
          strstr(c.message, "expects 10"));
    counter_init(&c, 2);
    mxrt_net_send(n, next, 3, small, 9, count_done, &c);
    mxrt_net_receive(n, before, 3, small, sizeof small, count_done, &c);
    CHECK(counter_wait(&c) == 1 && c.status == MX_ERROR_PEER && strstr(c.message, "sent 9 bytes under tag 3"));
    /* What is not allowed. */
    counter_init(&c, 7);
    mxrt_net_send(n, size, 2, large, 1, count_done, &c);
    mxrt_net_receive(n, -1, 2, large, 1, count_done, &c);
    mxrt_net_send(n, 0, 2, NULL, 1, count_done, &c);
    mxrt_net_request(n, 0, MXRT_NET_SERVICES, 0, NULL, 0, count_done, &c);
    mxrt_net_all_reduce(n, 1, 0, (struct mxrt_net_range){large, 1, (mx_dtype)99}, count_done, &c);
    mxrt_net_all_reduce(n, 1, 0, (struct mxrt_net_range){large, -1, MX_F32}, count_done, &c);
    mxrt_net_broadcast(n, 1, 0, size, (struct mxrt_net_range){large, 1, MX_F32}, count_done, &c);
    CHECK(counter_wait(&c) == 7 && c.status == MX_ERROR_ARGUMENT);
    CHECK(mxrt_net_lost(n, NULL) == -1);
    free(large);
    struct mxrt_net_statistics s = mxrt_net_statistics(n);
    CHECK(s.messages > MANY && s.bytes_sent > 400000 && s.bytes_received > 400000 && s.busy > 0);
    double latency, bandwidth;
    OK(mxrt_net_measure(n, &latency, &bandwidth, why));
    CHECK(size == 1 ? latency == 0 : latency > 0 && latency < 10 && bandwidth > 1000);
    double all[MOST * 2], mine[2] = {latency, bandwidth};
    counter_init(&c, 1);
    mxrt_net_all_gather(n, 0, 0, mine, sizeof mine, all, count_done, &c);
    CHECK(counter_wait(&c) == 0 && memcmp(all, all + 2 * (size - 1), sizeof mine) == 0);
    mxrt_net_close(n);
    return NULL;
}

/* ---- requests: each rank sums what the others send it, whatever their size, in the order in which they sent it */

struct service {
    pthread_mutex_t lock;
    uint64_t next[MOST];
    uint64_t bytes;
    int served, wanted;
    atomic_bool inside;
};

static void serve(void *context, int from, uint64_t word, void *data, size_t bytes) {
    struct service *s = context;
    atomic_store(&s->inside, true);
    pthread_mutex_lock(&s->lock);
    CHECK(word == s->next[from]++);
    for (size_t i = 0; i < bytes; i++)
        CHECK(((unsigned char *)data)[i] == (unsigned char)(word + (uint64_t)from));
    s->bytes += bytes;
    bool last = ++s->served == s->wanted;
    pthread_mutex_unlock(&s->lock);
    mxrt_net_release(data);
    if (last) /* the rank takes its offer back */
        sleep_us(2000);
    atomic_store(&s->inside, false);
}

static void *requests(void *context) {
    struct rank *r = context;
    struct mxrt_net *n = r->net;
    int rank = mxrt_net_rank(n), size = mxrt_net_size(n);
    enum { EACH = 40 };
    struct service s = {.wanted = EACH * size};
    pthread_mutex_init(&s.lock, NULL);
    OK(mxrt_net_offer(n, 3, serve, &s, why));
    FAILS(MX_ERROR_ARGUMENT, "offered already", mxrt_net_offer(n, 3, serve, &s, why));
    FAILS(MX_ERROR_ARGUMENT, "0 to 7, not 8", mxrt_net_offer(n, 8, serve, &s, why));
    OK(mxrt_net_barrier(n, why));
    struct counter c;
    counter_init(&c, EACH * size);
    char *data[EACH];
    size_t bytes[EACH];
    for (int k = 0; k < EACH; k++) {
        bytes[k] = k % 5 == 0 ? 0 : k % 7 == 0 ? 200000 : (size_t)k;
        data[k] = malloc(bytes[k] + 1);
        memset(data[k], k + rank, bytes[k]);
        for (int q = 0; q < size; q++)
            mxrt_net_request(n, q, 3, (uint64_t)k, data[k], bytes[k], count_done, &c);
    }
    CHECK(counter_wait(&c) == 0);
    for (int k = 0; k < EACH; k++)
        free(data[k]);
    for (;;) {
        pthread_mutex_lock(&s.lock);
        bool all = s.served == s.wanted;
        pthread_mutex_unlock(&s.lock);
        if (all)
            break;
        sleep_us(100);
    }
    OK(mxrt_net_offer(n, 3, NULL, NULL, why));
    CHECK(!atomic_load(&s.inside));
    OK(mxrt_net_barrier(n, why));
    mxrt_net_close(n);
    pthread_mutex_destroy(&s.lock);
    return NULL;
}

/* ---- what ends a net. Every rank asks for sums all the time; each ends, at the latest with the loss. */

enum trouble { FAIL, HANG, DISAGREE, FLOOD, NO_SERVICE };

static void trouble(struct rank *r, enum trouble what, int culprit, const char *words) {
    struct mxrt_net *n = r->net;
    int rank = mxrt_net_rank(n), size = mxrt_net_size(n);
    enum { ELEMENTS = 300001, LIVE = 5 };
    float *x[LIVE];
    struct counter c, others;
    counter_init(&others, 1 << 30); /* never waited for */
    for (int k = 0; k < LIVE; k++)
        x[k] = calloc(ELEMENTS, sizeof(float));
    int64_t rounds = 0;
    for (;; rounds++) {
        if (rounds == 3 && rank == culprit) {
            if (what == FAIL) {
                mxrt_net_fail(n, "the disk is full");
            } else if (what == HANG) {
                mxrt_net_alive(n);
                while (mxrt_net_lost(n, NULL) < 0)
                    sleep_us(10000);
            } else if (what == DISAGREE) {
                mxrt_net_broadcast(n, 0, 0, 0, (struct mxrt_net_range){x[0], ELEMENTS, MX_F32}, count_done, &others);
                while (mxrt_net_lost(n, NULL) < 0)
                    sleep_us(1000);
            } else if (what == FLOOD) {
                for (int k = 0; k < 3000; k++)
                    mxrt_net_send(n, (culprit + 1) % size, 55, x[0], 1000, count_done, &others);
            } else {
                mxrt_net_request(n, (culprit + 1) % size, 5, 0, NULL, 0, count_done, &others);
            }
        }
        counter_init(&c, LIVE);
        for (int k = 0; k < LIVE; k++)
            mxrt_net_all_reduce(n, (uint64_t)k, k % 2, (struct mxrt_net_range){x[k], ELEMENTS, MX_F32}, count_done, &c);
        if (counter_wait(&c) > 0)
            break;
        CHECK(rounds < 100000);
    }
    for (int k = 0; k < LIVE; k++)
        free(x[k]); /* nobody writes here any more: ASan sees it */
    struct mxrt_why reason;
    int lost = mxrt_net_lost(n, &reason);
    /* Of two that disagree, who notices first names the other. */
    if (c.status != MX_ERROR_PEER || lost < 0 || (what != DISAGREE && lost != culprit) || !strstr(reason.text, words) ||
        strcmp(reason.text, c.message) != 0) {
        fprintf(stderr, "trouble %d: rank %d: status %d, lost %d: %s; %s\n", what, rank, c.status, lost, reason.text,
                c.message);
        exit(1);
    }
    FAILS(MX_ERROR_PEER, words, mxrt_net_barrier(n, why));
    mxrt_net_close(n);
}

static void *fails(void *context) {
    trouble(context, FAIL, 1, "gave up: the disk is full");
    return NULL;
}
static void *hangs(void *context) {
    trouble(context, HANG, 2, "hangs: its program has not called mxrt_net_alive");
    return NULL;
}
static void *disagrees(void *context) {
    trouble(context, DISAGREE, 1, "asked for collective 0 as");
    return NULL;
}
static void *floods(void *context) {
    trouble(context, FLOOD, 1, "memory_limit");
    return NULL;
}
static void *asks_for_nothing(void *context) {
    trouble(context, NO_SERVICE, 0, "asked for service 5, which rank 1 does not offer");
    return NULL;
}

/* A loss while nothing is under way is seen by asking; closing then waits for nobody. */
static void *fails_idle(void *context) {
    struct rank *r = context;
    if (mxrt_net_rank(r->net) == 0)
        mxrt_net_fail(r->net, "enough");
    while (mxrt_net_lost(r->net, NULL) < 0)
        sleep_us(1000);
    mxrt_net_close(r->net);
    return NULL;
}

/* ---- priority: a small sum that is asked for behind many large ones ends before most of them. Rank 0 asks last, for all at once, since
 * it does so on its net's thread. */

enum { CROWD = 24, LARGE = 250000, SMALL = 50000 };

struct hurry {
    struct mxrt_net *net;
    float *x[CROWD + 1];
    struct turn {
        struct hurry *h;
        int ended_as;
    } turns[CROWD + 1];
    int next; /* of the net's thread */
    struct counter ended;
};

static void take_turn(void *context, mx_status status, const char *message) {
    struct turn *t = context;
    t->ended_as = t->h->next++;
    count_done(&t->h->ended, status, message);
}

static void ask_for_all(void *context, mx_status status, const char *message) {
    struct hurry *h = context;
    for (int k = 0; k <= CROWD; k++) {
        bool small = k == CROWD;
        mxrt_net_all_reduce(h->net, (uint64_t)k, small ? 9 : 0,
                            (struct mxrt_net_range){h->x[k], small ? SMALL : LARGE, MX_F32}, take_turn, &h->turns[k]);
    }
    count_done(&h->ended, status, message);
}

static void *hurries(void *context) {
    struct rank *r = context;
    bool last = mxrt_net_rank(r->net) == 0;
    struct hurry h = {.net = r->net};
    for (int k = 0; k <= CROWD; k++) {
        h.x[k] = calloc(LARGE, sizeof(float));
        h.turns[k].h = &h;
    }
    counter_init(&h.ended, CROWD + 2);
    if (last)
        OK(mxrt_net_barrier(r->net, why));
    mxrt_net_send(r->net, mxrt_net_rank(r->net), 1, "", 1, ask_for_all, &h);
    if (!last)
        OK(mxrt_net_barrier(r->net, why));
    CHECK(counter_wait(&h.ended) == 0);
    if (last)
        CHECK(h.turns[CROWD].ended_as < CROWD / 2);
    char received;
    struct counter c;
    counter_init(&c, 1);
    mxrt_net_receive(r->net, mxrt_net_rank(r->net), 1, &received, 1, count_done, &c);
    CHECK(counter_wait(&c) == 0);
    for (int k = 0; k <= CROWD; k++)
        free(h.x[k]);
    mxrt_net_close(r->net);
    return NULL;
}

/* ---- orders: rank 0 asks for all sums at once, the others for the last one first and for the next when that has ended. Were memory for
 * summands taken by what is asked for, what rank 0 waits for last would wait for it. Together they need more than there is. */

static void *other_orders(void *context) {
    struct rank *r = context;
    struct mxrt_net *n = r->net;
    enum { SUMS = 10, ELEMENTS = 1600000 };
    int rank = mxrt_net_rank(n), size = mxrt_net_size(n);
    int32_t *x[SUMS];
    struct counter all;
    counter_init(&all, SUMS);
    for (int k = 0; k < SUMS; k++) {
        x[k] = malloc(ELEMENTS * sizeof(int32_t));
        for (int i = 0; i < ELEMENTS; i++)
            x[k][i] = i + k;
        if (rank == 0)
            mxrt_net_all_reduce(n, (uint64_t)k, SUMS - k, (struct mxrt_net_range){x[k], ELEMENTS, MX_I32}, count_done,
                                &all);
    }
    for (int k = SUMS - 1; k >= 0 && rank != 0; k--) {
        struct counter c;
        counter_init(&c, 1);
        mxrt_net_all_reduce(n, (uint64_t)k, 0, (struct mxrt_net_range){x[k], ELEMENTS, MX_I32}, count_done, &c);
        CHECK(counter_wait(&c) == 0);
    }
    CHECK(rank != 0 || counter_wait(&all) == 0);
    for (int k = 0; k < SUMS; k++) {
        for (int i = 0; i < ELEMENTS; i++)
            CHECK(x[k][i] == size * (i + k));
        free(x[k]);
    }
    mxrt_net_close(n);
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 6;
    for (int size = 1; size <= MOST; size++)
        on_ranks(size, NULL, random_work, rounds, 100 + (uint64_t)size, 150001);
    for (int size = 9; size <= 13; size += 2)
        on_ranks(size, NULL, random_work, (rounds + 1) / 2, 200 + (uint64_t)size, 4099);
    for (int size = 1; size <= 5; size++)
        on_ranks(size, NULL, messages, 0, 0, 0);
    on_ranks(4, NULL, requests, 0, 0, 0);
    struct mxrt_net_options little = {.memory_limit = 450000}; /* two large requests at a time */
    on_ranks(3, &little, requests, 0, 0, 0);
    on_ranks(3, NULL, hurries, 0, 0, 0);
    on_ranks(3, NULL, other_orders, 0, 0, 0);
    on_ranks(4, NULL, fails, 0, 0, 0);
    struct mxrt_net_options quick = {.timeout = 1};
    on_ranks(4, &quick, hangs, 0, 0, 0);
    on_ranks(3, NULL, disagrees, 0, 0, 0);
    struct mxrt_net_options limited = {.memory_limit = 1000000};
    on_ranks(3, &limited, floods, 0, 0, 0);
    on_ranks(2, NULL, asks_for_nothing, 0, 0, 0);
    on_ranks(3, NULL, fails_idle, 0, 0, 0);
    FAILS(MX_ERROR_ARGUMENT, "1 to 4096 ranks, not 0", mxrt_net_group(NULL, 0, NULL, why));
    struct mxrt_net_options wrong = {.timeout = -1};
    struct mxrt_net *n;
    FAILS(MX_ERROR_ARGUMENT, "timeout", mxrt_net_group(&n, 1, &wrong, why));
    mxrt_net_close(NULL);
    printf("net: passed\n");
    return 0;
}
