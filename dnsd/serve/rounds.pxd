cimport cython
from dnsd.serve.shortpath cimport ShortPath

@cython.final
cdef class Rounds(ShortPath):
    cdef public object poll
    cdef unsigned long long[::1] times
    cdef int[::1] ready_fds
    cdef int[::1] ready_kinds
    cdef unsigned long long[::1] watch
    cdef unsigned long long awaited_generation
    cdef unsigned long long known_version

    cdef int changed(self) except? -1
    cpdef int drain(self, int fd) except? -1
