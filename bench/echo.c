/* The least that a UDP server of this shape can cost: recvmmsg, turn the QR bit, sendmmsg. `echo PORT`, on 127.0.0.1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 4096 };

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), space = 4 << 20;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &space, sizeof space);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here)) {
        fprintf(stderr, "echo: %s\n", strerror(errno));
        return 2;
    }
    static uint8_t data[BATCH][SIZE];
    static struct sockaddr_in peers[BATCH];
    static struct mmsghdr messages[BATCH];
    static struct iovec at[BATCH];
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            at[i] = (struct iovec){data[i], SIZE};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i],
                                                  .msg_iov = &at[i], .msg_iovlen = 1};
        }
        int n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return 1;
        for (int i = 0; i < n; i++) {
            at[i].iov_len = messages[i].msg_len;
            if (messages[i].msg_len > 3)
                data[i][2] |= 0x80;
        }
        for (int done = 0; done < n;) {
            int now = sendmmsg(fd, messages + done, (unsigned)(n - done), 0);
            done += now > 0 ? now : 1;
        }
    }
}
