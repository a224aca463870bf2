cimport cython

cdef int copy(unsigned char[::1] out, int at, const unsigned char[::1] data, int first, int length) except -1
cdef int equal(const unsigned char[::1] one, int at, const unsigned char[::1] two, int first, int length) except -1
cdef int fold(unsigned char[::1] out, const unsigned char[::1] data, int first, int length) except -1
