cimport cython
from dnsd.contract cimport names
from dnsd.resolve.rrsets cimport RRset, at_or_below

@cython.final
cdef class _Nsec:
    cdef readonly bytes owner
    cdef readonly bytes next
    cdef readonly bytes types

@cython.final
cdef class _Nsec3:
    cdef readonly bytes owner
    cdef readonly bytes next
    cdef readonly bint opt_out
    cdef readonly bytes types

@cython.final
cdef class Parameters:
    cdef readonly bytes owner
    cdef readonly bytes next
    cdef readonly bint opt_out
    cdef readonly long long iterations
    cdef readonly bytes salt
    cdef readonly bytes types

cpdef Parameters parameters(RRset rrset)

@cython.final
cdef class Proofs:
    cdef public bytes _apex
    cdef public list _nsecs
    cdef public dict _nsec3s
    cdef public bytes _salt
    cdef public int _iterations
    cdef public object _hashed
    cdef public bint too_many
