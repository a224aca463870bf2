cimport cython
from dnsd.contract cimport names

@cython.final
cdef class Key:
    cdef readonly bytes rdata
    cdef readonly long long flags
    cdef readonly long long algorithm
    cdef readonly long long tag

@cython.final
cdef class Signature:
    cdef readonly long long covered
    cdef readonly long long algorithm
    cdef readonly long long labels
    cdef readonly long long original_ttl
    cdef readonly long long expiration
    cdef readonly long long inception
    cdef readonly long long tag
    cdef readonly bytes head
    cdef readonly bytes signer
    cdef readonly bytes octets

cpdef int in_time(Signature sig, long long now, long long skew) except? -1
cpdef long long seconds_left(Signature sig, long long now) except *
cpdef bytes source_name(bytes owner, int labels)
cpdef bytes ancestor(bytes name, int labels)
cpdef bytes canonical(int rtype, bytes rdata)
cdef long long _after(long long a, long long b) except *
cdef int _name_end(bytes data, int at) except? -2
