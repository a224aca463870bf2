from dnsd.contract.layout cimport *

cpdef unsigned int suffix_hash(const unsigned char[::1] data, unsigned int at, unsigned int seed, unsigned int[::1] labels) except? 0
cpdef int place(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int skip, const unsigned int[::1] refs, unsigned int seed, unsigned int mask, unsigned int[::1] slots, unsigned int[::1] labels, unsigned int limit) except? -2
cpdef int sort_keys(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int[::1] labels, unsigned int[::1] keys) except? -2
cpdef int place_keyed(const unsigned int[::1] keys, const unsigned int[::1] refs, unsigned int mask, unsigned int[::1] slots, unsigned int limit) except? -2
cpdef int check_records(const unsigned int[::1] slots, const unsigned char[::1] records, unsigned int listsets) except? -2
cpdef int count_labels(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int skip, unsigned int[::1] labels) except? -2
