# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""recvmmsg and sendmmsg around fixed buffers: the one place that is not plain Python.

A batch is at most 64 datagrams. Nothing is allocated per packet; what each datagram needs for its
reply (address, control message) stays where the kernel put it. Callers read lengths and client
addresses through memoryviews; `batch.py` has the same class in Python for machines with no compiler.
"""

from libc.string cimport memset, memcpy
from libc.errno cimport errno, EAGAIN, ECONNREFUSED, EINTR, ENETUNREACH
import select

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    ssize_t send(int fd, const void *data, size_t length, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_TRUNC
    int AF_INET
    int AF_INET6

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <sys/epoll.h>
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #include <errno.h>
    #include <unistd.h>
    #include <string.h>
    #include <time.h>
    static unsigned plain_pktinfo(struct msghdr *m) {
        /* Answer from the address that was asked. The interface is left to routing, except for link-local IPv6; returns
           the one that is left out. */
        unsigned index = 0;
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        for (; c; c = CMSG_NXTHDR(m, c)) {
            if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo p; memcpy(&p, CMSG_DATA(c), sizeof p);
                index = p.ipi_ifindex;
                p.ipi_ifindex = 0; p.ipi_spec_dst = p.ipi_addr; memcpy(CMSG_DATA(c), &p, sizeof p);
            } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo p; memcpy(&p, CMSG_DATA(c), sizeof p);
                if (IN6_IS_ADDR_LINKLOCAL(&p.ipi6_addr)) continue;
                index = p.ipi6_ifindex;
                p.ipi6_ifindex = 0; memcpy(CMSG_DATA(c), &p, sizeof p);
            }
        }
        return index;
    }
    static int on_link(struct msghdr *m, unsigned index) {
        /* No route leads back: some DHCP clients add an address first and its route some milliseconds later. The question
           came through an interface, so the client is there. IPv4 alone (also as ::ffff:0:0/96): IPv6 knows no such help. */
        struct cmsghdr *c = index ? CMSG_FIRSTHDR(m) : 0;
        for (; c; c = CMSG_NXTHDR(m, c)) {
            if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo p; memcpy(&p, CMSG_DATA(c), sizeof p);
                p.ipi_ifindex = index; memcpy(CMSG_DATA(c), &p, sizeof p);
                return 1;
            } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo p; memcpy(&p, CMSG_DATA(c), sizeof p);
                p.ipi6_ifindex = index; memcpy(CMSG_DATA(c), &p, sizeof p);
                return 1;
            }
        }
        return 0;
    }
    static int client_of(struct msghdr *m, unsigned char *out) {
        /* 16 octets, IPv4 mapped; returns the port, 0 when there is no way to answer. */
        struct sockaddr *a = (struct sockaddr *)m->msg_name;
        if (a->sa_family == AF_INET) {
            struct sockaddr_in *v4 = (struct sockaddr_in *)a;
            memset(out, 0, 10); out[10] = out[11] = 255; memcpy(out + 12, &v4->sin_addr, 4);
            return ntohs(v4->sin_port);
        }
        if (a->sa_family == AF_INET6) {
            struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;
            memcpy(out, &v6->sin6_addr, 16);
            return ntohs(v6->sin6_port);
        }
        return 0;
    }
    static int recv_batch(int fd, struct mmsghdr *v, int n) { return recvmmsg(fd, v, n, MSG_DONTWAIT, NULL); }
    static int poll_events(int epoll, struct epoll_event *v, int n) { return epoll_wait(epoll, v, n, 0); }
    static int wait_events(int epoll, struct epoll_event *v, int n, int ms) { return epoll_wait(epoll, v, n, ms); }
    static unsigned long long clock_ms(int which) {
        struct timespec t;
        clock_gettime(which, &t);
        return (unsigned long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    }
    static int dial(const char *host, int port) {
        /* A connected socket; below 0 the error. */
        struct sockaddr_in6 a; socklen_t size; int fd, family = strchr(host, ':') ? AF_INET6 : AF_INET;
        memset(&a, 0, sizeof a);
        if (family == AF_INET) {
            struct sockaddr_in *v4 = (struct sockaddr_in *)&a;
            v4->sin_family = AF_INET; v4->sin_port = htons(port); size = sizeof *v4;
            if (inet_pton(AF_INET, host, &v4->sin_addr) != 1) return -EINVAL;
        } else {
            a.sin6_family = AF_INET6; a.sin6_port = htons(port); size = sizeof a;
            if (inet_pton(AF_INET6, host, &a.sin6_addr) != 1) return -EINVAL;
        }
        fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) return -errno;
        if (connect(fd, (struct sockaddr *)&a, size) < 0) { int error = errno; close(fd); return -error; }
        return fd;
    }
    static int watch_edges(int epoll, int fd, unsigned int slot) {
        struct epoll_event e; memset(&e, 0, sizeof e);
        e.events = EPOLLIN | EPOLLET; e.data.u64 = slot;
        return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
    static unsigned int slot_of(const struct epoll_event *e) { return (unsigned int)e->data.u64; }
    static int send_batch(int fd, struct mmsghdr *v, int n) { return sendmmsg(fd, v, n, MSG_DONTWAIT | MSG_NOSIGNAL); }
    static unsigned long long load_acquire(const unsigned long long *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static void store_release(unsigned long long *p, unsigned long long v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct epoll_event:
        unsigned int events
    int poll_events(int epoll, epoll_event *v, int n) nogil
    int wait_events(int epoll, epoll_event *v, int n, int ms) nogil
    unsigned long long clock_ms(int which) nogil
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int dial(const char *host, int port) nogil
    int close_fd "close"(int fd) nogil
    int watch_edges(int epoll, int fd, unsigned int slot) nogil
    unsigned int slot_of(const epoll_event *e) nogil
    unsigned plain_pktinfo(msghdr *m) nogil
    int on_link(msghdr *m, unsigned index) nogil
    int client_of(msghdr *m, unsigned char *out) nogil
    int recv_batch(int fd, mmsghdr *v, int n) nogil
    int send_batch(int fd, mmsghdr *v, int n) nogil
    unsigned long long load_acquire(const unsigned long long *p) nogil
    void store_release(unsigned long long *p, unsigned long long v) nogil

cdef enum:
    KINDS = 65536
    SIZE = 64
    IN_STRIDE = 2112
    OUT_STRIDE = 1344
    NAME_SIZE = 28
    CONTROL_SIZE = 64


def load(words, Py_ssize_t index):
    """A shared u64, read with acquire order."""
    cdef const unsigned long long[::1] view = words
    if not 0 <= index < view.shape[0]:
        raise IndexError(index)
    return load_acquire(&view[index])


def store(words, Py_ssize_t index, unsigned long long value):
    """A shared u64, written with release order."""
    cdef unsigned long long[::1] view = words
    if not 0 <= index < view.shape[0]:
        raise IndexError(index)
    store_release(&view[index], value)


cdef class Batch:
    """64 datagrams. `inp` and `out` are the packets, `lengths` and `out_lengths` their sizes, `clients` 16 octets each."""

    cdef public object inp
    cdef public object out
    cdef public object lengths
    cdef public object out_lengths
    cdef public object clients
    cdef unsigned char[::1] _inp
    cdef unsigned char[::1] _out
    cdef int[::1] _lengths
    cdef int[::1] _out_lengths
    cdef unsigned char[::1] _clients
    cdef mmsghdr _in[SIZE]
    cdef mmsghdr _send[SIZE]
    cdef iovec _in_iov[SIZE]
    cdef iovec _send_iov[SIZE]
    cdef unsigned char _names[SIZE * NAME_SIZE]
    cdef unsigned char _controls[SIZE * CONTROL_SIZE]
    cdef public int size
    cdef public int in_stride
    cdef public int out_stride
    cdef unsigned _came[SIZE]  # the interface through which the question of `_send` came
    cdef public int errors
    cdef public object names
    cdef public object name_lengths
    cdef public object controls
    cdef public object control_lengths
    cdef public object parked
    cdef int[::1] _name_lengths
    cdef int[::1] _control_lengths
    cdef int[::1] _parked
    cdef unsigned char[::1] _parked_names
    cdef int[::1] _parked_name_lengths
    cdef unsigned char[::1] _parked_controls
    cdef int[::1] _parked_control_lengths
    cdef int[::1] _parked_fds

    def __init__(self):
        cdef int i
        self.name_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.control_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.parked = memoryview(bytearray(SIZE * 4)).cast("i")
        self.names = <unsigned char[: SIZE * NAME_SIZE]>self._names
        self.controls = <unsigned char[: SIZE * CONTROL_SIZE]>self._controls
        self._name_lengths, self._control_lengths, self._parked = self.name_lengths, self.control_lengths, self.parked
        self.size, self.in_stride, self.out_stride = SIZE, IN_STRIDE, OUT_STRIDE
        self.inp = memoryview(bytearray(SIZE * IN_STRIDE))
        self.out = memoryview(bytearray(SIZE * OUT_STRIDE))
        self.lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.clients = memoryview(bytearray(SIZE * 16))
        self._inp, self._out = self.inp, self.out
        self._lengths, self._out_lengths, self._clients = self.lengths, self.out_lengths, self.clients
        memset(self._in, 0, sizeof(self._in))
        memset(self._send, 0, sizeof(self._send))
        for i in range(SIZE):
            self._in_iov[i].iov_base = &self._inp[i * IN_STRIDE]
            self._in_iov[i].iov_len = IN_STRIDE
            self._in[i].msg_hdr.msg_iov = &self._in_iov[i]
            self._in[i].msg_hdr.msg_iovlen = 1
            self._in[i].msg_hdr.msg_name = &self._names[i * NAME_SIZE]
            self._in[i].msg_hdr.msg_control = &self._controls[i * CONTROL_SIZE]

    def forget(self, int fd):
        """This descriptor is about to be closed; nothing is remembered here."""

    def receive(self, int fd):
        """Read up to 64 datagrams; returns how many (0: none waiting). A length of 0 marks one that cannot be answered."""
        cdef int i, n
        for i in range(SIZE):
            self._in[i].msg_hdr.msg_namelen = NAME_SIZE
            self._in[i].msg_hdr.msg_controllen = CONTROL_SIZE
        n = recv_batch(fd, self._in, SIZE)
        if n < 0:
            if errno in (EAGAIN, EINTR):
                return 0
            raise OSError(errno, "recvmmsg")
        for i in range(n):
            self._lengths[i] = <int>self._in[i].msg_len
            self._name_lengths[i] = <int>self._in[i].msg_hdr.msg_namelen
            self._control_lengths[i] = <int>self._in[i].msg_hdr.msg_controllen
            self._out_lengths[i] = 0
            if client_of(&self._in[i].msg_hdr, &self._clients[i * 16]) == 0:
                self._lengths[i] = 0
        return n

    def send(self, int fd, int n):
        """Send the answers of the first `n` datagrams that have one; returns how many were sent."""
        cdef int i, k = 0, done = 0, r
        for i in range(n):
            if self._out_lengths[i] <= 0:
                continue
            self._came[k] = plain_pktinfo(&self._in[i].msg_hdr)
            self._send_iov[k].iov_base = &self._out[i * OUT_STRIDE]
            self._send_iov[k].iov_len = self._out_lengths[i]
            self._send[k].msg_hdr = self._in[i].msg_hdr
            self._send[k].msg_hdr.msg_iov = &self._send_iov[k]
            self._send[k].msg_hdr.msg_iovlen = 1
            self._send[k].msg_hdr.msg_flags = 0
            k += 1
        while done < k:
            r = send_batch(fd, &self._send[done], k - done)
            if r <= 0 and errno == ENETUNREACH and on_link(&self._send[done].msg_hdr, self._came[done]):
                r = send_batch(fd, &self._send[done], 1)
            if r <= 0:
                # One that cannot be sent (no route back, full buffer) must not hold up the others.
                self.errors += 1
                r = 1
            done += r
        return k

    def peer(self, int i):
        """(socket address, control message) of datagram `i`, as raw bytes: what `reply` needs later."""
        if not 0 <= i < SIZE:
            raise IndexError(i)
        plain_pktinfo(&self._in[i].msg_hdr)
        name = (<unsigned char *>self._in[i].msg_hdr.msg_name)[: self._in[i].msg_hdr.msg_namelen]
        control = (<unsigned char *>self._in[i].msg_hdr.msg_control)[: self._in[i].msg_hdr.msg_controllen]
        return name, control

    def reply(self, int fd, bytes name, bytes control, const unsigned char[::1] wire):
        """Send one answer later; returns whether it left."""
        cdef mmsghdr one
        cdef iovec iov
        cdef const unsigned char *n = name
        cdef const unsigned char *c = control
        if wire.shape[0] == 0:
            return False
        memset(&one, 0, sizeof(one))
        iov.iov_base = <void *>&wire[0]
        iov.iov_len = wire.shape[0]
        one.msg_hdr.msg_iov = &iov
        one.msg_hdr.msg_iovlen = 1
        one.msg_hdr.msg_name = <void *>n
        one.msg_hdr.msg_namelen = len(name)
        if len(control):
            one.msg_hdr.msg_control = <void *>c
            one.msg_hdr.msg_controllen = len(control)
        if send_batch(fd, &one, 1) == 1:
            return True
        self.errors += 1
        return False

    def bind(self, names, name_lengths, controls, control_lengths, fds):
        """Say where the addresses and control messages of clients stand that are answered later, by their numbers."""
        self._parked_names, self._parked_name_lengths = names, name_lengths
        self._parked_controls, self._parked_control_lengths, self._parked_fds = controls, control_lengths, fds

    def parked_peer(self, int j):
        """(socket address, control message) of a parked client: what `reply` needs."""
        name = bytes(self._parked_names[j * NAME_SIZE : j * NAME_SIZE + self._parked_name_lengths[j]])
        cdef bytearray control = bytearray(
            self._parked_controls[j * CONTROL_SIZE : j * CONTROL_SIZE + self._parked_control_lengths[j]]
        )
        cdef msghdr m
        memset(&m, 0, sizeof(m))
        if len(control):
            m.msg_control = <unsigned char *>control
            m.msg_controllen = len(control)
            plain_pktinfo(&m)
        return name, bytes(control)

    def send_parked(self, int n):
        """Send the first `n` answers to the parked clients of the numbers in `parked`; returns how many left."""
        cdef int k, j, first = 0, last, r, done
        cdef int sent = 0
        for k in range(n):
            j = self._parked[k]
            memset(&self._send[k], 0, sizeof(mmsghdr))
            self._came[k] = 0
            self._send_iov[k].iov_base = &self._out[k * OUT_STRIDE]
            self._send_iov[k].iov_len = self._out_lengths[k]
            self._send[k].msg_hdr.msg_iov = &self._send_iov[k]
            self._send[k].msg_hdr.msg_iovlen = 1
            self._send[k].msg_hdr.msg_name = &self._parked_names[j * NAME_SIZE]
            self._send[k].msg_hdr.msg_namelen = self._parked_name_lengths[j]
            if self._parked_control_lengths[j]:
                self._send[k].msg_hdr.msg_control = &self._parked_controls[j * CONTROL_SIZE]
                self._send[k].msg_hdr.msg_controllen = self._parked_control_lengths[j]
                self._came[k] = plain_pktinfo(&self._send[k].msg_hdr)
        while first < n:
            last = first + 1
            while last < n and self._parked_fds[self._parked[last]] == self._parked_fds[self._parked[first]]:
                last += 1
            done = first
            while done < last:
                r = send_batch(self._parked_fds[self._parked[first]], &self._send[done], last - done)
                if r <= 0 and errno == ENETUNREACH and on_link(&self._send[done].msg_hdr, self._came[done]):
                    r = send_batch(self._parked_fds[self._parked[first]], &self._send[done], 1)
                if r <= 0:
                    self.errors += 1
                    r = 1
                else:
                    sent += r
                done += r
            first = last
        return sent


cdef enum:
    LINES = 2048
    LINE_IN = 4096
    LINE_OUT = 320
    EVENTS = 128


cdef class Lines:
    """Connected sockets to upstream servers, by number: up to 64 questions out and 64 datagrams in a call.

    Each question goes through the socket that it names in `out_lines`; `failed` says how many could not be sent, and
    their `out_errors` are not 0. A received length of -1 says that nobody listens there (ICMP), one above `in_stride` that the
    datagram was cut.
    """

    cdef public object inp
    cdef public object lengths
    cdef public object lines
    cdef public object out
    cdef public object out_lengths
    cdef public object out_lines
    cdef public object out_errors
    cdef public object fds
    cdef public int size
    cdef public int in_stride
    cdef public int out_stride
    cdef public int epoll_fd
    cdef public int failed
    cdef object _epoll
    cdef unsigned char[::1] _inp
    cdef unsigned char[::1] _out
    cdef int[::1] _lengths
    cdef int[::1] _lines
    cdef int[::1] _out_lengths
    cdef int[::1] _out_lines
    cdef int[::1] _out_errors
    cdef int[::1] _fds
    cdef mmsghdr _in[SIZE]
    cdef iovec _iov[SIZE]
    cdef mmsghdr _send[SIZE]
    cdef iovec _out_iov[SIZE]
    cdef epoll_event _events[EVENTS]
    cdef int _at
    cdef int _have

    def __init__(self):
        cdef int i
        self.size, self.in_stride, self.out_stride = LINES, LINE_IN, LINE_OUT
        self.inp = memoryview(bytearray(SIZE * LINE_IN))
        self.out = memoryview(bytearray(SIZE * LINE_OUT))
        self.lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.lines = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lines = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_errors = memoryview(bytearray(SIZE * 4)).cast("i")
        self.fds = memoryview(bytearray(LINES * 4)).cast("i")
        self._inp, self._out, self._fds = self.inp, self.out, self.fds
        self._lengths, self._lines = self.lengths, self.lines
        self._out_lengths, self._out_lines, self._out_errors = self.out_lengths, self.out_lines, self.out_errors
        for i in range(LINES):
            self._fds[i] = -1
        memset(self._in, 0, sizeof(self._in))
        for i in range(SIZE):
            self._iov[i].iov_base = &self._inp[i * LINE_IN]
            self._iov[i].iov_len = LINE_IN
            self._in[i].msg_hdr.msg_iov = &self._iov[i]
            self._in[i].msg_hdr.msg_iovlen = 1
        memset(self._send, 0, sizeof(self._send))
        for i in range(SIZE):
            self._out_iov[i].iov_base = &self._out[i * LINE_OUT]
            self._send[i].msg_hdr.msg_iov = &self._out_iov[i]
            self._send[i].msg_hdr.msg_iovlen = 1
        self._epoll = select.epoll()
        self.epoll_fd = self._epoll.fileno()

    def open(self, int line, int fd):
        """Take over a connected socket's descriptor."""
        if watch_edges(self.epoll_fd, fd, line) < 0:
            raise OSError(errno, "epoll_ctl")
        self._fds[line] = fd

    def dial(self, int line, str host, int port):
        """A new socket on a random port, connected to a server; raises OSError."""
        cdef int fd = dial(host.encode(), port)
        if fd < 0:
            raise OSError(-fd, "connect")
        if watch_edges(self.epoll_fd, fd, line) < 0:
            close_fd(fd)
            raise OSError(errno, "epoll_ctl")
        self._fds[line] = fd

    def close(self, int line):
        """Close a socket; its number may be used again."""
        if self._fds[line] >= 0:
            close_fd(self._fds[line])
            self._fds[line] = -1

    def end(self):
        """Close everything."""
        cdef int i
        for i in range(LINES):
            self.close(i)
        self._epoll.close()

    def send(self, int n):
        """Send the first `n` questions; neighbours that leave through one socket go in one call."""
        cdef int k, first = 0, last, r, fd
        self.failed = 0
        for k in range(n):
            self._out_errors[k] = 0
            self._out_iov[k].iov_len = self._out_lengths[k]
        while first < n:
            last = first + 1
            while last < n and self._out_lines[last] == self._out_lines[first]:
                last += 1
            fd = self._fds[self._out_lines[first]]
            while first < last:
                r = send_batch(fd, &self._send[first], last - first)
                if r > 0:
                    first += r
                    continue
                # An ICMP error of an earlier question is reported by the next call; this one was not sent yet.
                if errno == ECONNREFUSED:
                    if send(fd, &self._out[first * LINE_OUT], self._out_lengths[first], MSG_DONTWAIT | MSG_NOSIGNAL) >= 0:
                        self._out_errors[first] = -1
                        self.failed += 1
                        first += 1
                        continue
                if errno != EAGAIN:  # a full queue is as good as lost on the way: the timer decides
                    self._out_errors[first] = errno
                    self.failed += 1
                first += 1

    def receive(self):
        """Read up to 64 datagrams from whichever sockets have some; fewer means that there are no more."""
        cdef int n = 0, line, room, r, i, again = 0
        while n < SIZE:
            if self._at >= self._have:
                if again:
                    break
                self._have = poll_events(self.epoll_fd, self._events, EVENTS)
                self._at = 0
                again = self._have < EVENTS
                if self._have <= 0:
                    self._have = 0
                    break
            line = slot_of(&self._events[self._at])
            if self._fds[line] < 0:
                self._at += 1
                continue
            room = SIZE - n
            r = recv_batch(self._fds[line], &self._in[n], room)
            if r < 0:
                if errno == EAGAIN:
                    self._at += 1
                elif errno != EINTR:  # the next call has what comes after the error
                    self._lengths[n] = -1
                    self._lines[n] = line
                    n += 1
                continue
            for i in range(r):
                self._lengths[n + i] = <int>self._in[n + i].msg_len
                if self._in[n + i].msg_hdr.msg_flags & MSG_TRUNC:
                    self._lengths[n + i] = LINE_IN + 1
                self._lines[n + i] = line
            n += r
            if r < room:
                self._at += 1
        return n


