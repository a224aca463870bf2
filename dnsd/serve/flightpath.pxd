cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.query cimport Query
from dnsd.contract.answer cimport Responder
from dnsd.contract.verdict cimport Verdict
from dnsd.resolve.cache cimport Cache
from dnsd.resolve.message cimport Reader
from dnsd.serve.latepath cimport LatePath
from dnsd.serve.flighttable cimport FlightTable
from dnsd.serve.lanes cimport Lanes

# Not final: `serve.shortpath` adds recursion.
cdef class FlightPath(LatePath):
    cdef public FlightTable flights
    cdef public object lines
    cdef public Lanes lanes
    cdef public int upstream_fd
    cdef const unsigned char[::1] datagrams
    cdef int[::1] sizes
    cdef int[::1] from_lines
    cdef unsigned char[::1] question
    cdef int[::1] question_lengths
    cdef int[::1] question_lines
    cdef int[::1] question_flights
    cdef int in_size
    cdef int out_size
    cdef int queued
    cdef Reader reader
    cdef Query waiter
    cdef unsigned char[::1] client_names
    cdef int[::1] client_name_lengths
    cdef unsigned char[::1] client_controls
    cdef int[::1] client_control_lengths
    cdef int[::1] parked
    cdef public int replies
    cdef int[::1] route_count
    cdef int[::1] route_pools
    cdef int[::1] route_way
    cdef int[::1] route_turn
    cdef int[::1] route_patience
    cdef public object handoff
    cdef public object chooser
    cdef public object proven
    cdef public int more
    cdef long long soonest
    cdef int kept
    cdef int sending

    cdef int comfort(self, int f) except? -1
    cdef int reply(self, int j, int length) except? -2
    cdef int overloaded(self, Query q, int i) except? -1
    cdef int park(self, int j, Query q, int i, int fd) except? -1
    cpdef int choose(self, int route) except? -2
    cdef int pick(self, int route) except? -1
    cdef int accompany(self, int f, int route) except? -1
    cpdef int fallen(self, int f, int late) except? -2
    cpdef int linger(self, int f) except? -1
    cpdef int awaited(self, int f) except? -1
    cdef int disband(self, int lead, int winner) except? -1
    cdef int launch(self, int f, int pool, int route) except? -1
    cpdef depart(self)
    cdef int arrive(self, int i) except? -1
    cdef int answers(self, int f, int base, int size) except? -1
    cdef int land(self, int f, int base, int size) except? -1
    cdef int keep(self, int f, const unsigned char[::1] d, int base, int size, int ours) except? -1
    cdef int deliver(self, int f, int at) except? -1
    cdef int board(self, int f, Query q, int i, int fd) except? -1
    cdef int promise(self, int f) except? -1
    cdef int respond(self, int j) except? -2
    cpdef answer_all(self)
    cdef int due_by(self, long long deadline) except? -1
