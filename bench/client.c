/* A closed-loop DNS load client for loopback: keeps WINDOW questions under way and counts what comes back.
 *
 *     client PORT PACKETS SECONDS WINDOW SOCKETS CORE
 *
 * PACKETS: a file of questions, each a u16 length (little-endian) and the message. They are asked in order, over and
 * over, each with a new id. SECONDS 0: each question once (to warm up, and to see that the answers are right).
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, MOST_SOCKETS = 64, SIZE = 4096 };

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
static uint32_t count, next_packet;
static uint16_t next_id;

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(path);
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    packets = malloc((size_t)length);
    offsets = malloc(((size_t)length / 14 + 1) * sizeof *offsets);
    if (!packets || !offsets || fread(packets, 1, (size_t)length, file) != (size_t)length)
        fail(path);
    fclose(file);
    for (long at = 0; at + 2 < length; at += 2 + (packets[at] | packets[at + 1] << 8))
        offsets[count++] = (uint32_t)at;
    if (!count) {
        fprintf(stderr, "client: no packets in %s\n", path);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: client PORT PACKETS SECONDS WINDOW SOCKETS CORE\n");
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

    struct pollfd polled[MOST_SOCKETS];
    int under_way[MOST_SOCKETS] = {0};
    for (int s = 0; s < sockets; s++) {
        polled[s].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        polled[s].events = POLLIN;
        int space = 4 << 20;
        setsockopt(polled[s].fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space);
        if (polled[s].fd < 0 || connect(polled[s].fd, (struct sockaddr *)&server, sizeof server))
            fail("connect");
    }

    static uint8_t in[BATCH][SIZE], out[BATCH][512];
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

    uint64_t sent = 0, answered = 0, lost = 0, octets = 0, records = 0, rcodes[16] = {0};
    double begin = now(), end = begin + seconds, last = begin;
    int silent = 0;
    for (;;) {
        int got = 0;
        double t = now();
        int more = seconds > 0 ? t < end : sent < count;
        for (int s = 0; s < sockets; s++) {
            while (more && under_way[s] < window) {
                int n = 0;
                while (n < BATCH && under_way[s] + n < window && (seconds > 0 || sent + (uint64_t)n < count)) {
                    uint8_t *packet = packets + offsets[next_packet];
                    unsigned length = packet[0] | packet[1] << 8;
                    next_packet = next_packet + 1 == count ? 0 : next_packet + 1;
                    memcpy(out[n], packet + 2, length);
                    out[n][0] = (uint8_t)(next_id >> 8);
                    out[n][1] = (uint8_t)next_id++;
                    send_at[n++].iov_len = length;
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
            for (int i = 0; i < n; i++) {
                octets += receive[i].msg_len;
                if (receive[i].msg_len >= 12 && in[i][2] & 0x80) {
                    rcodes[in[i][3] & 15]++;
                    records += (uint64_t)(in[i][6] << 8 | in[i][7]);
                    answered++;
                }
            }
        }
        if (got) {
            last = now();
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
    printf("{\"sent\": %llu, \"answered\": %llu, \"lost\": %llu, \"octets\": %llu, \"records\": %llu, \"seconds\": %.6f, "
           "\"rcodes\": {",
           (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)lost, (unsigned long long)octets,
           (unsigned long long)records, last - begin);
    const char *comma = "";
    for (int r = 0; r < 16; r++)
        if (rcodes[r]) {
            printf("%s\"%d\": %llu", comma, r, (unsigned long long)rcodes[r]);
            comma = ", ";
        }
    printf("}}\n");
    return 0;
}
