cimport cython
from dnsd.contract.codes cimport *
from dnsd.contract.query cimport Query
from dnsd.contract.answer cimport Responder
from dnsd.contract.verdict cimport Verdict
from dnsd.serve.hotpath cimport HotPath

# Not final: `serve.flightpath` adds forwarding.
cdef class LatePath(HotPath):
    cdef int defer(self, Query q, int i, int fd) except? -1
    cdef int renew(self, Query q, Query s) except? -1
