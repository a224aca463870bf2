cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.query cimport Query
from dnsd.resolve.forwarder cimport Ask, Outcome
from dnsd.resolve.shortcut cimport Journey, Shortcut, Start
from dnsd.serve.latepath cimport LatePath
from dnsd.serve.flightpath cimport FlightPath
from dnsd.serve.flighttable cimport FlightTable

cdef int _AUTHORITY

# Not final: `serve.rounds` waits for it.
cdef class ShortPath(FlightPath):
    cdef public Shortcut shortcut
    cdef public object journey
    cdef public int leaving
    cdef public list starts
    cdef public list journeys
    cdef public list wires
    cdef public list callers
    cdef unsigned long long[::1] promised
    cdef int[::1] kinds

    cdef int recurses(self, int route) except? -1
    cdef int dispatch(self, int f, str host, int port, bytes wire, int patience_ms) except? -1
    cdef int advance(self, int f, Journey journey) except? -1
