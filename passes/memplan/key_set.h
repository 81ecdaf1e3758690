/* A set of states that a search need not enter again, each named by 128 bits (Zobrist 1970: sums of random numbers of its parts). */
#ifndef MXCC_PASSES_MEMPLAN_KEY_SET_H
#define MXCC_PASSES_MEMPLAN_KEY_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_key {
    uint64_t a, b;
};

struct key_set {            /* zeroed: empty */
    struct state_key *keys; /* open addressing; zero: free */
    size_t size, count, most;
};

/* 64 bits that look random; distinct for distinct x. */
uint64_t key_mix(uint64_t x);
void key_set_add(struct key_set *s, struct state_key k);
bool key_set_has(const struct key_set *s, struct state_key k);
void key_set_free(struct key_set *s);

#endif
