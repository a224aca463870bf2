cimport cython
from dnsd.contract cimport names
from dnsd.resolve.chain cimport Chain, Memory, Zone
from dnsd.resolve.rrsets cimport at_or_below

@cython.final
cdef class Verdict:
    cdef readonly str state
    cdef readonly long long rcode
    cdef readonly tuple answer
    cdef readonly tuple authority
    cdef readonly long long ede
    cdef readonly str text
    cdef readonly tuple blame
    cdef readonly tuple zones
    cdef readonly long long until

@cython.final
cdef class Validator:
    cdef public object anchors
    cdef public long long skew_s
    cdef public object policy
    cdef public Memory memory

@cython.final
cdef class _Task:
    cdef public Chain _chain
    cdef public Zone _worst
    cdef public tuple asked
    cdef object _weigh(self, Zone zone)
