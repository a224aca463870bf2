/* A DNS load client for loopback.
 *
 *     client PORT PACKETS SECONDS WINDOW SOCKETS CORE SEED [RATE RECORDS]
 *
 * PACKETS: a file of questions, each a u16 length, a u16 of flags (little-endian) and the message. They are asked in
 * order, over and over, each with a new id. Flags: 1 writes a number that was not used before into the first eight
 * octets of the first label, 2 turns letters of the qname to upper case at random, 4 makes the last eight octets random
 * (a client cookie). SEED chooses these numbers. SECONDS 0: each question once (to warm up, and to see that the answers
 * are right). Without RATE it is a closed loop that keeps WINDOW questions under way over SOCKETS sockets; with RATE it
 * sends so many a second whatever comes back, and writes two doubles for each question to the file RECORDS: when it was
 * sent (CLOCK_MONOTONIC, s) and after how many seconds the answer was there (-1: never).
 * Prints one line of JSON. Only 127.0.0.1 is ever asked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, MOST_SOCKETS = 256, SIZE = 4096, LONGEST = 1500, FRESH = 1, CASE = 2, COOKIE = 4 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint8_t *packets;
static uint32_t *offsets;
static uint32_t count, next_packet, number;
static uint64_t state;
static uint16_t next_id;
static uint64_t sent, answered, lost, octets, records, rcodes[16];

static uint64_t chance(void) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ull;
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(path);
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    packets = malloc((size_t)length);
    offsets = malloc(((size_t)length / 16 + 1) * sizeof *offsets);
    if (!packets || !offsets || fread(packets, 1, (size_t)length, file) != (size_t)length)
        fail(path);
    fclose(file);
    for (long at = 0; at + 4 < length; at += 4 + (packets[at] | packets[at + 1] << 8))
        offsets[count++] = (uint32_t)at;
    if (!count) {
        fprintf(stderr, "client: no packets in %s\n", path);
        exit(2);
    }
}

/* The next question, with a new id; its length. */
static unsigned question(uint8_t *out)
{
    uint8_t *packet = packets + offsets[next_packet];
    unsigned length = packet[0] | packet[1] << 8, flags = packet[2];
    if (length > LONGEST) {
        fprintf(stderr, "client: a packet is too long\n");
        exit(2);
    }
    next_packet = next_packet + 1 == count ? 0 : next_packet + 1;
    memcpy(out, packet + 4, length);
    out[0] = (uint8_t)(next_id >> 8);
    out[1] = (uint8_t)next_id++;
    if (flags & FRESH) {
        uint32_t x = number++ * 2654435761u; /* a permutation: no number twice */
        for (int i = 0; i < 8; i++, x >>= 4)
            out[13 + i] = (uint8_t)"0123456789abcdef"[x & 15];
    }
    if (flags & CASE) {
        uint64_t bits = chance();
        for (unsigned i = 13; out[i]; i++, bits = bits >> 1 | bits << 63)
            if (bits & 1 && out[i] >= 'a' && out[i] <= 'z')
                out[i] -= 32;
    }
    if (flags & COOKIE) {
        uint64_t bits = chance();
        memcpy(out + length - 8, &bits, 8);
    }
    return length;
}

static int is_answer(const uint8_t *in, unsigned length)
{
    octets += length;
    if (length < 12 || !(in[2] & 0x80))
        return 0;
    rcodes[in[3] & 15]++;
    records += (uint64_t)(in[6] << 8 | in[7]);
    answered++;
    return 1;
}

static void closed_loop(struct pollfd *polled, int sockets, int window, double seconds, double *last)
{
    static uint8_t in[BATCH][SIZE], out[BATCH][LONGEST];
    static int under_way[MOST_SOCKETS];
    struct mmsghdr receive[BATCH], send[BATCH];
    struct iovec receive_at[BATCH], send_at[BATCH];
    memset(receive, 0, sizeof receive);
    memset(send, 0, sizeof send);
    for (int i = 0; i < BATCH; i++) {
        receive_at[i] = (struct iovec){in[i], SIZE};
        receive[i].msg_hdr.msg_iov = &receive_at[i];
        receive[i].msg_hdr.msg_iovlen = 1;
        send_at[i] = (struct iovec){out[i], 0};
        send[i].msg_hdr.msg_iov = &send_at[i];
        send[i].msg_hdr.msg_iovlen = 1;
    }
    double end = now() + seconds;
    int silent = 0;
    for (;;) {
        int got = 0;
        double t = now();
        int more = seconds > 0 ? t < end : sent < count;
        for (int s = 0; s < sockets; s++) {
            while (more && under_way[s] < window) {
                int n = 0;
                while (n < BATCH && under_way[s] + n < window && (seconds > 0 || sent + (uint64_t)n < count)) {
                    send_at[n].iov_len = question(out[n]);
                    n++;
                }
                if (!n)
                    break;
                int done = sendmmsg(polled[s].fd, send, (unsigned)n, 0);
                if (done < 0 && errno != EAGAIN && errno != ECONNREFUSED)
                    fail("sendmmsg");
                if (done <= 0)
                    break;
                /* What the kernel did not take is left out: the next round goes on with the next questions. */
                sent += (uint64_t)done;
                under_way[s] += done;
                if (done < n)
                    break;
            }
            int n = recvmmsg(polled[s].fd, receive, BATCH, MSG_DONTWAIT, NULL);
            if (n <= 0)
                continue;
            got += n;
            under_way[s] = under_way[s] > n ? under_way[s] - n : 0;
            for (int i = 0; i < n; i++)
                is_answer(in[i], receive[i].msg_len);
        }
        if (got) {
            *last = now();
            silent = 0;
            continue;
        }
        int waiting = 0;
        for (int s = 0; s < sockets; s++)
            waiting += under_way[s];
        if (!more && !waiting)
            break;
        if (poll(polled, (nfds_t)sockets, 100) == 0 && ++silent >= 2) {
            lost += (uint64_t)waiting;
            for (int s = 0; s < sockets; s++)
                under_way[s] = 0;
            if (!more || (seconds == 0 && silent > 10))
                break;
        }
    }
}

