cimport cython
from dnsd.contract cimport names
from dnsd.resolve.rrsets cimport RRset

@cython.final
cdef class Denial:
    cdef readonly long long rcode
    cdef readonly tuple authority
    cdef readonly bint with_do

@cython.final
cdef class Delegation:
    cdef readonly bytes zone
    cdef readonly tuple servers
    cdef readonly tuple glue
    cdef readonly long long stored
    cdef readonly long long ttl

@cython.final
cdef class _Entry:
    cdef public long long stored
    cdef public long long ttl
    cdef public long long rank
    cdef public bint with_do
    cdef public object value
    cdef public long long size

@cython.final
cdef class _Failure:
    cdef public long long until_ms
    cdef public long long lasts_ms
    cdef public long long ede
    cdef public str text

@cython.final
cdef class RRCache:
    cdef public long long now
    cdef public long long used_bytes
    cdef public long long _size
    cdef public long long _min_ttl
    cdef public long long _max_ttl
    cdef public dict _entries
    cdef public dict _delegations
    cdef public dict _failures
    cdef public long long _dnames
    cdef public long long _denied
    cpdef RRset get(self, bytes name, int rtype, bint with_do=*, int rank=*)
    cpdef bint put(self, RRset rrset, int rank, bint with_do=*) except? -1
    cpdef Denial denied(self, bytes name, int rtype, bint with_do=*)
    cdef Denial _denial(self, tuple key, bint with_do)
    cpdef RRset dname(self, bytes name, bint with_do=*)
    cpdef Delegation delegation(self, bytes name)
    cpdef object put_delegation(self, Delegation cut)
    cpdef tuple failed(self, bytes name, int rtype, long long now_ms)
    cpdef object succeeded(self, bytes name, int rtype)
    cdef long long _bounded(self, long long ttl) except *
    cdef long long _left(self, _Entry entry) except *
    cdef _Entry _live(self, tuple key)
    cdef object _store(self, tuple key, _Entry entry)
    cdef object _drop(self, tuple key)
