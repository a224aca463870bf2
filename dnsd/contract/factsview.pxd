cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.query cimport Query

@cython.final
cdef class FactsView:
    cdef const unsigned char[::1] data
    cdef const unsigned int[::1] words
    cdef public object buffer
    cdef public int gates_count
    cdef public unsigned int version
    cdef public int special_use
    cdef int gates
    cdef int v4
    cdef int v4_count
    cdef int v6
    cdef int v6_count
    cdef int own_at
    cdef public int own4
    cdef public int own6
    cdef const unsigned char[::1] reverse

    cpdef int gate(self, unsigned int number) except? -1
    cpdef int own(self, int qtype) except? -1
    cpdef int own_octet(self, int qtype, int number, int k) except? -1
    cpdef int is_own(self, Query q) except? -1
    cpdef int may_ask(self, Query q) except? -1