static void open_loop(struct pollfd *polled, int sockets, double seconds, double rate, const char *path, double *last)
{
    static uint8_t in[SIZE], out[LONGEST];
    static uint64_t asked[65536]; /* id to the number of the question, plus one */
    uint64_t total = (uint64_t)(seconds * rate);
    double *table = calloc(total ? total : 1, 2 * sizeof *table);
    if (!table)
        fail("calloc");
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    double begin = now(), end = begin + seconds + 1.0;
    while (answered < sent || sent < total) {
        double t = now();
        if (t > end)
            break;
        while (sent < total && begin + (double)sent / rate <= t) {
            unsigned length = question(out);
            uint16_t id = (uint16_t)(out[0] << 8 | out[1]);
            asked[id] = sent + 1;
            table[2 * sent] = t = now();
            table[2 * sent + 1] = -1;
            if (send(polled[sent % (uint64_t)sockets].fd, out, length, 0) < 0 && errno != EAGAIN && errno != ECONNREFUSED)
                fail("send");
            sent++;
        }
        double wait = sent < total ? begin + (double)sent / rate - now() : end - now();
        if (wait < 0)
            wait = 0;
        struct timespec span = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
        if (ppoll(polled, (nfds_t)sockets, &span, NULL) <= 0)
            continue;
        for (int s = 0; s < sockets; s++) {
            if (!polled[s].revents)
                continue;
            ssize_t n;
            while ((n = recv(polled[s].fd, in, SIZE, MSG_DONTWAIT)) >= 0) {
                *last = now();
                if (!is_answer(in, (unsigned)n))
                    continue;
                uint64_t which = asked[in[0] << 8 | in[1]];
                if (which && table[2 * which - 1] < 0)
                    table[2 * which - 1] = *last - table[2 * which - 2];
            }
        }
    }
    for (uint64_t i = 0; i < sent; i++)
        lost += table[2 * i + 1] < 0;
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(table, 2 * sizeof *table, sent, file) != sent || fclose(file))
        fail(path);
}

int main(int argc, char **argv)
{
    if (argc != 8 && argc != 10) {
        fprintf(stderr, "usage: client PORT PACKETS SECONDS WINDOW SOCKETS CORE SEED [RATE RECORDS]\n");
        return 2;
    }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load(argv[2]);
    double seconds = atof(argv[3]);
    int sockets = atoi(argv[5]);
    if (sockets < 1 || sockets > MOST_SOCKETS)
        sockets = 1;
    int window = atoi(argv[4]) / sockets;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(atoi(argv[6]), &cores);
    sched_setaffinity(0, sizeof cores, &cores);
    number = (uint32_t)atoi(argv[7]) << 20; /* a million names of its own for each of 4,096 seeds */
    state = (uint64_t)atoi(argv[7]) * 2654435761u + 1;
    next_id = (uint16_t)chance();

    static struct pollfd polled[MOST_SOCKETS];
    for (int s = 0; s < sockets; s++) {
        polled[s].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        polled[s].events = POLLIN;
        int space = 4 << 20;
        setsockopt(polled[s].fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space);
        if (polled[s].fd < 0 || connect(polled[s].fd, (struct sockaddr *)&server, sizeof server))
            fail("connect");
    }
    double begin = now(), last = begin;
    if (argc == 10)
        open_loop(polled, sockets, seconds, atof(argv[8]), argv[9], &last);
    else
        closed_loop(polled, sockets, window > 0 ? window : 1, seconds, &last);

    printf("{\"sent\": %llu, \"answered\": %llu, \"lost\": %llu, \"octets\": %llu, \"records\": %llu, \"begin\": %.6f, "
           "\"seconds\": %.6f, \"rcodes\": {",
           (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)lost, (unsigned long long)octets,
           (unsigned long long)records, begin, last - begin);
    const char *comma = "";
    for (int r = 0; r < 16; r++)
        if (rcodes[r]) {
            printf("%s\"%d\": %llu", comma, r, (unsigned long long)rcodes[r]);
            comma = ", ";
        }
    printf("}}\n");
    return 0;
}
