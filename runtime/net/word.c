/* The last word of a rank to those of its machine, past the carrier: which rank it takes for lost, before it ends itself.
 *
 * Who looks which processes are gone may find several: the lost one, and others that have noticed and ended since. The carrier would bring
 * the news from them, but not to a rank whose carrier hangs, nor soon to one that has much to read. A datagram between sockets of one
 * machine lies in the other's queue when the call that sends it returns, so of a process that is gone its word is there. Sockets have
 * names in no file system, and end with their process.
 *
 * Names have a random number, which hellos tell; a word counts only from the process of the rank that it says it is from. Where
 * there are no such sockets, or not between two ranks, only those words are missing. */
#define _GNU_SOURCE /* struct ucred */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "internal.h"

enum { WORD_MAGIC = 0x3177584d };

struct word {
    uint32_t magic;
    int32_t from, lost;
    char text[sizeof(struct mxrt_why)];
};

/* A first byte of zero: a name of its own space. */
static socklen_t address(struct sockaddr_un *a, uint64_t number) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "mxrt-net-%016llx", (unsigned long long)number);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

void word_open(struct mxrt_net *n) {
    struct sockaddr_un a;
    uint64_t number = 0;
    n->word_socket = -1;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number || number == 0)
        return;
    const int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    const socklen_t length = address(&a, number);
    if (s < 0)
        return;
    if (setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0 ||
        bind(s, (const struct sockaddr *)&a, length) != 0) {
        (void)close(s);
        return;
    }
    n->word_socket = s;
    n->word_number = number;
}

void word_close(struct mxrt_net *n) {
    if (n->word_socket >= 0)
        (void)close(n->word_socket);
    n->word_socket = -1;
}

void word_leave(struct mxrt_net *n) {
    struct word w = {.magic = WORD_MAGIC, .from = n->rank, .lost = n->lost_rank};
    (void)snprintf(w.text, sizeof w.text, "%s", n->doom);
    for (int q = 0; q < n->size && n->word_socket >= 0; q++) {
        struct sockaddr_un a;
        if (q == n->rank || n->peers[q].word_number == 0)
            continue;
        const socklen_t length = address(&a, n->peers[q].word_number);
        (void)sendto(n->word_socket, &w, sizeof w, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&a, length);
    }
}

bool word_waits(const struct mxrt_net *n) {
    char first;
    return n->word_socket >= 0 && recv(n->word_socket, &first, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static int sender(struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct ucred credentials;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
        return credentials.pid;
    }
    return 0;
}

void word_take(struct mxrt_net *n) {
    while (n->word_socket >= 0) {
        struct word w;
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct ucred))];
        struct iovec part = {&w, sizeof w};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        const ssize_t bytes = recvmsg(n->word_socket, &m, MSG_DONTWAIT);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0)
            return;
        if (bytes != (ssize_t)sizeof w || w.magic != WORD_MAGIC || w.from < 0 || w.from >= n->size || w.lost < 0 ||
            w.lost >= n->size || n->peers[w.from].pid == 0 || sender(&m) != n->peers[w.from].pid)
            continue;
        w.text[sizeof w.text - 1] = 0;
        for (char *c = w.text; *c; c++)
            *c = (unsigned char)*c < ' ' || *c == 127 ? '?' : *c;
        fault_told(n, w.from, (uint64_t)w.lost, w.text);
    }
}
