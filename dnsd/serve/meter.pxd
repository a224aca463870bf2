cimport cython
from dnsd.contract.query cimport Query

@cython.final
cdef class Meter:
    cdef public int rate
    cdef long long full
    cdef unsigned long long[::1] who
    cdef long long[::1] left
    cdef unsigned long long[::1] seen

    cdef int spent(self, Query q, unsigned long long now_ms) except? -1
