cimport cython
from dnsd.contract cimport names
from dnsd.resolve.budget cimport Budget
from dnsd.resolve.config cimport Config
from dnsd.resolve.infra cimport Infra
from dnsd.resolve.rrcache cimport RRCache
from dnsd.resolve.rrsets cimport response
from dnsd.resolve.scrub cimport Finding

@cython.final
cdef class Result:
    cdef readonly long long rcode
    cdef readonly tuple answer
    cdef readonly tuple authority

@cython.final
cdef class Resolver:
    cdef public Config config
    cdef public tuple hints
    cdef public object chance
    cdef public RRCache cache
    cdef public Infra infra
    cdef public object validator
    cdef public object primed_ms
    cdef public object upstream

@cython.final
cdef class _Question:
    cdef public object resolver
    cdef public RRCache cache
    cdef public bint signed
    cdef public Budget budget
    cdef public list trace
    cdef public set resolving
    cdef public bytes renewed
    cdef public object realms
    cdef public set elsewhere
    cdef public set unproven
    cdef public object realm
    cdef public object tried
    cdef public dict sources
    cdef public set avoided
    cdef public long long turns
    cdef public bint infers
    cdef public bint inferred
