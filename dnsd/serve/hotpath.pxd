cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.octets cimport copy
from dnsd.contract.query cimport Query
from dnsd.contract.table cimport Table
from dnsd.contract.factsview cimport FactsView
from dnsd.contract.verdict cimport Chain, Verdict
from dnsd.contract.answer cimport Responder
from dnsd.contract.review cimport Reviewer
from dnsd.contract.cookies cimport Cookies
from dnsd.serve.meter cimport Meter
from dnsd.resolve.cache cimport Cache

# Not final: `serve.flightpath` adds forwarding. What it does not replace is final, so that calls stay direct.
cdef class HotPath:
    cdef public Table table
    cdef public FactsView view
    cdef public object info
    cdef public Query q
    cdef public Query ahead
    cdef public Query target
    cdef public Verdict v
    cdef public Chain chain
    cdef public Responder responder
    cdef public Reviewer reviewer
    cdef public Meter meter
    cdef public Cache cache
    cdef public object socket_batch
    cdef unsigned char[::1] inp
    cdef unsigned long long[::1] client_words
    cdef int[::1] lengths
    cdef int[::1] out_lengths
    cdef int in_stride
    cdef int out_stride
    cdef int landing
    cdef unsigned int latency_us
    cdef unsigned long long[::1] counters
    cdef unsigned char[::1] ring
    cdef unsigned long long[::1] ring_words
    cdef int ring_records
    cdef public unsigned long long mono_ms
    cdef public unsigned long long wall_ms
    cdef unsigned int now
    cdef public object facts_data
    cdef public unsigned long long generation
    cdef public str digest
    cdef public str revision
    cdef public list misses
    cdef public int slot
    cdef public bytes identity
    cdef public object stream_query
    cdef public object stream_responder
    cdef public object routes
    cdef int[::1] marks
    cdef int hit
    cdef public int min_ttl
    cdef public int max_ttl
    cdef public int prefetch
    cdef public int keepalive
    cdef public unsigned int stale_s
    cdef int late

    @cython.final
    cdef int tell(self, unsigned long long mono_ms, unsigned long long wall_ms) except? -1
    @cython.final
    cdef int look(self, Query q, int i) except? -1
    @cython.final
    cdef int conclude(self, Query q, Responder r, int out, int limit) except? -2
    @cython.final
    cdef int handle(self, Query q, Responder r, int base, int length, int out, int limit) except? -2
    @cython.final
    cdef int hold_back(self, Query q, Responder r, int out, int limit) except? -2
    @cython.final
    cdef int cached(self, Query q, Responder r, int out, int limit) except? -2
    @cython.final
    cdef int mark(self, int number) except? -1
    @cython.final
    cdef int let_pass(self, Query q, Query s) except? -1
    @cython.final
    cdef int load_target(self) except? -1
    @cython.final
    cdef int count(self, int number) except? -1
    @cython.final
    cdef int tally(self, Query q, Responder r) except? -1
    @cython.final
    cdef int record(self, Query q, int rcode, int tcp, int cached, unsigned int latency_us) except? -1
    @cython.final
    cdef int aged(self, Query q, Query s) except? -1
    cdef int renew(self, Query q, Query s) except? -1
    cdef int defer(self, Query q, int i, int fd) except? -1
