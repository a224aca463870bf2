cimport cython

@cython.final
cdef class Lanes:
    cdef public object lines
    cdef public list servers
    cdef public int size
    cdef public object free
    cdef public int[::1] place
    cdef public int[::1] owner
    cdef public unsigned long long[::1] born
    cdef public int[::1] asked
    cdef public int[::1] waiting
    cdef public int[::1] strange
    cdef public int[::1] pool_waiting
    cdef public int[::1] suspect
    cdef public int[::1] plain
    cdef public int[::1] rtt
    cdef public int hand
    cdef public int moved
    cdef const unsigned char[::1] random
    cdef int random_at
    cdef int random_size

    cdef int chance(self) except? -1
    cpdef int measured(self, int pool, unsigned long long took_ms) except? -1
    cpdef int draw(self, int pool, unsigned long long now_ms) except? -2
    cpdef int again(self, int pool, int slot) except? -2
    cpdef int settle(self, int slot, int late) except? -1
    cpdef int dial(self, str host, int port) except? -2
    cpdef int close(self, int slot) except? -1
