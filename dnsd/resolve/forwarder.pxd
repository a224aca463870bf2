cimport cython

@cython.final
cdef class Ask:
    cdef readonly tuple server
    cdef readonly bytes wire
    cdef readonly str transport
    cdef readonly long long timeout_ms
    cdef readonly bint fresh
    cdef readonly tuple rivals

@cython.final
cdef class Reply:
    cdef readonly bytes wire
    cdef readonly long long now_ms
    cdef readonly str error
    cdef readonly tuple server

@cython.final
cdef class Tried:
    cdef readonly tuple server
    cdef readonly bytes cased
    cdef readonly long long qtype
    cdef readonly long long began_ms
    cdef readonly Reply reply

@cython.final
cdef class Outcome:
    cdef readonly bytes response
    cdef readonly long long ede
    cdef readonly str text
    cdef readonly bint bogus
    cdef readonly bint fleeting

cpdef bint matches(bytes asked, bytes answered) except? -1
