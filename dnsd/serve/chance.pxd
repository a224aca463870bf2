cimport cython

@cython.final
cdef class Chance:
    cdef bytes _octets
    cdef int _at
    @cython.locals(at=int, octets=bytes, high=cython.ulonglong)
    cpdef unsigned long long bits32(self) except? 4294967296
