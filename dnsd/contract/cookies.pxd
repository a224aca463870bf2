cimport cython
from dnsd.contract.octets cimport copy
from dnsd.contract.query cimport Query
from dnsd.contract.siphash cimport siphash

@cython.final
cdef class Cookies:
    cdef unsigned long long k0
    cdef unsigned long long k1
    cdef unsigned char[::1] data

    cdef unsigned long long hashed(self, Query q) except? 0
    cpdef int valid(self, Query q, unsigned int now) except? -1
    cpdef int write(self, Query q, unsigned char[::1] out, int at, unsigned int now) except? -1
