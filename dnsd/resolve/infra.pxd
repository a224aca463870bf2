cimport cython

@cython.final
cdef class _Standing:
    cdef public double srtt_ms
    cdef public double variance_ms
    cdef public long long timeouts
    cdef public long long rests_until_ms
    cdef public long long plain_until_ms
    cdef public long long caseless_until_ms
    cdef public long long tcp_until_ms

@cython.final
cdef class Infra:
    cdef public long long _limit
    cdef public dict _standing
    cdef public dict _lame
    cdef public dict _unreachable
    cdef public dict _family_until_ms
    cpdef bint rests(self, tuple server, long long now_ms) except? -1
    cpdef tuple choose(self, list servers, object chance, long long now_ms)
    cpdef long long patience_ms(self, tuple server) except *
    cpdef object answered(self, tuple server, long long rtt_ms)
    cpdef bint speaks_edns(self, tuple server, long long now_ms) except? -1
    cpdef bint keeps_case(self, tuple server, long long now_ms) except? -1
    cpdef bint wants_tcp(self, tuple server, long long now_ms) except? -1
    @cython.locals(standing=_Standing)
    cpdef bint is_peculiar(self, tuple server, long long now_ms) except? -1
    cpdef bint is_lame(self, tuple server, bytes zone, long long now_ms) except? -1
    cpdef object serves(self, tuple server, bytes zone)
    cdef _Standing _of(self, tuple server)

cdef int _family(tuple server) except? -1
