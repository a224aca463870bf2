cimport cython
from dnsd.contract cimport names
from dnsd.resolve cimport addresses
from dnsd.resolve.config cimport Config
from dnsd.resolve.exchange cimport randomised
from dnsd.resolve.forwarder cimport Reply, Tried
from dnsd.resolve.infra cimport Infra
from dnsd.resolve.minimise cimport minimised
from dnsd.resolve.resolver cimport Resolver
from dnsd.resolve.rrcache cimport Delegation, RRCache
from dnsd.resolve.rrsets cimport Message, RRset, parse, question, response
from dnsd.resolve.scrub cimport Finding
from dnsd.resolve.validator cimport Validator

@cython.final
cdef class Start:
    cdef readonly bytes sname
    cdef readonly int qtype
    cdef readonly bint do
    cdef readonly bint cd
    cdef readonly bytes zone
    cdef readonly tuple server
    cdef readonly bytes cased
    cdef readonly bytes wire
    cdef readonly int patience_ms

@cython.final
cdef class _Zone:
    cdef public Delegation cut
    cdef public long long now
    cdef public list servers

@cython.final
cdef class Shortcut:
    cdef public dict busy
    cdef public Resolver resolver
    cdef public RRCache _cache
    cdef public Infra _infra
    cdef public Config _config
    cdef public dict _zones
    @cython.locals(
        cache=RRCache, infra=Infra, config=Config, validator=Validator, validates=bint, signed=bint, cut=Delegation,
        near=bytes, qname=bytes, servers=list, server=tuple, cased=bytes, wire=bytes,
    )
    cpdef Start begin(self, bytes sname, int qtype, bint do, bint cd, long long now_ms)
    @cython.locals(
        cache=RRCache, config=Config, validator=Validator, validates=bint, message=Message, finding=Finding, kept=tuple,
        rcode=int, sname=bytes, qtype=int, first=RRset,
    )
    cpdef bytes end(self, Start start, bytes reply, long long rtt_ms)
    @cython.locals(zone=_Zone)
    cdef list _servers(self, Delegation cut)
