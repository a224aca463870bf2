cimport cython
from dnsd.contract cimport names
from dnsd.resolve.rrsets cimport RRset, at_or_below
from dnsd.resolve.signatures cimport Signature

@cython.final
cdef class Need:
    cdef readonly bytes name
    cdef readonly long long rtype

@cython.final
cdef class Found:
    cdef readonly tuple answer
    cdef readonly tuple authority
    cdef readonly object failure

@cython.final
cdef class Zone:
    cdef readonly bytes apex
    cdef readonly str state
    cdef readonly tuple keys
    cdef readonly long long until
    cdef readonly long long ede
    cdef readonly str text
    cdef readonly tuple vouched

@cython.final
cdef class Signed:
    cdef readonly long long labels
    cdef readonly long long ttl

@cython.final
cdef class Flaw:
    cdef readonly long long ede
    cdef readonly str text

@cython.final
cdef class Work:
    cdef public int signatures
    cdef public int hashes
    cpdef object sign(self)

@cython.final
cdef class Memory:
    cdef public object denials
    cdef public dict _zones
    cdef public dict _proved
    cpdef object keep(self, bytes name, Zone zone)

@cython.final
cdef class Chain:
    cdef public long long now
    cdef public Work work
    cdef public object anchors
    cdef public object _algorithms
    cdef public object _policy
    cdef public Memory _memory
    cdef public object denials
    cdef public long long _skew
    cdef public dict seen
    cdef public long long ends
    cpdef object check(self, RRset rrset, Zone zone)
    cdef Signed _signed(self, Signature sig)
    cpdef bytes signer(self, RRset rrset, object anchor)
