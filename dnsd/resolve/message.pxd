cimport cython
from dnsd.contract.codes cimport *

cdef int _POINTERS_AT
cdef int _BODY_AT
cdef int _HOPS

@cython.final
cdef class Reader:
    cdef public unsigned char[::1] data
    cdef const unsigned char[::1] patterns
    cdef public int ttls
    cdef public int pointers
    cdef public int body
    cdef public int length
    cdef public int ttl_count
    cdef public int pointer_count
    cdef public int question
    cdef public int rcode
    cdef public int truncated
    cdef public int authentic
    cdef public int edns
    cdef public int answers
    cdef public int authorities
    cdef public int additionals
    cdef public int ttl
    cdef public int fault
    cdef public int first
    cdef public int last

    cpdef int name(self, const unsigned char[::1] buf, int base, int at, int end, int keep) except? -2
    cdef int note(self, int where, int place) except? -1
    cpdef int noted(self, int where) except? -1
    cpdef int read(self, const unsigned char[::1] buf, int base, int size) except? -1
    cdef int rdata(self, const unsigned char[::1] buf, int base, int rtype, int at, int end, int limit) except? -1
    cpdef int bound(self, unsigned int low, unsigned int high) except? -1
    cdef int take(self, const unsigned char[::1] buf, int first, int last, int where) except? -1
    cdef int without(self, const unsigned char[::1] buf, int base, int opt, int opt_end, int at) except? -1
