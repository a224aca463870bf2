cimport cython

@cython.final
cdef class Budget:
    cdef public long long now_ms
    cdef public long long deadline_ms
    cdef public int asks
    cdef public int address_lookups
    cpdef long long ask(self, long long wanted_ms) except *
