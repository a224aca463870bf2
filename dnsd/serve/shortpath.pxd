cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.query cimport Query
from dnsd.resolve.shortcut cimport Shortcut, Start
from dnsd.serve.latepath cimport LatePath
from dnsd.serve.flightpath cimport FlightPath
from dnsd.serve.flighttable cimport FlightTable

cdef int _AUTHORITY

# Not final: `serve.rounds` waits for it.
cdef class ShortPath(FlightPath):
    cdef public Shortcut shortcut
    cdef public list starts
    cdef int[::1] kinds

    cdef int recurses(self, int route) except? -1
    cdef int dispatch(self, int f, Start start) except? -1
