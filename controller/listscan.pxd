cpdef unsigned int scan(const unsigned char[::1] text, unsigned int at, unsigned int end, int hosts, int nulls, const unsigned char[::1] fold, unsigned char[::1] wire, unsigned int[::1] offsets, unsigned int[::1] odd, unsigned int[::1] marks) except? 0
cpdef int sort_pairs(unsigned int[::1] keys, unsigned int[::1] refs, unsigned int[::1] keys2, unsigned int[::1] refs2, unsigned int[::1] counts) except? -2
cdef int compare(const unsigned char[::1] data, unsigned int a, unsigned int b) except? -2
cpdef unsigned int size_of(const unsigned char[::1] data, unsigned int at) except? 0
cdef int by_name(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int[::1] refs, unsigned int first, unsigned int last) except? -2
cpdef unsigned int gather(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int[::1] keys, unsigned int[::1] refs, unsigned char[::1] wire, unsigned int[::1] places, unsigned int[::1] marks) except? 4294967295
cpdef unsigned int unite(const unsigned char[::1] data, const unsigned int[::1] offsets, unsigned int[::1] keys, unsigned int[::1] refs, const unsigned int[::1] owners, const unsigned int[::1] steps, unsigned int lists, unsigned int[::1] sets, unsigned int[::1] marks) except? 4294967295
cpdef unsigned int records(const unsigned char[::1] data, const unsigned int[::1] offsets, const unsigned int[::1] refs, const unsigned int[::1] sets, const unsigned int[::1] numbers, unsigned char[::1] out, unsigned int[::1] places) except? 4294967295
cpdef unsigned long long records_size(const unsigned char[::1] data, const unsigned int[::1] offsets, const unsigned int[::1] refs) except? 0
cpdef int shift(unsigned int[::1] values, unsigned int by) except? -2
cpdef int lower(unsigned int[::1] values, unsigned int count, unsigned char[::1] used) except? -2
