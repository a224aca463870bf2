cimport cython
from dnsd.contract cimport names

@cython.final
cdef class Config:
    cdef readonly bint qname_minimisation
    cdef readonly bint case_randomisation
    cdef readonly bint priming
    cdef readonly bint use_ipv4
    cdef readonly bint use_ipv6
    cdef readonly long long prefer
    cdef readonly bint query_localhost
    cdef readonly bint harden_glue
    cdef readonly long long edns_size
    cdef readonly bint dnssec
    cdef readonly object special
    cpdef bint at_home(self, bytes name) except? -1
