cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.layout cimport *
from dnsd.contract.query cimport Query
from dnsd.contract.table cimport Table
from dnsd.contract.factsview cimport FactsView

@cython.final
cdef class Verdict:
    cdef public int stage
    cdef public int action
    cdef public int rule
    cdef public int allowed
    cdef public int rule_action
    cdef public int reply
    cdef public int listed
    cdef public int label
    cdef public int ttl
    cdef public unsigned long long key
    cdef public int client_class
    cdef public int zone
    cdef public int zone_label
    cdef public int owner
    cdef public int entry
    cdef public int node
    cdef public int route
    cdef public int target
    cdef public int special
    cdef public int special_label
    cdef public int spared
    cdef public int guard
    cdef public int own
    cdef public FactsView facts

    cpdef int reset(self) except? -1

@cython.final
cdef class Match:
    cdef public unsigned long long key
    cdef public int candidate
    cdef public int label
    cdef public int exception_below

@cython.final
cdef class Chain:
    cdef public Match any
    cdef public Match written

    cpdef int decide(self, Table t, FactsView f, Query q, Verdict v) except? -1
    cpdef int belongs(self, Table t, FactsView f, Query q, Verdict v) except? -1
    cdef int walk(self, Table t, FactsView f, Query q, Verdict v) except? -1
    cdef int consider(self, Table t, FactsView f, Query q, Verdict v, unsigned int number, int i, int exception_below) except? -1
    cdef int holds(self, Table t, FactsView f, Query q, unsigned int at) except? -1
    cdef int is_target(self, Table t, Query q, unsigned int owner) except? -1
    cdef int policy(self, Table t, FactsView f, Query q, Verdict v, Match best) except? -1
    cdef int local(self, Table t, FactsView f, Query q, Verdict v, int zone, unsigned int mine) except? -1
    cdef int answer_from(self, Table t, FactsView f, Query q, Verdict v, unsigned int owner) except? -1
