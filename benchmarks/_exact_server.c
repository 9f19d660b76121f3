/* An exact server of streamed chat answers, by which a load generator is judged: not ours, no Python.

   exact_server TTFT_US ITL_US TOKENS [FREEZE_MS EVERY_MS]

   Listens on 127.0.0.1 on a free port, prints it, and answers every POST with TOKENS chunks of text,
   the first TTFT_US after the request was read and each further one ITL_US later, each a write of its
   own at an absolute time. It spins: one core is its own. With FREEZE_MS it stops for that long at the
   beginning of every EVERY_MS. GET is answered with a list of models. It prints when the first POST
   had been read (CLOCK_MONOTONIC, ns), and on SIGTERM how late its writes were: count, p50, p99 and
   maximum, in microseconds. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 8192
#define BODY (1 << 20)
#define LATE_US 1000000

static const char *MODELS =
    "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"us\"}]}";
static const char *BASE =
    "\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\"";

struct caller {
    int fd;
    char *in;
    size_t have;
    long sent;     /* chunks of text of the answer so far; -1: nothing is asked */
    int64_t begin; /* when its request had been read, ns */
    int64_t due;
};

static struct caller *of_fd[MOST * 4];
static struct caller *heap[MOST];
static int waiting;
static int64_t ttft_ns, itl_ns;
static long tokens;
static uint32_t late[LATE_US + 1];
static volatile sig_atomic_t over;
static long asked;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void swap(int a, int b) {
    struct caller *c = heap[a];
    heap[a] = heap[b];
    heap[b] = c;
}

static void sink(int i) {
    for (;;) {
        int least = i, l = 2 * i + 1, r = l + 1;
        if (l < waiting && heap[l]->due < heap[least]->due) least = l;
        if (r < waiting && heap[r]->due < heap[least]->due) least = r;
        if (least == i) return;
        swap(i, least);
        i = least;
    }
}

static void push(struct caller *c) {
    int i = waiting++;
    heap[i] = c;
    while (i && heap[(i - 1) / 2]->due > heap[i]->due) swap(i, (i - 1) / 2), i = (i - 1) / 2;
}

static void forget(struct caller *c) {
    for (int i = 0; i < waiting; i++)
        if (heap[i] == c) {
            heap[i] = heap[--waiting];
            for (int j = waiting / 2; j >= 0; j--) sink(j);
            break;
        }
    of_fd[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c);
}

static int framed(char *out, const char *event) {
    return sprintf(out, "%zx\r\n%s\r\n", strlen(event), event);
}

/* What is due now; 0 when the caller is gone. */
static int speak(struct caller *c) {
    static char out[4096], event[1024];
    int n = 0;
    if (c->sent == 0) {
        n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        sprintf(event, "data: {%s,\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n", BASE);
        n += framed(out + n, event);
    }
    sprintf(event, "data: {%s,\"choices\":[{\"index\":0,\"delta\":{\"content\":\" w%04ld\"},\"finish_reason\":null}]}\n\n", BASE, c->sent % 10000);
    n += framed(out + n, event);
    if (++c->sent == tokens) {
        sprintf(event, "data: {%s,\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", BASE);
        n += framed(out + n, event);
        sprintf(event, "data: {%s,\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n", BASE, tokens, tokens + 9);
        n += framed(out + n, event);
        n += framed(out + n, "data: [DONE]\n\n");
        n += sprintf(out + n, "0\r\n\r\n");
    }
    return send(c->fd, out, n, MSG_NOSIGNAL) == n;
}

static void hear(struct caller *c) {
    ssize_t n = recv(c->fd, c->in + c->have, BODY - 1 - c->have, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        forget(c);
        return;
    }
    c->have += n;
    c->in[c->have] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return;
    char *length = strcasestr(c->in, "content-length:");
    size_t needed = end + 4 - c->in + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
    if (c->have < needed) return;
    c->have = 0;
    if (!strncmp(c->in, "GET ", 4)) {
        char out[1024];
        int size = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(MODELS), MODELS);
        if (send(c->fd, out, size, MSG_NOSIGNAL) != size) forget(c);
        return;
    }
    c->begin = now();
    if (!asked++) printf("%lld\n", (long long)c->begin), fflush(stdout);
    c->sent = 0;
    c->due = c->begin + ttft_ns;
    push(c);
}

static void stop(int sig) {
    (void)sig;
    over = 1;
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: %s TTFT_US ITL_US TOKENS [FREEZE_MS EVERY_MS]\n", argv[0]);
        return 2;
    }
    ttft_ns = atoll(argv[1]) * 1000, itl_ns = atoll(argv[2]) * 1000, tokens = atol(argv[3]);
    int64_t freeze = argc == 6 ? atoll(argv[4]) * 1000000 : 0, every = argc == 6 ? atoll(argv[5]) * 1000000 : 1;
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 4096)) return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int poll = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, got[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &e);
    int64_t start = now();
    while (!over) {
        int64_t t = now();
        if (freeze && (t - start) % every < freeze && t - start > every) {
            int64_t rest = freeze - (t - start) % every;
            struct timespec pause = {rest / 1000000000, rest % 1000000000};
            nanosleep(&pause, NULL);
        }
        while (waiting && heap[0]->due <= (t = now())) {
            struct caller *c = heap[0];
            int64_t by = (t - c->due) / 1000;
            late[by > LATE_US ? LATE_US : by]++;
            if (!speak(c)) {
                forget(c);
                continue;
            }
            if (c->sent == tokens) {
                heap[0] = heap[--waiting];
            } else {
                c->due = c->begin + ttft_ns + c->sent * itl_ns;
            }
            sink(0);
        }
        int n = epoll_wait(poll, got, 256, waiting ? 0 : 5);
        for (int i = 0; i < n; i++) {
            if (got[i].data.fd != listener) {
                if (of_fd[got[i].data.fd]) hear(of_fd[got[i].data.fd]);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MOST) {
                    close(fd);
                    continue;
                }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                struct caller *c = calloc(1, sizeof *c);
                c->fd = fd, c->sent = -1, c->in = malloc(BODY);
                of_fd[fd] = c;
                struct epoll_event ours = {.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &ours);
            }
        }
    }
    uint64_t count = 0, seen = 0;
    long p50 = -1, p99 = -1, most = 0;
    for (long i = 0; i <= LATE_US; i++) count += late[i];
    for (long i = 0; i <= LATE_US; i++) {
        seen += late[i];
        if (p50 < 0 && seen * 2 >= count) p50 = i;
        if (p99 < 0 && seen * 100 >= count * 99) p99 = i;
        if (late[i]) most = i;
    }
    printf("%llu %ld %ld %ld\n", (unsigned long long)count, p50, p99, most);
    return 0;
}
