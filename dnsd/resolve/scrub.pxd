cimport cython
from dnsd.contract cimport names
from dnsd.resolve.rrsets cimport Message, RRset, at_or_below

@cython.final
cdef class Finding:
    cdef readonly str kind
    cdef readonly tuple rrsets
    cdef readonly bytes target
    cdef readonly tuple authority
    cdef readonly tuple servers
    cdef readonly tuple glue
    cdef readonly bytes cut
    cdef readonly long long ttl
    cdef readonly bint authoritative
    cdef readonly bint reliable
    cdef readonly str text
