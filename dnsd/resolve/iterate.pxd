cimport cython
from dnsd.contract cimport names
from dnsd.resolve.budget cimport Budget
from dnsd.resolve.config cimport Config
from dnsd.resolve.infra cimport Infra
from dnsd.resolve.minimise cimport minimised
from dnsd.resolve.addresses cimport exists, known, may_ask, preferred, types
from dnsd.resolve.rrcache cimport Delegation, RRCache
from dnsd.resolve.rrsets cimport at_or_below

@cython.final
cdef class _Server:
    cdef public tuple address
    cdef public bytes name
    cdef public long long tries
    cdef public str word

@cython.final
cdef class Walk:
    cdef public object _question
    cdef public object _resolver
    cdef public Config _config
    cdef public RRCache _cache
    cdef public Infra _infra
    cdef public Budget _budget
