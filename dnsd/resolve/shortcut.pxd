cimport cython
from dnsd.contract cimport names
from dnsd.resolve cimport addresses
from dnsd.resolve.config cimport Config
from dnsd.resolve.exchange cimport randomised
from dnsd.resolve.forwarder cimport Ask, Outcome, Reply, Tried
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
    cdef readonly bint away
    cdef readonly Delegation cut
    cdef readonly bytes qname
    cdef readonly int asked
    cdef readonly tuple server
    cdef readonly bytes cased
    cdef readonly bytes wire
    cdef readonly int patience_ms
    cdef readonly long long begun_ms

@cython.final
cdef class Journey:
    cdef public object question
    cdef public Ask ask
    cdef public Outcome outcome
    cdef public object fault
    cpdef object go_on(self, Reply reply)

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
    cpdef bint is_busy(self, bytes sname, int qtype) except? -1
    @cython.locals(cache=RRCache, validator=Validator, signed=bint, away=bint, cut=Delegation)
    cpdef Start begin(self, bytes sname, int qtype, bint do, bint cd, long long now_ms)
    @cython.locals(
        cache=RRCache, infra=Infra, config=Config, signed=bint, qname=bytes,
        servers=list, awake=list, server=tuple, cased=bytes, wire=bytes,
    )
    cdef Start _ask(
        self, bytes sname, int qtype, bint do, bint cd, bint away, Delegation cut, bytes near, int asked, long long begun_ms,
        long long now_ms,
    )
    @cython.locals(
        cache=RRCache, config=Config, signed=bint, message=Message,
        finding=Finding, kept=tuple, rcode=int, sname=bytes, qname=bytes, zone=bytes, qtype=int,
    )
    cpdef object end(self, Start start, bytes reply, long long rtt_ms, long long now_ms)
    @cython.locals(finding=Finding, following=Start)
    cdef object _step(self, Start start, Message message, long long rtt_ms, long long now_ms, bint signed)
    @cython.locals(zone=_Zone)
    cdef list _servers(self, Delegation cut)