cdef class Poll:
    """What is ready on an epoll descriptor: after `wait`, `fds` and `events` by number; `times` is the clock then.

    `times[0]` is monotonic, `times[1]` wall clock, both in milliseconds. `kind` is what `mark` has said of a descriptor.
    """

    cdef public object fds
    cdef public object events
    cdef public object kinds
    cdef public object times
    cdef int[::1] _fds
    cdef int[::1] _ready
    cdef int[::1] _kinds
    cdef unsigned long long[::1] _times
    cdef unsigned char _kind[KINDS]
    cdef epoll_event _events[SIZE]
    cdef int _epoll

    def __init__(self, int epoll):
        self._epoll = epoll
        self.fds = memoryview(bytearray(SIZE * 4)).cast("i")
        self.events = memoryview(bytearray(SIZE * 4)).cast("i")
        self.kinds = memoryview(bytearray(SIZE * 4)).cast("i")
        self.times = memoryview(bytearray(16)).cast("Q")
        self._fds, self._ready, self._kinds, self._times = self.fds, self.events, self.kinds, self.times
        memset(self._kind, 0, sizeof(self._kind))

    def mark(self, int fd, int kind):
        """Say what kind a descriptor is (0 to 255); one that is too high to be told apart stays 0."""
        if 0 <= fd < KINDS:
            self._kind[fd] = kind

    def wait(self, int ms):
        """Wait for at most `ms` milliseconds (-1: for ever); returns how many descriptors are ready, 0 for a signal."""
        cdef int i, n, fd
        with nogil:
            n = wait_events(self._epoll, self._events, SIZE, ms)
        if n < 0:
            if errno != EINTR:
                raise OSError(errno, "epoll_wait")
            n = 0
        for i in range(n):
            fd = <int>slot_of(&self._events[i])
            self._fds[i] = fd
            self._ready[i] = <int>self._events[i].events
            self._kinds[i] = self._kind[fd] if 0 <= fd < KINDS else 0
        self.now()
        return n

    cpdef now(self):
        """Read the clocks."""
        self._times[0] = clock_ms(CLOCK_MONOTONIC)
        self._times[1] = clock_ms(CLOCK_REALTIME)
