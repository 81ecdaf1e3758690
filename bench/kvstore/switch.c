/* A switch with a long cable: frames that come in at a port leave at another a given time later.
 *
 *     switch MICROSECONDS PORT…
 *
 * The kernel's own delay (tc netem) is missing from many small virtual machines. Ports are interfaces of this network namespace, each
 * with a queue of its own that limits its rate (tc tbf); port i leads to the station with the hardware address 02:00:00:00:00:i. Frames
 * are taken and given as the kernel holds them, up to 64 KiB before it cuts them for the wire, so a gigabit is some thousand
 * frames a second and one thread has little to do. As the time is the same for all, one queue in order of arrival is enough. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 64, VNET_HEADER = 10, ROOM = 1 << 17, FRAMES_A_TURN = 64, RECEIVE_BYTES = 1 << 26 };

struct frame {
    struct frame *next;
    int64_t due;
    int to; /* port; -1: all but `from` */
    int from;
    size_t bytes;
    unsigned char data[];
};

struct line {
    struct frame *first, *last;
};

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what, const char *of) {
    fprintf(stderr, "switch: %s %s: %s\n", what, of, strerror(errno));
    exit(1);
}

static int open_port(const char *name) {
    const int one = 1, bytes = RECEIVE_BYTES;
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    if (s < 0)
        fail("packet socket of", name);
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq all = {.mr_ifindex = at.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(s, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) != 0 ||
        setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) != 0 ||
        setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0 ||
        setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0 ||
        bind(s, (struct sockaddr *)&at, sizeof at) != 0 ||
        setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) != 0)
        fail("port", name);
    return s;
}

/* Every station's first frame is a question to all (ARP); the addresses need not be learned. */
static int port_of(const unsigned char *address, int ports) {
    static const unsigned char head[5] = {2};
    return memcmp(address, head, sizeof head) == 0 && address[5] < ports ? address[5] : -1;
}

static void take(int from, int socket, int ports, int64_t delay, struct line *line) {
    static unsigned char data[ROOM];
    for (int i = 0; i < FRAMES_A_TURN; i++) {
        ssize_t n = recv(socket, data, sizeof data, 0);
        if (n < VNET_HEADER + ETH_HLEN)
            return;
        struct frame *f = malloc(sizeof *f + (size_t)n);
        if (!f)
            return; /* lost, as on any wire */
        *f = (struct frame){
            .due = now() + delay, .to = port_of(data + VNET_HEADER, ports), .from = from, .bytes = (size_t)n};
        memcpy(f->data, data, f->bytes);
        if (line->last)
            line->last->next = f;
        else
            line->first = f;
        line->last = f;
    }
}

static void give(struct line *line, const int *sockets, int ports) {
    struct frame *f = line->first;
    for (int q = 0; q < ports; q++)
        if (q != f->from && (f->to < 0 || f->to == q))
            (void)!send(sockets[q], f->data, f->bytes, 0);
    if (!(line->first = f->next))
        line->last = NULL;
    free(f);
}

int main(int argc, char **argv) {
    int ports = argc - 2, sockets[PORTS];
    struct pollfd polls[PORTS];
    struct line line = {NULL, NULL};
    if (argc < 3 || ports > PORTS) {
        fprintf(stderr, "usage: switch MICROSECONDS PORT…\n");
        return 2;
    }
    int64_t delay = strtoll(argv[1], NULL, 10) * 1000;
    for (int q = 0; q < ports; q++) {
        sockets[q] = open_port(argv[2 + q]);
        polls[q] = (struct pollfd){.fd = sockets[q], .events = POLLIN};
    }
    /* A wire does not wait for a processor. */
    const struct sched_param first = {.sched_priority = 1};
    (void)sched_setscheduler(0, SCHED_FIFO, &first);
    (void)prctl(PR_SET_TIMERSLACK, 1UL);
    (void)prctl(PR_SET_PDEATHSIG, 9);
    printf("READY\n");
    fflush(stdout);
    for (;;) {
        int64_t left = line.first ? line.first->due - now() : -1;
        const struct timespec wait = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
        int ready = ppoll(polls, (nfds_t)ports, line.first ? &wait : NULL, NULL);
        for (int q = 0; q < ports && ready > 0; q++)
            if (polls[q].revents)
                take(q, sockets[q], ports, delay, &line);
        while (line.first && line.first->due <= now())
            give(&line, sockets, ports);
    }
}
