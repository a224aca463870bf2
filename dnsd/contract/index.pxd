from dnsd.contract.layout cimport *

cpdef unsigned int suffix_hash(const unsigned char[::1] data, unsigned int at, unsigned int seed, unsigned int[::1] labels) except? 0
cpdef int place(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int skip, const unsigned int[::1] refs, unsigned int seed, unsigned int mask, unsigned int[::1] slots, unsigned int[::1] labels, unsigned int limit) except? -2
