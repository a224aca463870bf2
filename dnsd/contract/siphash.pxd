cimport cython

cdef unsigned long long siphash(const unsigned char[::1] data, int first, int length, unsigned long long k0, unsigned long long k1) except? 0
