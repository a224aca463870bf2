cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.layout cimport *
from dnsd.contract.query cimport Query
from dnsd.contract.table cimport Table
from dnsd.contract.factsview cimport FactsView
from dnsd.contract.verdict cimport Chain, Match, Verdict

@cython.final
cdef class Reviewer:
    cdef Chain chain
    cdef Verdict scratch
    cdef Query target
    cdef unsigned char[::1] address

    cpdef int wanted(self, Table t, Verdict v) except? -1
    cpdef int review(self, Table t, FactsView f, Query q, Verdict v, const unsigned char[::1] sname, const unsigned char[::1] data, int body, int length, int question, int answers) except? -1
    cdef int address_at(self, const unsigned char[::1] data, int at, int size) except? -1
    cdef int load(self, const unsigned char[::1] sname, const unsigned char[::1] data, int body, int end, int question, int at) except? -1
    cdef int private(self, const unsigned char[::1] data, int at) except? -1
    cdef int refused(self, Table t, const unsigned char[::1] data, int at) except? -1
    cdef int name(self, Table t, FactsView f, Query q, Verdict v) except? -1
    cdef int guarded(self, Table t, Verdict v, int guard) except? -1
